"""Resizing, scaling and reducing maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai


def test_upsampling_is_bilinear_between_half_pixel_centres():
    found = jaxai.maps.upsample(jnp.array([[0.0, 4.0]]), (2, 4))
    np.testing.assert_allclose(found, [[0, 1, 3, 4], [0, 1, 3, 4]], atol=1e-6)
    ramp = jnp.arange(6.0).reshape(1, 2, 3, 1, 1) * jnp.ones((3, 5))
    assert jaxai.maps.upsample(ramp, (7, 9)).shape == (1, 2, 3, 7, 9)


def test_upsampling_equals_opencv_on_a_map_that_is_not_square():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 5)).astype(np.float32)
    found = np.asarray(jaxai.maps.upsample(jnp.asarray(values), (8, 7)))
    rows = np.clip((np.arange(8) + 0.5) * 3 / 8 - 0.5, 0, 2)
    columns = np.clip((np.arange(7) + 0.5) * 5 / 7 - 0.5, 0, 4)

    def line(values, at):
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, len(values) - 1)
        share = (at - low)[:, None]
        return values[low] * (1 - share) + values[high] * share

    np.testing.assert_allclose(found, line(line(values, rows).T, columns).T, atol=1e-5)


@pytest.mark.parametrize(
    "method, expected",
    [
        ("minmax", [[0, 0.25], [0.5, 1]]),
        ("max_abs", [[-1 / 3, 0], [1 / 3, 1]]),
        ("positive", [[0, 0], [1 / 3, 1]]),
    ],
)
def test_normalize(method, expected):
    maps = jnp.array([[-1.0, 0.0], [1.0, 3.0]])
    pair = jnp.stack([maps, 2 * maps])
    np.testing.assert_allclose(jaxai.maps.normalize(pair, method=method), [expected, expected], atol=1e-6)


@pytest.mark.parametrize("method", ["minmax", "max_abs", "positive"])
def test_normalize_survives_flat_and_broken_maps(method):
    flat = jnp.full((2, 3), 0.7 if method == "minmax" else 0.0)
    assert not np.asarray(jaxai.maps.normalize(flat, method=method)).any()
    broken = jnp.array([[jnp.nan, 1.0], [2.0, 3.0]])
    found = jaxai.maps.normalize(broken, method=method)
    assert np.isfinite(found).all() and found[1, 1] == 1
    gradient = jax.grad(lambda x: jaxai.maps.normalize(x, method=method).sum())(flat)
    assert np.isfinite(gradient).all()


def test_percentile_clips_outliers():
    maps = jnp.array([[0.0, 1.0, 2.0, 3.0, 1000.0]])
    found = jaxai.maps.normalize(maps, percentile=75)
    np.testing.assert_allclose(found, [[0, 1 / 3, 2 / 3, 1, 1]], atol=1e-6)


def test_magnitude():
    pixel = jnp.array([[[3.0, -4.0, 0.0]]])
    expected = {"max": 4.0, "l2": 5.0, "sum": -1.0, "sum_abs": 7.0}
    for method, value in expected.items():
        assert float(jaxai.maps.magnitude(pixel, method=method)[0, 0]) == value
    assert jaxai.maps.magnitude(jnp.ones((2, 5, 4, 6, 3))).shape == (2, 5, 4, 6)


def test_unknown_methods_are_named():
    with pytest.raises(ValueError, match="`method` must be one of minmax, max_abs, positive; got 'log'"):
        jaxai.maps.normalize(jnp.ones((2, 2)), method="log")
    with pytest.raises(ValueError, match="`method` must be one of max, l2, sum, sum_abs"):
        jaxai.maps.magnitude(jnp.ones((2, 2, 3)), method="mean")
