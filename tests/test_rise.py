import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.transform import resize

import jaxai
from jaxai.perturbation._rise import smooth_masks

KEY = jax.random.key(0)
GRID, SIZE = (3, 4), (14, 25)


def model(x):
    return (
        jnp.stack([x[:, 2:6, 3:9].mean((1, 2, 3)), jnp.sin(x).mean((1, 2, 3)), x[:, -1, -1, 0]], axis=1) * 4
    )


IMAGES = jax.random.uniform(jax.random.key(1), (2, *SIZE, 3))


def masks(count, key=KEY):
    return np.asarray(smooth_masks(GRID, SIZE, key, jnp.float32(0.5), jnp.arange(count)))


def reference(count, image, target, divisor):
    """The authors' loop, on our masks."""
    total, shown = np.zeros(SIZE), np.zeros(SIZE)
    for mask in masks(count):
        probability = jax.nn.softmax(model(jnp.asarray(image * mask[..., None])[None]))[0, target]
        total += float(probability) * mask
        shown += mask
    return total / (count * 0.5) if divisor == "probability" else total / shown


@pytest.mark.slow
@pytest.mark.parametrize("divisor", ["probability", "masks"])
def test_against_a_loop(divisor):
    run = dict(key=KEY, num_masks=40, grid=GRID, divisor=divisor)
    found = jaxai.rise(model, IMAGES, jnp.array([[0, 2], [1, 0]]), **run)
    assert found.shape == (2, 2, *SIZE)
    for image, target in ((0, 0), (1, 1)):
        chosen = [[0, 2], [1, 0]][image][target]
        expected = reference(40, np.asarray(IMAGES[image]), chosen, divisor)
        np.testing.assert_allclose(found[image, target], expected, atol=1e-5)


@pytest.mark.slow
def test_masks_are_those_of_the_authors_program():
    """Bits enlarged by scikit-image to one cell more than the grid, cut out at the shift."""
    for index in range(4):
        noise = np.asarray(jax.random.uniform(jax.random.fold_in(KEY, index), (GRID[0] * GRID[1] + 2,)))
        cell = np.ceil(np.array(SIZE) / GRID)
        bits = (noise[2:] < 0.5).astype(float).reshape(GRID)
        large = resize(bits, (np.array(GRID) + 1) * cell, order=1, mode="reflect", anti_aliasing=False)
        top, left = np.floor(noise[:2] * cell).astype(int)
        expected = large[top : top + SIZE[0], left : left + SIZE[1]]
        np.testing.assert_allclose(masks(4)[index], expected, atol=1e-5)


@pytest.mark.slow
def test_masks_have_the_right_mean():
    many = masks(2000)
    assert many.min() >= 0 and many.max() <= 1 and abs(many.mean() - 0.5) < 0.02
    some = smooth_masks(GRID, SIZE, KEY, jnp.float32(0.5), jnp.array([7, 1999]))
    assert np.array_equal(some, many[[7, 1999]])
    sparse = smooth_masks(GRID, SIZE, KEY, jnp.float32(0.1), jnp.arange(500))
    assert abs(float(sparse.mean()) - 0.1) < 0.02


@pytest.mark.slow
def test_batches_chunks_jit_and_vmap():
    run = dict(key=KEY, num_masks=50, grid=GRID)
    both = jaxai.rise(model, IMAGES, **run)
    np.testing.assert_allclose(jaxai.rise(model, IMAGES[1:], **run)[0], both[1], atol=1e-5)
    np.testing.assert_allclose(jaxai.rise(model, IMAGES, batch_size=7, **run), both, atol=1e-5)
    jitted = jax.jit(lambda x: jaxai.rise(model, x, **run))(IMAGES)
    np.testing.assert_allclose(jitted, both, atol=1e-5)
    mapped = jax.vmap(lambda x: jaxai.rise(model, x[None], **run)[0])(IMAGES)
    np.testing.assert_allclose(mapped, both, atol=1e-5)


@pytest.mark.slow
def test_finds_what_the_model_looks_at():
    found = jaxai.rise(model, jnp.ones((1, *SIZE, 3)), 0, key=KEY, num_masks=1000, grid=GRID)[0]
    inside = found[2:6, 3:9].mean()
    assert inside > found[:, 15:].max()


@pytest.mark.slow
def test_constant_score_and_bfloat16():
    flat = jaxai.rise(
        lambda x: 0 * x.mean((1, 2)), IMAGES, 0, key=KEY, num_masks=60, grid=GRID, divisor="masks"
    )
    np.testing.assert_allclose(flat, 1 / 3, rtol=1e-5)
    low = jaxai.rise(model, IMAGES.astype(jnp.bfloat16), 0, key=KEY, num_masks=60, grid=GRID)
    assert low.dtype == jnp.float32
    exact = jaxai.rise(model, IMAGES, 0, key=KEY, num_masks=60, grid=GRID)
    np.testing.assert_allclose(low, exact, rtol=0.02)


@pytest.mark.slow
def test_memory_does_not_grow_with_masks():
    def peak(count):
        run = jax.jit(lambda x: jaxai.rise(model, x, 0, key=KEY, num_masks=count, grid=GRID, batch_size=10))
        return run.lower(IMAGES[:1]).compile().memory_analysis().temp_size_in_bytes

    assert peak(10000) - peak(100) < 10000 * 4 * 8 < 10000 * IMAGES[:1].nbytes / 50


def test_errors():
    with pytest.raises(TypeError, match="typed key"):
        jaxai.rise(model, IMAGES, key=0)
    with pytest.raises(ValueError, match="`probability` must lie"):
        jaxai.rise(model, IMAGES, key=KEY, probability=1.0)
    with pytest.raises(ValueError, match="`divisor` must be one of"):
        jaxai.rise(model, IMAGES, key=KEY, divisor="none")
    with pytest.raises(ValueError, match="`num_masks` must be a positive"):
        jaxai.rise(model, IMAGES, key=KEY, num_masks=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        jaxai.rise(lambda x: model(x) * jnp.log(-jnp.mean(x) - 1), IMAGES, 0, key=KEY, num_masks=5)
