import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.perturbation._extremal import smooth_maximum

KEY = jax.random.key(0)
IMAGES = jnp.ones((2, 16, 24, 3)).at[1].multiply(0.8)


def model(x):
    """Two classes that look at opposite corners."""
    return 9 * jnp.stack([x[:, :8, :12].mean((1, 2, 3)), x[:, 8:, 12:].mean((1, 2, 3))], axis=1)


def extremal(x, t, **options):
    options = dict(area=0.25, steps=200, stride=3, sigma=4.0, learning_rate=0.1, area_weight=50.0, **options)
    return jaxai.extremal_perturbation(model, x, t, fill=0.0, flip=False, **options)


def meaningful(x, t, **options):
    return jaxai.meaningful_perturbation(
        model, x, t, key=KEY, steps=40, grid=(4, 6), jitter=1, fill=0.0, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", [extremal, meaningful])
def test_corners_and_batches(method):
    both = method(IMAGES, jnp.array([[0, 1], [1, 0]]))
    assert both.shape == (2, 2, 16, 24)
    assert both.min() >= 0 and both.max() <= 1
    first, second = both[0, 0], both[0, 1]
    assert first[:8, :12].mean() > 2 * first[8:, 12:].mean()
    assert second[8:, 12:].mean() > 2 * second[:8, :12].mean()

    # Steps amplify rounding, of equal gradients at the start most of all: what the masks keep is compared.
    def kept(mask, image, target):
        return model(image[None] * mask[None, ..., None])[0, target]

    alone = method(IMAGES[1:], jnp.array([1]))[0]
    chunked = method(IMAGES, jnp.array([0, 1]), batch_size=1)[1]
    for mask in (alone, chunked):
        np.testing.assert_allclose(kept(mask, IMAGES[1], 1), kept(both[1, 0], IMAGES[1], 1), rtol=0.02)
    called = method(IMAGES[:1], lambda s: s[:, 1] if method is extremal else jax.nn.softmax(s)[:, 1])[0]
    np.testing.assert_allclose(kept(called, IMAGES[0], 1), kept(second, IMAGES[0], 1), rtol=0.02)


def test_area_is_kept():
    assert abs(float(extremal(IMAGES[:1], 0).mean()) - 0.25) < 0.05


def test_variants():
    deleted = extremal(IMAGES[:1], 0, variant="delete")[0]
    dual = extremal(IMAGES[:1], 0, variant="dual")[0]
    for mask in (deleted, dual):
        assert mask[:8, :12].mean() > 2 * mask[8:, 12:].mean()


@pytest.mark.slow
def test_pyramid_of_blurs_and_flips_run():
    found = jaxai.extremal_perturbation(model, IMAGES[:1], 0, steps=3, stride=4, sigma=5.0)
    assert found.shape == (1, 16, 24) and jnp.isfinite(found).all()


def test_smooth_maximum_by_hand():
    heights = jnp.zeros((1, 3, 4)).at[0, 1, 2].set(0.7)
    mask = np.asarray(smooth_maximum(heights, 4, 3.0)[0])
    # One bump in the middle of its cell, (5.5, 9.5): about its height there, nothing far away.
    assert mask.shape == (12, 16)
    assert 0.6 < mask[5, 9] <= 0.75 and mask[11, 0] < 1e-5
    assert mask[5, 9] > mask[5, 12] > mask[5, 14]
    np.testing.assert_allclose(mask[5, 8], mask[5, 11], rtol=1e-5)
    # Equal bumps prefer no place.
    np.testing.assert_allclose(smooth_maximum(jnp.ones((1, 3, 4)), 4, 3.0), 1, atol=1e-6)
    half = np.asarray(smooth_maximum(jnp.full((1, 3, 4), 0.5), 4, 3.0))
    np.testing.assert_allclose(half, np.tile(half[:, :4, :4], (1, 3, 4)), atol=1e-6)


def test_flat_images_are_finite():
    flat = jnp.zeros((1, 16, 24, 3))
    assert jnp.isfinite(meaningful(flat, 0)).all() and jnp.isfinite(extremal(flat, 0)).all()


def test_errors():
    with pytest.raises(ValueError, match="`area` must lie"):
        jaxai.extremal_perturbation(model, IMAGES, 0, area=1.0)
    with pytest.raises(ValueError, match="`variant` must be one of"):
        jaxai.extremal_perturbation(model, IMAGES, 0, variant="hide")
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        jaxai.extremal_perturbation(model, IMAGES, 0, sigma=0.0)
    with pytest.raises(ValueError, match="`steps` must be a positive"):
        jaxai.meaningful_perturbation(model, IMAGES, 0, key=KEY, steps=0)
    with pytest.raises(ValueError, match="`jitter` must be"):
        jaxai.meaningful_perturbation(model, IMAGES, 0, key=KEY, jitter=-1)
    with pytest.raises(TypeError, match="typed key"):
        jaxai.meaningful_perturbation(model, IMAGES, 0, key=3)
