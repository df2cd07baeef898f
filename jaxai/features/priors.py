"""Objectives that depend only on the image: priors for smoothness, small values and plain borders.

Each returns the named quantity; subtract it to keep it small:
`channel("conv5_1", 3) - 1e-3 * total_variation()`. They see the image in [0, 1] before the transforms, or any
layer.
"""

import jax
import jax.numpy as jnp
from jax import lax

from .objectives import IMAGES, OPACITY, Objective, Term


def _sum(x):
    return x.reshape(x.shape[0], -1).sum(1)


def _total_variation(acts):
    rows, columns = jnp.abs(jnp.diff(acts, axis=1)), jnp.abs(jnp.diff(acts, axis=2))
    return _sum(rows) + _sum(columns)


def total_variation(layer: str = IMAGES) -> Objective:
    """Return the sum of absolute differences of neighbouring pixels."""
    return Term({}, layer, _total_variation)


def _l1(acts, constant):
    return _sum(jnp.abs(acts - constant))


def l1(layer: str = IMAGES, *, constant: float = 0.0) -> Objective:
    """Return the sum of absolute distances from a constant."""
    return Term({"constant": jnp.asarray(constant, jnp.float32)}, layer, _l1)


def _l2(acts, constant, epsilon):
    return jnp.sqrt(epsilon + _sum(jnp.square(acts - constant)))


def l2(layer: str = IMAGES, *, constant: float = 0.0, epsilon: float = 1e-6) -> Objective:
    """Return sqrt(epsilon + the sum of squared distances from a constant)."""
    data = {"constant": jnp.asarray(constant, jnp.float32), "epsilon": jnp.asarray(epsilon, jnp.float32)}
    return Term(data, layer, _l2)


def _box(window):
    kernel = jnp.full((window, window), 0.5, jnp.float32)
    return kernel.at[1:-1, 1:-1].set(1.0)


def smooth(images: jax.Array, window: int) -> jax.Array:
    """Blur by a window of ones whose outermost ring is one half, normalised inside the image (Lucid's)."""
    kernel = _box(window)
    rows, columns = images.shape[1:3]
    padding = window // 2

    def sums(x):
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        shifts = [(i, j) for i in range(window) for j in range(window)]
        return sum(
            (kernel[i, j] * x[:, i : i + rows, j : j + columns] for i, j in shifts),
            jnp.zeros((), jnp.float32),
        )

    return sums(images) / sums(jnp.ones((1, rows, columns, 1), images.dtype))


def _blur(acts, window):
    return 0.5 * _sum(jnp.square(acts - lax.stop_gradient(smooth(acts, window))))


def blur(layer: str = IMAGES) -> Objective:
    """Return half the squared distance from the blurred image, which is held fixed in the gradient.

    Subtracted, a step of gradient descent on it moves the image towards its blur (window 3).
    """
    return Term({}, layer, _blur, (("window", 3),))


def _boundary(acts, width, constant):
    rows, columns = acts.shape[1:3]
    inside = (
        jnp.zeros((rows, columns), jnp.float32).at[width : rows - width, width : columns - width].set(1.0)
    )
    gap = jnp.square(smooth(acts, 5) - acts) + 0.8 * jnp.square(acts - constant)
    return _sum(gap * (1 - inside)[None, :, :, None])


def boundary_complexity(layer: str = IMAGES, *, width: int = 20, constant: float = 0.5) -> Objective:
    """Return the amount of detail, and distance from a constant, within `width` pixels of the border.

    Lucid's `penalize_boundary_complexity` is its negative.
    """
    options = (("width", int(width)), ("constant", float(constant)))
    return Term({}, layer, _boundary, options)


def _opacity(acts):
    return _sum(acts) / (acts.shape[1] * acts.shape[2])


def opacity() -> Objective:
    """Return the mean opacity of an image with an alpha channel (`visualize(..., alpha=True)`)."""
    return Term({}, OPACITY, _opacity)
