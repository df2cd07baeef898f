"""CRAFT: planted dictionaries are found, importances are those of closed forms, parts are least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import jaxai
from jaxai.concepts import craft
from jaxai.concepts._craft import parts

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
    close(parts(jnp.asarray(acts), jnp.asarray(directions), 3000), expected, 5e-3)


@pytest.mark.slow
def test_chunks_and_alone():
    x, options = images(5), dict(layer="features", key=KEY, num_concepts=3, crop=4, num_designs=8)
    whole = craft(PLANTED, x, 1, **options)
    some = craft(PLANTED, x, 1, batch_size=2, **options)
    for name in ("directions", "importance", "maps", "error"):
        close(getattr(some, name), getattr(whole, name), 1e-3)
    assert np.array_equal(some.crops[:, :2], whole.crops[:, :2])


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
