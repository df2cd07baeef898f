"""The warp: its geometry on known images, its gradient, its draws."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxai.features import transforms
from jaxai.features.transforms import LUCID, Draw, Transforms

pytestmark = pytest.mark.usefixtures("quick_compilation")

apply = jax.jit(transforms.apply, static_argnums=0)
KEY = jax.random.key(0)


WIDE = Transforms(jitter=(0.2, 0.2), scales=(0.8, 1.25), angles=(-20.0, 20.0))
UNEVEN = Transforms(jitter=(0.02, 0.05), scales=(0.95, 1.2), angles=(-5.0, 15.0))


def drawn(matrix=((1.0, 0.0), (0.0, 1.0)), offset=(0.0, 0.0), blur=0.0, color=(0.0, 1.0, 1.0)):
    one = Draw(jnp.array(matrix), jnp.array(offset), jnp.array(blur), jnp.array(color), KEY)
    return jax.tree.map(lambda a: a[None], one)


@partial(jax.jit, static_argnums=(0, 2))
def draws_of(config, keys, size, progress=None):
    return jax.vmap(lambda k: transforms.draw(config, k, size, progress))(keys)


def turn(degrees, scale=1.0):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]], np.float32) / scale


def bilinear(image, positions, fill=0.5):
    """Sample one image at (row, column) positions, one by one; `fill` outside."""
    height, width = image.shape[:2]
    out = np.zeros((*positions.shape[:2], image.shape[2]))
    for i, j in np.ndindex(positions.shape[:2]):
        y, x = positions[i, j]
        for a in (int(np.floor(y)), int(np.floor(y)) + 1):
            for b in (int(np.floor(x)), int(np.floor(x)) + 1):
                inside = 0 <= a < height and 0 <= b < width
                pixel = image[a, b] if inside else fill
                out[i, j] += (1 - abs(y - a)) * (1 - abs(x - b)) * pixel
    return out


def expected_positions(size, out, matrix, offset):
    centers = np.array([(n - 1) / 2 for n in size]), np.array([(n - 1) / 2 for n in out])
    grid = np.stack(np.meshgrid(np.arange(out[0]), np.arange(out[1]), indexing="ij"), -1) - centers[1]
    return grid @ np.asarray(matrix).T + offset + centers[0]


def smooth_image(height, width):
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack(
        [0.5 + 0.4 * np.sin(y / 7), 0.5 + 0.4 * np.cos(x / 9), 0.5 + 0.3 * np.sin((x + y) / 8)], -1
    ).astype(np.float32)


def test_whole_shifts_are_exact_and_fill_with_grey():
    image = np.random.default_rng(0).uniform(size=(10, 13, 3)).astype(np.float32)
    made = np.asarray(apply(WIDE, drawn(offset=(2.0, -1.0)), image[None]))[0]
    expected = np.full_like(image, 0.5)
    expected[:8, 1:] = image[2:, :-1]
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_fractional_shifts_and_scales_are_bilinear():
    image = np.random.default_rng(0).uniform(size=(10, 13, 3)).astype(np.float32)
    matrix, offset = np.diag([0.85, 1.2]).astype(np.float32), np.array([0.3, -0.7])
    made = np.asarray(apply(WIDE, drawn(matrix, offset), image[None]))[0]
    positions = expected_positions((10, 13), (10, 13), matrix, offset)
    np.testing.assert_allclose(made, bilinear(image, positions), atol=1e-5)


@pytest.mark.parametrize("size", [(60, 60), (48, 72)])
@pytest.mark.parametrize("degrees", [-20.0, 7.0, 20.0])
def test_rotation_of_a_smooth_image(size, degrees):
    image = smooth_image(*size)
    matrix, offset = turn(degrees, 1.1), np.array([1.5, -2.25])
    made = np.asarray(apply(WIDE, drawn(matrix, offset), image[None]))[0]
    positions = expected_positions(size, size, matrix, offset)
    exact = bilinear(image, positions)
    rows = (positions[..., 0] > 1) & (positions[..., 0] < size[0] - 2)
    inside = rows & (positions[..., 1] > 1) & (positions[..., 1] < size[1] - 2)
    # Two passes of linear interpolation against one: they differ by curvature.
    assert np.abs(made - exact)[inside].max() < 0.01
    assert inside.mean() > 0.6
    # Each pass reaches a pixel beyond, so the edge is a little wider than one interpolation's.
    outside = (positions < -3).any(-1) | (positions > np.array(size) + 2).any(-1)
    np.testing.assert_allclose(made[outside], 0.5, atol=1e-5)


def test_rotation_turns_a_corner_the_right_way():
    image = np.zeros((41, 41, 1), np.float32)
    image[5, 20] = 1
    made = np.asarray(apply(dataclasses.replace(WIDE, fill=0.0), drawn(turn(20.0)), image[None]))[0, ..., 0]
    row, column = np.unravel_index(made.argmax(), made.shape)
    # output p samples the input at R p, so the mark is at R^-1 (-15, 0).
    place = np.linalg.inv(turn(20.0)) @ np.array([-15.0, 0.0]) + 20
    assert abs(row - place[0]) <= 1
    assert abs(column - place[1]) <= 1


def test_flip_mirrors_columns():
    image = np.random.default_rng(0).uniform(size=(6, 7, 3)).astype(np.float32)
    config = Transforms(flip=True)
    made = np.asarray(apply(config, drawn(((1.0, 0.0), (0.0, -1.0))), image[None]))[0]
    np.testing.assert_allclose(made, image[:, ::-1], atol=1e-6)


def test_crop_resizes_all_of_the_image():
    image = smooth_image(64, 64)
    config = Transforms(crop=(1.0, 1.0), output=32)
    one = draws_of(config, KEY[None], (64, 64))
    made = np.asarray(apply(config, one, image[None]))[0]
    assert made.shape == (32, 32, 3)
    np.testing.assert_allclose(made, image.reshape(32, 2, 32, 2, 3).mean((1, 3)), atol=0.01)


def test_output_cuts_out_the_centre():
    image = np.random.default_rng(0).uniform(size=(10, 12, 3)).astype(np.float32)
    config = Transforms(output=8)
    made = np.asarray(apply(config, drawn(), image[None]))[0]
    np.testing.assert_allclose(made, image[1:9, 2:10], atol=1e-6)


def test_blur_keeps_a_constant_and_spreads_a_point():
    config = Transforms(blur=2.0)
    flat = np.full((1, 9, 9, 3), 0.3, np.float32)
    np.testing.assert_allclose(apply(config, drawn(blur=1.5), flat), flat, atol=1e-6)
    point = np.full((1, 21, 21, 1), 0.5, np.float32)
    point[0, 10, 10] = 1.5
    made = np.asarray(apply(config, drawn(blur=1.5), point))[0, ..., 0] - 0.5
    y = np.arange(21) - 10
    line = np.exp(-0.5 * (y / 1.5) ** 2)
    np.testing.assert_allclose(made, np.outer(line, line) / line.sum() ** 2, atol=1e-5)


def test_colors():
    image = np.random.default_rng(0).uniform(size=(1, 4, 4, 3)).astype(np.float32)
    config = Transforms(brightness=1, contrast=1, saturation=1)
    made = np.asarray(apply(config, drawn(color=(0.1, 0.5, 0.0)), image))
    grey = image.mean(-1, keepdims=True).repeat(3, -1)
    np.testing.assert_allclose(made, 0.1 + grey.mean() + 0.5 * (grey - grey.mean()), atol=1e-6)


def test_noise_has_macos_distribution():
    config = Transforms(noise=0.08)
    made = np.asarray(apply(config, drawn(), jnp.zeros((1, 200, 200, 3))))
    assert abs(made.std() - 0.08 * np.sqrt(1 + 1 / 3)) < 1e-3
    assert abs(made.mean()) < 1e-3


def test_gradient_is_the_exact_adjoint():
    config = WIDE
    keys = jax.random.split(KEY, 3)
    draws = draws_of(config, keys, (20, 26))
    x, y = (jax.random.normal(jax.random.key(i), (3, 20, 26, 3)) for i in (1, 2))
    zero = apply(config, draws, jnp.zeros_like(x))
    value, pullback = jax.vjp(lambda x: apply(config, draws, x), x)
    np.testing.assert_allclose(((value - zero) * y).sum(), (pullback(y)[0] * x).sum(), rtol=1e-4)


@pytest.mark.parametrize(
    "config, size",
    [
        (LUCID, (224, 160)),
        pytest.param(LUCID, (230, 301), marks=pytest.mark.slow),
        pytest.param(UNEVEN, (301, 320), marks=pytest.mark.slow),
    ],
)
def test_blocks_of_a_line_see_all_that_can_move_into_them(config, size):
    """The extremes of the ranges, against whole lines (flips turn lines round, so they are never cut)."""
    whole = dataclasses.replace(config, flip=True)
    assert all(np.isfinite(transforms._wanders(config, size, size)))
    before, after = ((width + 1) // 2 for width in transforms._jitter(config, size))
    corners = itertools.product(
        (min(config.scales), max(config.scales)),
        (min(config.angles), max(config.angles)),
        ((-before, before), (before, before)),
        ((after, after), (-after, after)),
    )
    matrices, offsets = [], []
    for scale, angle, first, second in corners:
        matrices.append(turn(angle, scale))
        offsets.append(matrices[-1] @ np.array(second, np.float32) + np.array(first))
    count = len(matrices)
    assert count == 16
    draws = jax.tree.map(lambda d: jnp.repeat(d, count, axis=0), drawn())
    draws = draws._replace(matrix=jnp.asarray(matrices), offset=jnp.asarray(offsets, jnp.float32))
    x, y = (jax.random.uniform(jax.random.key(i), (count, *size, 1)) for i in (1, 2))
    results = [jax.vjp(lambda x, c=c: apply(c, draws, x), x) for c in (config, whole)]
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-5)
    np.testing.assert_allclose(results[0][1](y)[0], results[1][1](y)[0], atol=1e-5)
    near, _ = transforms._wanders(config, size, size)
    assert len(transforms._blocks(size[1], size[1] + 40, 20, near)) > 1


def test_each_image_has_its_own_draw():
    config = WIDE
    keys = jax.random.split(KEY, 4)
    draws = draws_of(config, keys, (20, 26))
    images = jax.random.uniform(jax.random.key(1), (4, 20, 26, 3))
    together = np.asarray(apply(config, draws, images))
    for i in range(4):
        alone = apply(config, jax.tree.map(lambda d, i=i: d[i : i + 1], draws), images[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], atol=1e-6)
    same = np.asarray(apply(config, draws, jnp.broadcast_to(images[:1], images.shape)))
    assert np.abs(same[0] - same[1]).max() > 0.1


def test_lucids_ranges():
    assert LUCID.jitter == (8 / 224, 4 / 224)
    np.testing.assert_allclose(LUCID.scales, [0.9, 0.92, 0.94, 0.96, 0.98, 1, 1.02, 1.04, 1.06, 1.08, 1.1])
    assert sorted(LUCID.angles) == sorted([float(a) for a in range(-10, 11)] + [0.0] * 5)
    draws = draws_of(LUCID, jax.random.split(KEY, 2000), (224, 224))
    scales = 1 / np.sqrt(np.linalg.det(np.asarray(draws.matrix)))
    assert {round(100 * float(s)) for s in scales} == set(range(90, 111, 2))
    angles = np.rad2deg(np.arctan2(draws.matrix[:, 1, 0], draws.matrix[:, 0, 0])).round()
    assert angles.min() == -10
    assert angles.max() == 10
    assert abs((angles == 0).mean() - 6 / 26) < 0.04
    # Jitter of 8 is nine whole offsets around zero, then of 4 five; scaled and turned in between.
    assert np.abs(draws.offset).max() <= 4 + 2 * 1.2 / 0.9
    assert abs(np.asarray(draws.offset).mean()) < 0.2


def test_jitter_is_whole_pixels_for_small_images_too():
    config = Transforms(jitter=(8 / 224, 0.0))
    offsets = np.asarray(draws_of(config, jax.random.split(KEY, 200), (32, 32)).offset)
    assert set(np.unique(offsets)) == {0.0, 1.0}


def test_flips_blurs_and_colors_are_drawn_in_their_ranges():
    config = Transforms(flip=True, blur=2.0, brightness=0.1, contrast=0.2, saturation=0.3)
    draws = draws_of(config, jax.random.split(KEY, 2000), (16, 16))
    assert abs((np.asarray(draws.matrix[:, 1, 1]) < 0).mean() - 0.5) < 0.04
    np.testing.assert_array_equal(np.abs(draws.matrix), np.broadcast_to(np.eye(2), draws.matrix.shape))
    for values, low, high in (
        (draws.blur, 0.0, 2.0),
        (draws.color[:, 0], -0.1, 0.1),
        (draws.color[:, 1], 0.8, 1.2),
        (draws.color[:, 2], 0.7, 1.3),
    ):
        values = (np.asarray(values) - low) / (high - low)
        assert 0 <= values.min() < 0.01
        assert 0.99 < values.max() <= 1 + 1e-6
        assert abs(values.mean() - 0.5) < 0.03


def test_crops_shrink_along_the_run():
    config = Transforms(crop=(0.05, 0.5), output=16)
    sides = [
        np.asarray(draws_of(config, jax.random.split(KEY, 500), (64, 64), p).matrix[:, 0, 0])
        for p in (0.0, 1.0)
    ]
    assert abs(sides[0].mean() * 16 / 64 - 0.5) < 0.02
    assert 0.05 <= sides[1].min() * 16 / 64 + 1e-6
    assert sides[1].mean() * 16 / 64 < 0.1


@pytest.mark.slow
def test_compiled_and_mapped_are_the_same():
    config = Transforms(angles=(-20.0, 20.0))
    images = jax.random.uniform(KEY, (2, 8, 8, 3))
    draws = draws_of(config, jax.random.split(KEY, 2), (8, 8))
    plain = transforms.apply(config, draws, images)
    np.testing.assert_allclose(apply(config, draws, images), plain, atol=1e-6)
    one = jax.vmap(lambda d, x: apply(config, jax.tree.map(lambda a: a[None], d), x[None])[0])
    np.testing.assert_allclose(one(draws, images), plain, atol=1e-6)


def test_nothing_to_do_is_nothing_done():
    images = jax.random.uniform(KEY, (1, 5, 5, 3))
    assert transforms.apply(transforms.NONE, drawn(), images) is images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jitter": (-0.1, 0.0)}, "at least 0"),
        ({"scales": ()}, "positive"),
        ({"scales": (0.0,)}, "positive"),
        ({"angles": (90.0,)}, "between -90 and 90"),
        ({"crop": (0.5, 0.1)}, "smallest, largest"),
        ({"noise": -1.0}, "at least 0"),
        ({"output": 0}, "positive integer"),
    ],
)
def test_bad_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        Transforms(**options)
