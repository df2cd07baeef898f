"""The study's birds: parts are where regions say, FunnyBirds' protocols tell planted truth from chance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.study import birds, flock, parts, results, truth, units

KEY = jax.random.key(8)


@pytest.fixture(scope="module")
def drawn():
    scene = birds.scenes(KEY, 6)
    return scene, jax.jit(birds.whole)(scene)


def test_a_sufficient_set_of_parts_names_its_class_and_no_smaller_one_does():
    table = birds.classes()
    assert min((a != b).sum() for a, b in itertools.combinations(table, 2)) >= 2
    for label, sets in enumerate(birds.sufficient()):
        for some in sets:
            fits = [
                (table[:, list(less)] == table[label, list(less)]).all(1).sum() for less in _subsets(some)
            ]
            assert fits[-1] == 1
            assert min(fits[:-1], default=2) > 1


def _subsets(some):
    return [less for size in range(1, len(some) + 1) for less in itertools.combinations(some, size)]


def test_rivals_share_two_parts_each_and_none_of_them_the_same():
    table = birds.classes()
    for label, (first, second, shared, other) in enumerate(birds.rivals()):
        assert not set(shared) & set(other)
        for rival, some in ((first, shared), (second, other)):
            np.testing.assert_array_equal(np.flatnonzero(table[rival] == table[label]), some)


@pytest.mark.slow
def test_a_part_that_is_left_out_changes_its_own_pixels_and_nothing_else(drawn):
    scene, (images, shown) = drawn
    everything = jnp.ones(birds.OBJECTS, bool)
    render = jax.jit(jax.vmap(birds.render, in_axes=(0, None, None)))
    for part in range(parts.PARTS):
        without, _ = render(scene, jnp.arange(parts.PARTS) != part, everything)
        change = np.abs(np.asarray(images - without)).sum(-1)
        own = np.asarray(shown) == 1 + part
        assert ((change > 1e-3) & own).sum() > 0.8 * own.sum() > 0
        # Soft edges reach a little further at sharp corners.
        assert (change * parts._near(own[:, None])[:, 0]).sum() > 0.97 * change.sum()


@pytest.mark.slow
def test_training_tells_all_classes_that_have_the_parts_that_are_shown():
    flock = jax.jit(birds.training, static_argnums=1)(KEY, 64)
    labels = np.asarray(flock.labels)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    assert (np.unique(labels[labels > 0].round(4)) < 1).any() and (labels == 1).any()


def _additive(weights, labels, regions):
    """Return what is seen of a network whose logits are sums over the parts that are there."""
    subsets = np.arange(2**parts.PARTS)[:, None] >> np.arange(parts.PARTS) & 1
    scores = np.einsum("sp,npc->nsc", subsets, weights)
    without = np.repeat(scores[:, -1:], birds.OBJECTS, axis=1)
    images = np.zeros((*regions.shape[:1], *regions.shape[2:], 3), np.float32)
    return parts.Seen(jnp.asarray(images), labels, regions, scores, without)


@pytest.fixture(scope="module")
def planted():
    """Birds whose class has only its first sufficient set to go by, and a map that says so."""
    labels = np.arange(birds.CLASSES)
    # 13 regions of one pixel each, far enough apart that none is next to another.
    regions = np.zeros((len(labels), parts.REGIONS, 48, 48), bool)
    regions[:, np.arange(parts.REGIONS), 3 * np.arange(parts.REGIONS), 5] = True
    weights = np.zeros((len(labels), parts.PARTS, birds.CLASSES))
    for label in labels:
        some = list(birds.sufficient()[label][0])
        weights[label, some, label] = 1 + np.arange(len(some))
        weights[label, :, (label + 1) % birds.CLASSES] = 1e-3
    seen = _additive(weights, labels, regions)
    truth = np.einsum("np,nphw->nhw", weights[labels, :, labels], regions[:, : parts.PARTS])
    return seen, truth


def test_a_map_that_says_what_the_network_does_has_the_best_scores(planted):
    seen, truth = planted
    for name in ("sufficient_parts", "preservation", "deletion", "distractibility"):
        np.testing.assert_array_equal(parts.thresholded(name, seen, truth), 1.0)
    # Parts of no importance are equal in both: ties.
    assert parts.single_deletion(seen, truth).min() > 0.99
    assert parts.background_independence(seen) == 1


def test_the_opposite_map_and_one_of_the_background_have_the_worst(planted):
    seen, truth = planted
    assert parts.single_deletion(seen, -truth).max() < 0.01
    background = seen.regions[:, parts.PARTS :].sum(1).astype(float)
    assert parts.thresholded("sufficient_parts", seen, background).max() == 0
    assert parts.thresholded("deletion", seen, background).max() == 0
    assert np.isnan(parts.single_deletion(seen, background)).all()
    # All objects are called important at every share below an eighth, and none of the parts that say nothing.
    found = parts.by_share(*parts.importances(background, seen), seen)["distractibility"]
    idle = birds.OBJECTS + (parts._drops(seen)[1][:, : parts.PARTS] == 0).sum(1)
    np.testing.assert_allclose(found[:, 0], 1 - birds.OBJECTS / idle)


def test_target_sensitivity_wants_each_class_to_have_its_own_parts(planted):
    seen, _ = planted
    weights = np.zeros((birds.CLASSES, parts.PARTS, birds.CLASSES))
    for label, (first, second, shared, other) in enumerate(birds.rivals()):
        weights[label, shared, first] = weights[label, other, second] = 1
    seen = _additive(weights, seen.labels, seen.regions)

    def right(model, images, targets):
        some = weights[np.arange(birds.CLASSES), :, np.asarray(targets)]
        return jnp.asarray(np.einsum("np,nphw->nhw", some, seen.regions[:, : parts.PARTS]))

    def wrong(model, images, targets):
        return -right(model, images, targets)

    def same(model, images, targets):
        return jnp.ones(images.shape[:3])

    for method, score in ((right, 1.0), (wrong, 0.0), (same, 0.0)):
        np.testing.assert_array_equal(parts.target_sensitivity(seen, method, None, seen.images, None), score)
    # A network that does not use what they share says nothing.
    idle = _additive(np.zeros_like(weights), seen.labels, seen.regions)
    assert np.isnan(parts.target_sensitivity(idle, right, None, seen.images, None)).all()


@pytest.mark.slow
def test_birds_run_and_are_a_section_of_the_page(tmp_path):
    only = ("saliency", "Grad-CAM", "input x gradient")
    assert len(list(parts.run(tmp_path, seeds=1, number=4, steps=300, only=only))) == 2
    results.gather(tmp_path, tmp_path / "results")
    groups = results.read("birds", tmp_path / "results")
    assert groups[0]["learnt"] and set(only) <= set(groups[0]["rows"])
    text = "\n".join(flock.section(groups))
    assert "| Grad-CAM |" in text and "*random*" in text


@pytest.mark.slow
def test_mosaics_and_transformers_have_masks_and_methods_of_their_own(tmp_path):
    only = ("saliency", "attention rollout", "CAM")
    mosaics = truth.run(tmp_path, seeds=1, tasks=("mosaic of objects",), number=2, only=only)
    assert len(list(mosaics)) == 2
    folder = tmp_path / "truth" / "mosaic_of_objects_0"
    assert {path.stem for path in folder.glob("*.json")} == {"about", "saliency", "cam", "references"}
    tags = truth.run(tmp_path, seeds=1, tasks=("Clever Hans tag, ViT",), number=2, only=only, steps=100)
    assert "accuracy" in next(tags)


def test_a_method_that_refuses_a_network_has_no_scores_and_its_words_are_kept():
    def refuses(model, images, targets):
        raise ValueError("no such layer")

    found = units.scored(
        refuses,
        lambda x: x.mean((1, 2)),
        jnp.zeros((2, 8, 8, 3)),
        0,
        metrics=("gini",),
        key=jax.random.key(0),
    )
    assert found["refused"] == "no such layer" and found["rows"] == {"it": {"gini": [None, None]}}
