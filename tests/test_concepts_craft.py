"""CRAFT: planted dictionaries are found, importances are those of closed forms, parts are least squares."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai._frame import targets as _targets
from jaxai.concepts import concept_model, craft, subconcepts
from jaxai.concepts._craft import importance
from jaxai.concepts._parts import parts
from jaxai.features import factorize
from jaxai.features._factors import _nndsvd, _random

KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
# Three concepts of seven channels, each with channels of its own.
DICTIONARY = np.array(
    [[1, 0.5, 0, 0, 0, 0, 0.2], [0, 0, 1, 0.8, 0, 0, 0], [0, 0, 0, 0, 0.6, 1, 0]], np.float32
)
DICTIONARY /= np.linalg.norm(DICTIONARY, axis=1, keepdims=True)


def images(count=6, size=12, seed=4):
    """Each channel of an image is where one concept is: a patch of it, at a place of its own."""
    rng, found = np.random.default_rng(seed), np.zeros((count, size, size, 3), np.float32)
    for image in found:
        for channel in range(3):
            row, column = rng.integers(0, size - 4, 2)
            image[row : row + 5, column : column + 5, channel] = rng.uniform(0.5, 1.5)
    return jnp.asarray(found)


WEIGHTS = jnp.array([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0]])
PLANTED = jaxai.chain(
    {
        "features": lambda x: x @ jnp.asarray(DICTIONARY),
        # What the concepts' own parts sum to.
        "logits": lambda a: (a @ jnp.linalg.pinv(jnp.asarray(DICTIONARY))).mean((1, 2)) @ WEIGHTS,
    }
)


@pytest.mark.slow
def test_a_planted_dictionary_is_found_and_weighed():
    x = images()
    found = craft(
        PLANTED,
        x,
        jnp.array([[0, 1]] * 6),
        layer="features",
        key=KEY,
        num_concepts=3,
        crop=4,
        steps=2000,
        num_designs=256,
    )
    cosines = np.asarray(found.directions) @ DICTIONARY.T
    own = cosines.argmax(1)
    assert sorted(own) == [0, 1, 2] and cosines.max(1).min() > 0.95 and found.error < 0.05
    close(found.maps[:, np.argsort(own)], np.moveaxis(np.asarray(x), -1, 1), 0.1)
    # A sum of parts, dimmed by independent uniform numbers: shares of the squared parts.
    sums = np.asarray(x).mean((1, 2))
    terms = np.square(sums[:, None] * np.asarray(WEIGHTS).T[None])
    expected = (terms / terms.sum(-1, keepdims=True)).mean(0)[:, own]
    assert found.importance.shape == (2, 3)
    np.testing.assert_allclose(found.importance, expected, atol=0.06)
    assert (found.importance_error >= 0).all()


@pytest.mark.slow
def test_one_image_has_no_standard_error():
    x, options = images(2), dict(layer="early", key=KEY, num_concepts=2, crop=4, num_designs=8)
    one, two = craft(nested(), x[:1], 0, **options), craft(nested(), x, 0, **options)
    assert np.isfinite(one.importance).all() and np.isnan(one.importance_error).all()
    assert np.isfinite(two.importance_error).all()
    both = craft(nested(), x[:1], jnp.array([[0, 1]]), **options).importance_error
    assert both.shape == (2, 2) and np.isnan(both).all()
    late = craft(nested(), x, 0, **{**options, "layer": "late"})
    parts_of = subconcepts(nested(), x, late, 0, layer="early", key=KEY, num_concepts=2, share=0.01)
    assert np.isfinite(parts_of.importance).all() and np.isnan(parts_of.importance_error).all()


@pytest.mark.slow
def test_the_crops_show_their_concept():
    x = images()
    found = craft(PLANTED, x, 0, layer="features", key=KEY, num_concepts=3, crop=4, steps=500)
    own = (np.asarray(found.directions) @ DICTIONARY.T).argmax(1)
    assert found.size == 4 and found.crops.shape == (3, 10, 3)
    for channel, (image, row, column) in zip(own, np.asarray(found.crops[:, 0]), strict=True):
        inside = x[image, row : row + 4, column : column + 4].mean((0, 1))
        every = [
            x[:, i : i + 4, j : j + 4, channel].mean((1, 2)).max()
            for i in range(0, 9, 3)
            for j in range(0, 9, 3)
        ]
        assert inside[channel] > 0.8 * max(map(float, every))


def test_a_tag_that_decides_is_the_most_important_concept():
    """Clever Hans: the class hangs on a tag in the corner, not on the object."""
    x = images(8).at[:, :3, :3, 1].set(1.5)
    net = jaxai.chain(
        {
            "features": lambda x: x @ jnp.asarray(DICTIONARY),
            "logits": lambda a: (
                jnp.tanh(3 * a[:, :3, :3, 2].mean((1, 2)))[:, None] + 0.02 * a.mean((1, 2))[:, :1]
            ),
        }
    )
    found = craft(net, x, 0, layer="features", key=KEY, num_concepts=3, crop=3, steps=500)
    best = int(found.importance.argmax())
    assert (np.asarray(found.directions[best]) @ DICTIONARY.T).argmax() == 1 and found.importance[best] > 0.8


def test_parts_are_non_negative_least_squares():
    from scipy.optimize import nnls

    directions = np.abs(RNG.normal(size=(4, 9))).astype(np.float32)
    acts = np.abs(RNG.normal(size=(11, 9))).astype(np.float32)
    expected = np.array([nnls(directions.T.astype(np.float64), a)[0] for a in acts])
    close(parts(jnp.asarray(acts), jnp.asarray(directions), 200), expected, 1e-3)


@pytest.mark.parametrize("start", ["random", "nndsvd"])
@pytest.mark.parametrize("method", ["multiplicative", "projected_gradient"])
@pytest.mark.slow
def test_factorizations_reach_the_objective_of_scikit_learn(method, start):
    from sklearn.decomposition import NMF

    rng = np.random.default_rng(5)
    x = (rng.gamma(0.3, size=(300, 6)) @ rng.gamma(0.3, size=(6, 40))).astype(np.float32)
    x += 0.05 * np.abs(rng.normal(size=x.shape)).astype(np.float32)
    # Coordinate descent and multiplicative updates, as their names go there; the better of two starts.
    solver = {"multiplicative": "mu", "projected_gradient": "cd"}[method]
    theirs = [
        NMF(6, init=init, solver=solver, max_iter=2000, tol=0, random_state=0).fit(x).reconstruction_err_
        for init in ("nndsvda", "random")
    ]
    ours = factorize(jnp.asarray(x), factors=6, key=KEY, steps=2000, method=method, start=start)
    assert float(ours.error) < min(theirs) / np.linalg.norm(x) + 1e-3
    assert (ours.directions >= 0).all() and (ours.maps >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(ours.directions, axis=1), 1, rtol=1e-4)
    rest = np.linalg.norm(x - np.asarray(ours.maps @ ours.directions)) / np.linalg.norm(x)
    np.testing.assert_allclose(ours.error, rest, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["multiplicative", "projected_gradient"])
def test_factorizations_stop_where_the_error_no_longer_falls(method):
    x = jnp.asarray(np.random.default_rng(5).random((40, 12)), jnp.float32)
    options = dict(factors=3, key=KEY, method=method)
    w, h = _random(x, 3, KEY)
    errors = [float(jnp.linalg.norm(x - w @ h) / jnp.linalg.norm(x))]
    errors += [float(factorize(x, steps=steps, **options).error) for steps in range(10, 210, 10)]
    for tolerance in (1e-2, 1e-3, 1e-4):
        small = [i for i in range(1, 21) if errors[i - 1] - errors[i] < tolerance * errors[0]]
        assert 1 < small[0] < 20
        stopped = factorize(x, steps=200, tolerance=tolerance, **options)
        np.testing.assert_allclose(stopped.error, errors[small[0]], rtol=2e-6)
    # The last updates are fewer than ten.
    odd = factorize(x, steps=13, tolerance=1e-9, **options)
    close(odd.maps, factorize(x, steps=13, **options).maps, 1e-5)


def test_nndsvd_is_that_of_scikit_learn():
    from sklearn.decomposition._nmf import _initialize_nmf

    rng = np.random.default_rng(6)
    for shape in ((20, 7), (7, 20)):
        x = rng.random(shape).astype(np.float32)
        w, h = _initialize_nmf(x, 4, init="nndsvd", random_state=0)
        ours = _nndsvd(jnp.asarray(x), 4)
        close(ours[0] @ ours[1], w @ h, 2e-3)


@pytest.mark.slow
def test_the_derivative_of_parts_is_that_of_the_minimum():
    """Implicit differentiation against finite differences of SciPy's solution."""
    from scipy.optimize import nnls

    rng = np.random.default_rng(7)
    directions, acts = np.abs(rng.normal(size=(4, 6))), rng.normal(size=6) + 0.8
    found = nnls(directions.T, acts)[0]
    # Some parts are zero, and stay so.
    assert 0 < (found > 0).sum() < 4
    slopes = [
        (nnls(directions.T, acts + 1e-5 * step)[0] - nnls(directions.T, acts - 1e-5 * step)[0]) / 2e-5
        for step in np.eye(6)
    ]
    of = lambda a, d: parts(a[None], d)[0]  # noqa: E731
    arrays = jnp.asarray(acts, jnp.float32), jnp.asarray(directions, jnp.float32)
    close(jax.jacrev(of)(*arrays), np.array(slopes).T, 1e-3)
    moved = np.zeros((4, 4, 6))
    for place in np.ndindex(4, 6):
        step = np.zeros((4, 6))
        step[place] = 1e-5
        ends = [nnls((directions + sign * step).T, acts)[0] for sign in (1, -1)]
        moved[(slice(None), *place)] = (ends[0] - ends[1]) / 2e-5
    close(jax.jacrev(of, argnums=1)(*arrays), moved, 1e-3)


@pytest.mark.slow
def test_methods_explain_concepts_on_pixels():
    x = images(3)
    found = craft(PLANTED, x, 0, layer="features", key=KEY, num_concepts=3, crop=4)
    model = concept_model(PLANTED, found)
    close(model(x), np.asarray(found.maps).mean((2, 3)), 5e-3)
    own = (np.asarray(found.directions) @ DICTIONARY.T).argmax(1)
    for concept in range(3):
        slopes = np.asarray(jaxai.saliency(model, x, concept))
        inside = np.asarray(x)[..., own[concept]] > 0
        # The map lies on the channel in which this concept is, where it is.
        assert (np.abs(slopes).sum((0, 1, 2)).argmax() == own[concept]) and slopes[inside].any()
    with pytest.raises(ValueError, match="`layer` must name the layer"):
        concept_model(PLANTED, DICTIONARY)


def nested():
    """A late concept made of two early ones: red and green patches; blue is another."""
    late = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return jaxai.chain(
        {
            "early": lambda x: x @ jnp.asarray(DICTIONARY),
            "late": lambda a: jnp.maximum(a @ jnp.linalg.pinv(jnp.asarray(DICTIONARY)), 0) @ late,
            "logits": lambda a: a.mean((1, 2)),
        }
    )


@pytest.mark.slow
def test_importances_are_those_of_a_version_in_numpy():
    """Independent of the library but for the directions: SciPy's least squares and Jansen's estimator."""
    from scipy.optimize import nnls
    from scipy.stats import qmc

    x = images(4)
    weights = np.asarray([[1.0, 0.2], [0.5, 2.0], [0.3, 1.0]])
    net = jaxai.chain(
        {
            "features": lambda x: x @ jnp.asarray(DICTIONARY),
            "logits": lambda a: jnp.tanh(a[..., :3].mean((1, 2)) @ jnp.asarray(weights, "float32")),
        }
    )
    found = craft(net, x, 1, layer="features", key=KEY, num_concepts=3, crop=4, steps=500, num_designs=32)
    directions = np.asarray(found.directions, np.float64)
    # Without the first point, the origin.
    points = qmc.Sobol(6, scramble=False).random(64)[1:33]
    a, b = points[:, :3], points[:, 3:]
    indices = []
    for image in np.asarray(x, np.float64) @ DICTIONARY:
        parts = np.array([nnls(directions.T, position)[0] for position in image.reshape(-1, 7)])

        def score(masks, parts=parts):
            acts = (masks[:, None] * parts[None]) @ directions
            return np.tanh(acts[..., :3].mean(1) @ weights)[:, 1]

        plain, totals = score(a), []
        for concept in range(3):
            mixed = a.copy()
            mixed[:, concept] = b[:, concept]
            totals.append(((plain - score(mixed)) ** 2).mean() / 2 / plain.var(ddof=1))
        indices.append(totals)
    np.testing.assert_allclose(found.importance, np.mean(indices, 0), atol=1e-3)
    np.testing.assert_allclose(found.importance_error, np.std(indices, 0) / np.sqrt(3), atol=1e-3)


@pytest.mark.slow
def test_importances_are_those_of_xplique(lite0, photos):
    """The same factors and masks on the real EfficientNet-Lite0: parts and total indices."""
    golden = np.load(Path(__file__).parent / "goldens/craft_xplique.npz")
    cuts = []
    for name in ("cat", "coffee"):
        top, left = ((side - 224) // 2 for side in photos[name].shape[:2])
        cuts.append(photos[name][top : top + 224, left : left + 224])
    x = lite0.normalize(jnp.asarray(np.stack(cuts), "float32") / 255)
    model, x, targets = _targets.prepare(lite0.model, x, 285)
    lengths = np.linalg.norm(golden["bank"], axis=1)
    directions, masks = jnp.asarray(golden["bank"] / lengths[:, None]), jnp.asarray(golden["masks"])
    found, indices = importance(
        model, x, targets, directions, masks, layer="conv_head", steps=200, batch_size=None
    )
    np.testing.assert_allclose(found / lengths, golden["parts"], atol=1e-4)
    np.testing.assert_allclose(indices, golden["importances"], atol=1e-4)
    # As shipped its parts have a penalty.
    np.testing.assert_allclose(indices, golden["shipped"], atol=0.02)


@pytest.mark.slow
def test_a_concept_is_taken_apart_at_an_earlier_layer():
    net, x = nested(), images(12, seed=8)
    found = craft(net, x, 0, layer="late", key=KEY, num_concepts=2, crop=4)
    assert found.layer == "late"
    concept = int(found.directions[:, 0].argmax())
    made = subconcepts(
        net, x, found, concept, layer="early", key=KEY, num_concepts=2, share=0.3, num_designs=128
    )
    cosines = np.asarray(made.directions) @ DICTIONARY.T
    assert sorted(cosines.argmax(1)) == [0, 1] and cosines.max(1).min() > 0.95 and made.layer == "early"
    # Both are parts of it, and together all there is.
    assert made.importance.min() > 0.1 and made.importance.sum() > 0.9
    assert made.maps.shape[1:] == (2, 12, 12) and made.crops.shape[1:] == (10, 3)
    # Of three parts the one that is no part of it has no importance.
    every = subconcepts(
        net, x.at[:, ::2, ::2, 2].set(1.0), found, concept, layer="early", key=KEY, num_concepts=3, share=0.5
    )
    cosines = np.asarray(every.directions) @ DICTIONARY.T
    assert every.importance[cosines[:, 2].argmax()] < 0.05


@pytest.mark.slow
def test_chunks_and_alone():
    x, options = images(5), dict(layer="features", key=KEY, num_concepts=3, crop=4, num_designs=8)
    whole = craft(PLANTED, x, 1, **options)
    some = craft(PLANTED, x, 1, batch_size=2, **options)
    for name in ("directions", "importance", "maps"):
        close(getattr(some, name), getattr(whole, name), 1e-3)
    # Three concepts are all there is.
    assert max(some.error, whole.error) < 1e-4
    # Crops that show the same amount may change places.
    amounts = [
        [[float(x[i, r : r + 4, c : c + 4].sum((0, 1)).max()) for i, r, c in row[:2]] for row in made.crops]
        for made in (some, whole)
    ]
    close(*amounts, 1e-4)


@pytest.mark.slow
def test_affine_heads_are_asked_once_a_concept(monkeypatch):
    key = jax.random.key(0)
    x = jax.random.uniform(key, (2, 8, 8, 3))
    kernel = jax.random.normal(key, (3, 5))
    net = jaxai.chain(
        {"conv": jax.nn.relu, "logits": Partial(lambda w, a: a.mean((1, 2)) @ w + jnp.arange(5.0), kernel)}
    )
    options = {"layer": "conv", "key": key, "num_concepts": 3, "crop": 4, "num_designs": 8}
    for targets in (1, jnp.array([[0, 4], [2, 1]]), lambda s: jnp.tanh(s[:, 1])):
        fast = craft(net, x, targets, **options)
        with monkeypatch.context() as patch:
            patch.setattr("jaxai.concepts._craft.is_affine", lambda *_: False)
            importance.clear_cache()
            slow = craft(net, x, targets, **options)
        importance.clear_cache()
        np.testing.assert_allclose(fast.importance, slow.importance, atol=2e-5)
        np.testing.assert_allclose(fast.maps, slow.maps)


def test_errors():
    x = images(2)
    options = dict(layer="features", key=KEY, crop=4)
    with pytest.raises(
        ValueError, match="`num_concepts` must be at most 7, for 18 crops of 7 channels; got 8"
    ):
        craft(PLANTED, x, 0, num_concepts=8, **options)
    signed = jaxai.chain({"features": lambda x: x - 0.5, "logits": lambda x: x.mean((1, 2))})
    with pytest.raises(
        ValueError, match="`layer` must have activations of at least zero, as after a ReLU; 'features'"
    ):
        craft(signed, x, 0, num_concepts=2, **options)
    with pytest.raises(ValueError, match="`crop` must fit into images of 12 x 12 pixels; got 13"):
        craft(PLANTED, x, 0, num_concepts=2, **{**options, "crop": 13})
    with pytest.raises(ValueError, match="`num_designs` must be at least 2"):
        craft(PLANTED, x, 0, num_concepts=2, num_designs=1, **options)
    flat = jaxai.chain({"flat": lambda x: x.mean((1, 2)), "logits": lambda x: x})
    with pytest.raises(ValueError, match=r"must have activations \[batch, height, width, channels\]"):
        craft(flat, x, 0, num_concepts=2, **{**options, "layer": "flat"})
    with pytest.raises(ValueError, match="`start` must be one of random, nndsvd"):
        craft(PLANTED, x, 0, num_concepts=2, start="svd", **options)
    found = craft(PLANTED, x, 0, num_concepts=2, **options)
    with pytest.raises(ValueError, match="`layer` must be before 'features'; got 'logits'"):
        subconcepts(PLANTED, x, found, 0, layer="logits", key=KEY)
    with pytest.raises(ValueError, match="`concept` must be 0 to 1; got 2"):
        subconcepts(PLANTED, x, found, 2, layer="features", key=KEY)
    with pytest.raises(ValueError, match="`factors` must be at most 3 for start='nndsvd'"):
        factorize(jnp.ones((5, 3)), factors=4, key=KEY, start="nndsvd")
