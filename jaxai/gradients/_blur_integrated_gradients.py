"""Integrated gradients along a path of blurs."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import backward_for_each, describes
from ._paths import integrate


def blur(
    image: Float[Array, "height width channels"], sigma: Float[Array, ""], *, taps: int
) -> Float[Array, "height width channels"]:
    """Blur an image by a Gaussian of standard deviation `sigma`, with zero padding, truncated at four sigmas.

    Equals `scipy.ndimage.gaussian_filter(..., mode="constant")`; `sigma` may be traced, and zero. `taps` is
    at least four times the largest sigma.
    """
    rows, columns = _matrix(image.shape[0], sigma, taps), _matrix(image.shape[1], sigma, taps)
    return jnp.einsum("ih,hwc,jw->ijc", rows, image, columns)


def _matrix(size: int, sigma: jax.Array, taps: int) -> jax.Array:
    sigma = jnp.maximum(sigma, 1e-6)
    radius = jnp.floor(4 * jax.lax.stop_gradient(sigma) + 0.5)

    def weight(distance):
        return jnp.where(distance <= radius, jnp.exp(-(distance**2) / (2 * sigma**2)), 0)

    positions = jnp.arange(size, dtype=jnp.float32)
    # The kernel sums to one over all its taps, including those outside the image.
    total = 1 + 2 * weight(jnp.arange(1, taps + 1, dtype=jnp.float32)).sum()
    return weight(jnp.abs(positions[:, None] - positions[None])) / total


@cache
def _blur_path(taps: int):
    def path(image, own, shared, sample):
        sigma, width = sample
        point = blur(image, sigma, taps=taps)
        if shared is None:
            _, change = jax.jvp(lambda s: blur(image, s, taps=taps), (sigma,), (jnp.ones_like(sigma),))
        else:
            change = (blur(image, sigma + shared, taps=taps) - point) / shared
        return point, -width * change

    return path


@describes(
    title="blur IG",
    result="pixels",
    cost=backward_for_each("steps"),
    signed=True,
)
def blur_integrated_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    max_sigma: float = 50.0,
    steps: int = 100,
    spacing: str = "linear",
    grad_step: float | None = 0.01,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Integrate the gradient along a path from a blurred image to the image: no baseline to choose.

    The sum approaches score(image) - score(most blurred image). The image is padded with zeros and the
    integral is a left Riemann sum, as in PAIR's library.

    Args:
        max_sigma: Standard deviation of the strongest blur, in pixels.
        spacing: Equal steps of sigma, `"linear"`, or of its square, `"sqrt"` (PAIR's `sqrt=True`).
        grad_step: Difference of sigmas in the blur's finite difference, as in PAIR's library; None takes the
            exact derivative of the truncated kernel.

    References:
        Xu, Venugopalan, Sundararajan: Attribution in Scale and Space. CVPR 2020, arXiv 2004.03383, equation
        3.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: (x**2).sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> jaxai.blur_integrated_gradients(net, x, 0, steps=4).shape
        (1, 2, 2, 1)
    """
    model, images, targets = _targets.prepare(model, images, targets)
    steps = checks.positive(steps, "steps")
    checks.choice(spacing, "spacing", ("linear", "sqrt"))
    for name, value in (("max_sigma", max_sigma), ("grad_step", grad_step)):
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` must be positive; got {value!r}")
    share = np.arange(steps + 1) / steps
    # PAIR spaces the square roots of share x max_sigma, which ends at sqrt(max_sigma).
    sigmas = share * max_sigma if spacing == "linear" else np.sqrt(share * max_sigma)
    samples = (jnp.asarray(sigmas[:-1], jnp.float32), jnp.asarray(np.diff(sigmas), jnp.float32))
    return integrate(
        model,
        images,
        targets,
        None,
        None if grad_step is None else jnp.float32(grad_step),
        samples,
        path=_blur_path(int(4 * (sigmas.max() + (grad_step or 0)) + 0.5) + 1),
        batch_size=batching.chunk_size(batch_size, model, images),
    )
