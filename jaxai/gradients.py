"""Explanations by the gradient of the score with respect to the image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from . import batching, checks
from . import targets as _targets


def saliency(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Return the gradient of the score with respect to the image, signed.

    `jaxai.magnitude` reduces the channels; the paper's map is its `"max"`.

    Args:
        model: Callable pytree, `model(images) -> scores`.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain (see `jaxai.targets`); raw scores (logits) are differentiated.
        batch_size: At most so many images in flight; None means all.

    Returns:
        d score / d image [batch, height, width, channels]; [batch, k, ...] for k classes an image.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit or a class does not exist.

    References:
        Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks. ICLR Workshop 2014,
        arXiv 1312.6034, section 3.1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.saliency(lambda x: x.sum((1, 2)), jnp.ones((1, 2, 2, 3)), 0)[0, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    return _saliency(model, images, targets, batch_size=checks.batch_size(batch_size))


@partial(jax.jit, static_argnames="batch_size")
def _saliency(model, images, targets, *, batch_size):
    def chunk(arguments):
        x, t = arguments
        return _targets.gradients(model, x, t, batch_size=batch_size)[1]

    return batching.map_chunks(chunk, (images, targets), batch_size=batch_size)


def path_nodes(steps: int, *, method: str = "gauss_legendre") -> tuple[np.ndarray, np.ndarray]:
    """Return positions in [0, 1] and weights that sum to one, for an integral along a path.

    Args:
        steps: Number of positions.
        method: `"gauss_legendre"` (exact for polynomials of degree 2 steps - 1), `"riemann_left"`,
            `"riemann_middle"`, `"riemann_right"` or `"trapezoid"`.
    """
    steps = checks.positive(steps, "steps")
    checks.choice(method, "method", PATH_METHODS)
    if method == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if method == "trapezoid":
        if steps < 2:
            raise ValueError(f"`steps` must be at least 2 for the trapezoid rule; got {steps}")
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[method]
    return (np.arange(steps) + offset) / steps, np.full(steps, 1 / steps)


PATH_METHODS = (
    "gauss_legendre",
    "riemann_left",
    "riemann_middle",
    "riemann_right",
    "trapezoid",
)


def integrated_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    baseline: ArrayLike | None = None,
    steps: int = 50,
    method: str = "gauss_legendre",
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Integrate the gradient along the straight line from a baseline to the image, times their difference.

    The attributions sum to score(image) - score(baseline), up to the error of the quadrature.

    Args:
        model: Callable pytree, `model(images) -> scores`.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain; None means the top class of the image itself. Logits are differentiated.
        baseline: Value or array that broadcasts to `images`; None means zero, which after ImageNet
            normalisation is the mean colour (grey), not black.
        steps: Number of gradients along the path.
        method: Quadrature, as in `path_nodes`; Gauss-Legendre is Captum's default too.
        batch_size: At most so many images in flight; None means 16 on the CPU, 128 on an accelerator.

    Returns:
        Attributions [batch, height, width, channels]; [batch, k, ...] for k classes an image.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, a class does not exist or `steps` is not positive.

    References:
        Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks. ICML 2017, arXiv 1703.01365,
        equations 1 and 3.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> square = lambda x: (x**2).sum((1, 2))
        >>> float(jaxai.integrated_gradients(square, 3 * jnp.ones((1, 1, 1, 1)), 0).round(4)[0, 0, 0, 0])
        9.0
    """
    model, images, targets = _targets.prepare(model, images, targets)
    baseline = as_baseline(baseline, images)
    nodes, weights = path_nodes(steps, method=method)
    return _integrated_gradients(
        model,
        images,
        targets,
        baseline,
        jnp.asarray(nodes, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        batch_size=batching.chunk_size(images.shape[0] * steps, checks.batch_size(batch_size)),
    )


def as_baseline(baseline: ArrayLike | None, images: jax.Array) -> jax.Array:
    """Return a baseline as an array of the images' shape; None means zero.

    Raises:
        ValueError: If it does not broadcast to the images.
    """
    value = jnp.asarray(0 if baseline is None else baseline, images.dtype)
    try:
        return jnp.broadcast_to(value, images.shape)
    except ValueError:
        raise ValueError(
            f"`baseline` must broadcast to the images' shape {images.shape}; got {value.shape}"
        ) from None


@partial(jax.jit, static_argnames="batch_size")
def _integrated_gradients(model, images, targets, baseline, nodes, weights, *, batch_size):
    def chunk(arguments):
        x, start, t = arguments
        t = t if callable(t) else _targets.freeze(model(x), t)
        return (x - start) * average_gradient(model, x, start, t, nodes, weights, batch_size)

    return batching.map_chunks(chunk, (images, baseline, targets), batch_size=batch_size)


def average_gradient(model, images, baseline, targets, nodes, weights, batch_size):
    """Return the weighted mean gradient at `nodes` of the line from `baseline` to `images`."""
    batch = images.shape[0]

    def some_nodes(chunk, valid):
        positions, weight = chunk
        count = positions.shape[0]
        line = positions[:, None, None, None, None].astype(images.dtype)
        points = (baseline + line * (images - baseline)).reshape(-1, *images.shape[1:])
        repeated = tile(targets, count)
        grads = _targets.gradients(model, points, repeated, batch_size=batch_size)[1]
        grads = grads.reshape(count, batch, *grads.shape[1:])
        return jnp.tensordot(weight * valid, grads.astype(jnp.float32), axes=1)

    return batching.sum_chunks(some_nodes, (nodes, weights), batch_size=max(1, batch_size // batch))


def tile(targets: Any, count: int) -> Any:
    """Return targets for `count` copies of the whole batch, one after the other."""
    if targets is None or callable(targets):
        return targets
    return jnp.tile(targets, (count,) + (1,) * (targets.ndim - 1))
