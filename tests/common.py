"""What several test files use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax


def close(actual, expected, tolerance=2e-5):
    """Check that arrays agree to a fraction of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = max(np.abs(expected).max(), 1e-6)
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance)


def one_channel(values, channel):
    """Return three channels that are zero but for one."""
    out = np.zeros((*values.shape[:3], 3))
    out[..., channel] = values[..., channel] if values.ndim == 4 else values
    return out


def conv(x, kernel, *, strides=(1, 1), padding="SAME", groups=1):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def parts(net, images, targets):
    """Return the activations at conv2 and, from jax.grad, each image's target's gradients there, as NumPy."""
    acts = net(images, stop="conv2")

    def score(acts):
        return net(acts, start="conv2")[jnp.arange(len(images)), targets].sum()

    return np.asarray(acts, np.float64), np.asarray(jax.grad(score)(acts), np.float64)


def raw(method, net, images, targets, **options):
    return method(net, images, targets, layer="conv2", relu=False, upsample=False, **options)


def slow_but(quick, values):
    """Mark parameters as slow, all but one."""
    return [value if value == quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
