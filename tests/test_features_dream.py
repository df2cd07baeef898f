"""Gradient ascent and DeepDream against plain loops, and what their arguments promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxai
from jaxai.features import _dream, _tiles

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)


KERNEL = 0.5 * jax.random.normal(jax.random.key(1), (3, 3, 3, 4))


def edges(kernel, x):
    return jax.nn.relu(
        jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    )


NET = jaxai.chain({"edges": Partial(edges, KERNEL), "logits": lambda x: x.mean((1, 2))})
PHOTOS = jax.random.uniform(jax.random.key(2), (3, 14, 18, 3))
QUICK = {"layer": "edges", "key": KEY, "octaves": 1, "steps": 2, "jitter": 3}


def score(weights, x):
    return -((x - weights) ** 2).sum((1, 2, 3)) + x[:, 0, 0, 0] ** 3


def test_ascent_is_the_plain_rule():
    weights = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    x = expected = np.random.default_rng(1).normal(size=(2, 4, 5, 3)).astype(np.float32)
    for _ in range(6):
        gradient = -2 * (expected - weights)
        gradient[:, 0, 0, 0] += 3 * expected[:, 0, 0, 0] ** 2
        expected = expected + 0.05 * gradient
    found = jaxai.gradient_ascent(Partial(score, jnp.asarray(weights)), x, step_size=0.05, steps=6)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ascent_in_batches_alone_compiled_and_mapped():
    objective = Partial(score, jnp.zeros((2, 3, 3)))
    x = jax.random.normal(KEY, (3, 2, 3, 3))

    def climb(x, **options):
        return jaxai.gradient_ascent(objective, x, step_size=0.1, steps=3, **options)

    together = climb(x)
    np.testing.assert_allclose(climb(x, batch_size=2), together, atol=1e-6)
    np.testing.assert_allclose(climb(x[1:2])[0], together[1], atol=1e-6)
    np.testing.assert_allclose(jax.jit(climb)(x), together, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(climb)(x[:, None])[:, 0], together, atol=1e-6)


def test_another_step_size_or_model_compiles_nothing():
    def objective(bias, x):
        return (x * bias).sum((1, 2, 3))

    x = jnp.ones((1, 2, 2, 1))
    from jaxai.features._ascent import _gradient_ascent

    jaxai.gradient_ascent(Partial(objective, jnp.float32(1)), x, step_size=0.1, steps=2)
    size = _gradient_ascent._cache_size()
    found = jaxai.gradient_ascent(Partial(objective, jnp.float32(2)), x, step_size=0.5, steps=2)
    np.testing.assert_allclose(found, 3.0)
    assert _gradient_ascent._cache_size() == size


@pytest.mark.parametrize(
    ("objective", "x", "options", "error"),
    [
        (3, jnp.ones((1, 2)), {}, TypeError),
        (lambda x: x.sum(1), jnp.ones((1, 2), int), {}, TypeError),
        (lambda x: x.sum(), jnp.ones((1, 2)), {}, ValueError),
        (lambda x: x.sum(1), jnp.ones((0, 2)), {}, ValueError),
        (lambda x: x.sum(1), jnp.ones((1, 2)), {"steps": 0}, ValueError),
        (lambda x: x.sum(1), jnp.ones((1, 2)), {"step_size": jnp.ones(2)}, ValueError),
    ],
)
def test_bad_arguments_of_ascent(objective, x, options, error):
    with pytest.raises(error):
        jaxai.gradient_ascent(objective, x, **{"step_size": 0.1, "steps": 1, **options})


def half(x, size):
    """Linear resizing by the weights that jax.image uses, in NumPy: triangles as wide as the ratio."""
    for axis, out in ((0, size[0]), (1, size[1])):
        length = x.shape[axis]
        ratio = length / out
        centers = (np.arange(out) + 0.5) * ratio - 0.5
        width = max(ratio, 1.0)
        weights = np.maximum(0, 1 - np.abs(centers[:, None] - np.arange(length)) / width)
        weights /= weights.sum(1, keepdims=True)
        x = np.moveaxis(np.tensordot(weights, x, (1, axis)), 0, axis)
    return x


@pytest.mark.slow
def test_dream_is_the_loop_of_its_paper():
    """Octaves from the smallest, detail carried on, normalised steps of 1.5 / 255, clipping; no jitter."""
    photo = np.asarray(PHOTOS[0], np.float64)
    gradient_of = jax.grad(lambda x: 0.5 * (edges(KERNEL, 2 * x - 1) ** 2).sum())
    sizes = [(10, 13), (14, 18)]
    detail = np.zeros((*sizes[0], 3))
    for size in sizes:
        base = half(photo, size) if size != photo.shape[:2] else photo
        x = np.clip(base + half(detail, size), 0, 1) if detail.shape[:2] != size else base + detail
        for _ in range(4):
            g = np.asarray(gradient_of(jnp.asarray(x[None], jnp.float32)))[0]
            x = np.clip(x + 1.5 / 255 / np.abs(g).mean() * g, 0, 1)
        detail = x - base
    found = jaxai.deep_dream(
        NET, PHOTOS[:1], **{**QUICK, "octaves": 2, "steps": 4, "jitter": 0}, normalize=lambda x: 2 * x - 1
    )
    np.testing.assert_allclose(found[0], x, atol=2e-5)


@pytest.mark.slow
def test_jitter_shifts_back():
    """For a network without borders a shift there and back changes nothing."""
    net = jaxai.chain({"edges": lambda x: x**2})
    still = jaxai.deep_dream(net, PHOTOS, **{**QUICK, "jitter": 0})
    np.testing.assert_allclose(jaxai.deep_dream(net, PHOTOS, **QUICK), still, atol=1e-6)


def test_roll_each():
    shifts = jnp.array([[1, -2], [0, 5], [-3, 0]])
    rolled = _dream.roll_each(PHOTOS, shifts)
    for i in range(3):
        np.testing.assert_array_equal(rolled[i], np.roll(PHOTOS[i], np.asarray(shifts[i]), (0, 1)))
    np.testing.assert_array_equal(_dream.roll_each(rolled, -shifts), PHOTOS)


@pytest.mark.slow
def test_dreams_in_batches_alone_and_compiled():
    together = jaxai.deep_dream(NET, PHOTOS, **QUICK)
    np.testing.assert_allclose(jaxai.deep_dream(NET, PHOTOS, **QUICK, batch_size=2), together, atol=1e-5)
    alone = jaxai.deep_dream(NET, PHOTOS[2:], **QUICK, indices=[2])
    np.testing.assert_allclose(alone[0], together[2], atol=1e-5)
    compiled = jax.jit(lambda m, x: jaxai.deep_dream(m, x, **QUICK))(NET, PHOTOS)
    np.testing.assert_allclose(compiled, together, atol=1e-5)
    other = jaxai.deep_dream(NET, PHOTOS[2:], **QUICK)
    assert np.abs(other[0] - together[2]).max() > 1e-3
    assert together.min() >= 0
    assert together.max() <= 1


def test_a_flat_image_without_gradient_stays():
    net = jaxai.chain({"edges": lambda x: jax.nn.relu(x - 2)})
    grey = jnp.full((1, 8, 8, 3), 0.5)
    np.testing.assert_array_equal(jaxai.deep_dream(net, grey, **QUICK), grey)


def test_the_network_stops_at_the_layer():
    def never(x):
        raise AssertionError("ran beyond the layer")

    net = jaxai.chain({"edges": lambda x: x**2, "logits": never})
    assert jaxai.deep_dream(net, PHOTOS, **QUICK).shape == PHOTOS.shape


def test_a_guide_draws_towards_its_features():
    net = jaxai.chain({"edges": lambda x: x - 0.5})
    red = jnp.zeros((1, 4, 4, 3)).at[..., 0].set(1.0)
    grey = jnp.full((1, 8, 8, 3), 0.5)
    found = jaxai.deep_dream(net, grey, **QUICK, guide=red)
    change = np.asarray(found - grey).mean((0, 1, 2))
    assert change[0] > 0
    assert change[1] < 0
    assert change[2] < 0


def test_tiles_cover_and_give_the_local_gradient():
    assert _tiles.starts(10, 10) == (10, [0])
    assert _tiles.starts(10, 4) == (4, [0, 3, 6])
    images = jax.random.normal(KEY, (2, 11, 9, 3))
    local = _tiles.gradient(lambda x: (x**3).sum((1, 2, 3)), images, 4)
    np.testing.assert_allclose(local, 3 * images**2, rtol=1e-5)


def test_tiled_dreams_follow_whole_ones():
    net = jaxai.chain({"edges": lambda x: (x - 0.2) ** 2})
    whole = jaxai.deep_dream(net, PHOTOS[:1], **QUICK)
    np.testing.assert_allclose(jaxai.deep_dream(net, PHOTOS[:1], **QUICK, tile=6), whole, atol=1e-5)


def test_large_octaves_are_tiled():
    assert _dream._tile((1024, 1024), None) is None
    assert _dream._tile((2000, 3000), None) == 512
    assert _dream._tile((100, 100), 128) is None
    assert _dream._tile((100, 200), 128) == 128


def test_memory_of_a_tiled_gradient_does_not_grow_with_the_photo():
    def temporary(side, tile):
        objective = Partial(lambda k, x: (edges(k, edges(k, x)[..., :3]) ** 2).sum((1, 2, 3)), KERNEL)
        x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        if tile:
            fn = jax.jit(lambda x: _tiles.gradient(objective, x, tile))
        else:
            fn = jax.jit(lambda x: jax.grad(lambda x: objective(x).sum())(x))
        return fn.lower(x).compile().memory_analysis().temp_size_in_bytes

    image = 128 * 128 * 3 * 4
    assert temporary(128, 32) < temporary(128, None) / 2
    # What grows with the photo is the photo and its gradient.
    assert temporary(128, 32) - temporary(64, 32) < 3 * image


@pytest.mark.parametrize("shape", [(64, 96), (128, 96), (192, 144)])
def test_memory_of_a_tiled_dream_is_the_tiles_and_a_few_copies_of_the_photo(shape):
    def scratch(size, tile):
        program = _dream.octave_steps.lower(
            jaxai.chain({"edges": Partial(edges, jnp.tile(KERNEL, (1, 1, 1, 16)))}),
            Partial(_dream.identity),
            jax.ShapeDtypeStruct((1, *size, 3), jnp.float32),
            jax.random.split(KEY, 1),
            features=None,
            step_size=jnp.float32(0.01),
            layer="edges",
            steps=2,
            jitter=8,
            tile=tile,
            batch_size=None,
        )
        return program.compile().memory_analysis().temp_size_in_bytes

    def photo(size):
        return 4 * 3 * size[0] * size[1]

    # What one tile needs is what a photo of its size needs; the layer alone has 21 times a photo's numbers.
    tile = scratch((32, 32), None)
    assert scratch(shape, 32) < 2 * tile + 6 * photo(shape)


def test_computation_takes_the_models_type():
    kinds = []

    def watch(kernel, x):
        kinds.append(x.dtype)
        return edges(kernel, x)

    net = jaxai.chain({"edges": Partial(watch, KERNEL.astype(jnp.bfloat16))})
    found = jaxai.deep_dream(net, PHOTOS[:1], **QUICK)
    assert found.dtype == jnp.float32
    assert set(kinds) == {jnp.dtype(jnp.bfloat16)}


def test_noise_is_grey_and_reproducible():
    made = jaxai.features.noise(KEY, (3, 8, 9, 3), amplitude=0.2)
    assert made.shape == (3, 8, 9, 3)
    assert 0.3 <= made.min() < 0.35
    assert 0.65 < made.max() <= 0.7
    np.testing.assert_array_equal(jaxai.features.noise(KEY, (1, 8, 9, 3), amplitude=0.2)[0], made[0])
    with pytest.raises(ValueError, match="amplitude"):
        jaxai.features.noise(KEY, (1, 8, 8, 3), amplitude=0.7)


def test_a_zoom_enlarges_around_the_centre():
    """Without a gradient, frames are enlargements of the first."""
    net = jaxai.chain({"edges": lambda x: jax.nn.relu(x - 2)})
    rows = jnp.arange(33.0) / 66 + 0.2
    ramp = jnp.broadcast_to(rows[:, None, None], (33, 33, 3))
    film = jaxai.dream_zoom(net, ramp, layer="edges", key=KEY, frames=3, zoom=1.25, steps=1, octaves=1)
    assert film.shape == (3, 33, 33, 3)
    np.testing.assert_allclose(film[0], ramp, atol=1e-6)
    middle = ramp[16, 16, 0]
    for i in range(3):
        np.testing.assert_allclose(film[i, :, 16, 0], middle + (rows - middle) / 1.25**i, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layer": "mystery"}, ValueError, "the layers are edges, logits"),
        ({"layer": None}, TypeError, "layer"),
        ({"key": 0}, TypeError, "typed key"),
        ({"octaves": 0}, ValueError, "octaves"),
        ({"octave_scale": 1.0}, ValueError, "octave_scale"),
        ({"steps": 0}, ValueError, "steps"),
        ({"jitter": -1}, ValueError, "jitter"),
        ({"tile": 0}, ValueError, "tile"),
        ({"indices": [1, 2]}, ValueError, "indices"),
        ({"guide": jnp.zeros((3, 3))}, ValueError, "guide"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_bad_arguments_of_a_dream(change, error, message):
    with pytest.raises(error, match=message):
        jaxai.deep_dream(NET, PHOTOS, **{**QUICK, **change})


def test_bad_arguments_of_a_zoom():
    options = {"layer": "edges", "key": KEY, "frames": 2}
    with pytest.raises(ValueError, match="zoom"):
        jaxai.dream_zoom(NET, PHOTOS[0], **options, zoom=0.1)
    with pytest.raises(ValueError, match="height, width, channels"):
        jaxai.dream_zoom(NET, PHOTOS, **options)
