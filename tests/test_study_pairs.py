"""The study's pairs (BAM): planted maps have the scores of the definitions, patches change no logit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from benchmarks.study import contrast, datasets, pairs, results

KEY = jax.random.key(5)
NUMBER = 6


@pytest.fixture(scope="module")
def seen():
    drawn = jax.jit(datasets.pasted(), static_argnums=1)(KEY, NUMBER)
    ones = jnp.ones(NUMBER)
    return pairs.Seen(
        drawn.images, drawn.without, drawn.without, drawn.labels, drawn.scenes, drawn.masks, ones, ones
    )


def objects(images):
    return jnp.zeros((len(images), datasets.SHAPES))


def textures(images):
    return jnp.zeros((len(images), datasets.SHAPES))


def _scores(seen, method):
    return {
        metric.function.__name__: metric.function(method, objects, seen.images, seen.shapes)
        for metric in pairs.metrics(seen, objects, textures)
    }


def test_what_a_map_says_of_a_place_is_its_mean_there_from_0_to_1():
    maps, masks = np.zeros((4, 10, 10)), np.zeros((4, 10, 10), bool)
    masks[:, :2] = True
    maps[0, :2], maps[1, 2:] = 7.0, 7.0
    # Half as much as elsewhere; and a place among negative values.
    maps[2] = np.where(masks[2], 2.0, 4.0)
    maps[3] = np.where(masks[3], 1.0, -5.0)
    np.testing.assert_allclose(pairs.share(maps, masks), [1, 0, 0.5, 1])
    np.testing.assert_array_equal(pairs.share(np.zeros((1, 10, 10)), masks[:1]), 0)
    # A pixel of four hundred, however large, does not hide the others; alone it is what there is.
    marked = np.zeros((1, 20, 20), bool)
    marked[:, :10] = True
    one = np.zeros((1, 20, 20))
    one[0, 15, 15] = 1e6
    np.testing.assert_allclose(pairs.share(one + marked, marked), 1)
    np.testing.assert_allclose(pairs.share(one, one > 0), 1)


def test_a_map_that_says_what_each_network_looks_at_has_the_best_scores(seen):
    def method(model, images, targets):
        hidden = jnp.abs(images - seen.bare).max(-1) > 1e-6
        # The object, where it is told; all of the texture that is to be seen.
        return (seen.masks if model is objects else ~hidden).astype(jnp.float32)

    found = _scores(seen, method)
    assert set(found) == set(pairs.PROTOCOLS)
    for values in found.values():
        np.testing.assert_allclose(values, np.ones(NUMBER))


def test_maps_that_do_not_depend_on_the_network_or_the_image(seen):
    found = _scores(seen, lambda model, images, targets: jnp.ones(images.shape[:3]))
    np.testing.assert_array_equal(found["model_contrast"], 0)
    np.testing.assert_array_equal(found["input_dependence"], 0)
    np.testing.assert_array_equal(found["input_independence"], 1)


def test_a_map_of_the_pixels_sees_the_patch(seen):
    patched = jnp.where(seen.masks[..., None], 1.0, seen.bare)

    def bright(model, images, targets):
        return images.mean(-1) + 1

    found = _scores(seen._replace(patched=patched), bright)
    np.testing.assert_array_equal(found["input_independence"], 0)
    np.testing.assert_array_equal(_scores(seen, bright)["input_independence"], 1)


def test_each_network_is_asked_for_its_own_class(seen):
    asked = []

    def method(model, images, targets):
        asked.append((model, np.asarray(targets)))
        return jnp.ones(images.shape[:3])

    pairs.metrics(seen, objects, textures)[0].function(method, objects, seen.images, seen.shapes)
    (first, shapes), (second, scenes) = asked
    assert first is objects and second is textures
    np.testing.assert_array_equal(shapes, seen.shapes)
    np.testing.assert_array_equal(scenes, seen.textures)


def _linear(weights, images):
    return images.reshape(len(images), -1) @ weights


def test_patches_are_large_and_leave_the_logits_as_they_are(seen):
    drawn = jax.jit(datasets.pasted(), static_argnums=1)(KEY, NUMBER)
    model = Partial(_linear, jax.random.normal(KEY, (32 * 32 * 3, datasets.SHAPES)) / 32)
    patched = pairs.patches(model, drawn)
    there = np.asarray(drawn.masks)[..., None]
    np.testing.assert_array_equal(np.where(there, 0, patched), np.where(there, 0, drawn.without))
    inside = np.asarray(patched)[np.broadcast_to(there, patched.shape)]
    assert inside.min() >= -1 and inside.max() <= 1
    before = np.asarray(model(drawn.without))
    moved = np.linalg.norm(np.asarray(model(patched)) - before, axis=-1)
    by_object = np.linalg.norm(np.asarray(model(drawn.images)) - before, axis=-1)
    assert (moved < 0.02 * by_object).all()
    size = np.abs(np.asarray(patched - drawn.without)).sum((1, 2, 3))
    assert (size > 0.3 * np.abs(np.asarray(drawn.images - drawn.without)).sum((1, 2, 3))).all()


@pytest.mark.slow
def test_pairs_run_and_are_a_section_of_the_page(tmp_path):
    for _ in pairs.run(tmp_path, seeds=1, number=3, steps=100, only=("saliency", "Grad-CAM")):
        pass
    out = tmp_path / "results"
    results.gather(tmp_path, out)
    (group,) = results.read("pairs", out)
    assert set(group["rows"]) == {"saliency", "Grad-CAM", "random"} and group["images"] == 3
    text = "\n".join(contrast.section([group | {"learnt": True}]))
    mean = np.mean(group["rows"]["saliency"]["model_contrast"])
    assert f"| saliency | {mean:.2f} [" in text and "| *random* |" in text
