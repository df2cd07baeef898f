"""Integrals of the gradient along a path to the image: one core and a short function per path.

A path is a function `path(image, own, shared, sample) -> (point, step)` of one image and one sample: the
point at which the gradient is taken, and the step by which it is multiplied. `own` belongs to the image (such
as a baseline), `shared` to the call.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from .._frame import batching, checks

Path = Callable[..., tuple[jax.Array, jax.Array]]


PATH_METHODS = (
    "gauss_legendre",
    "riemann_left",
    "riemann_middle",
    "riemann_right",
    "trapezoid",
)


def path_nodes(steps: int, *, method: str = "gauss_legendre") -> tuple[np.ndarray, np.ndarray]:
    """Return positions in [0, 1] and weights that sum to one, for an integral along a path.

    Args:
        steps: Number of positions.
        method: `"gauss_legendre"` (exact for polynomials of degree 2 steps - 1), `"riemann_left"`,
            `"riemann_middle"`, `"riemann_right"` or `"trapezoid"`.

    Raises:
        ValueError: If `steps` is not positive, too small for the rule, or there is no such rule.

    Example:
        >>> import jaxai
        >>> nodes, weights = jaxai.gradients.path_nodes(2, method="trapezoid")
        >>> nodes.tolist(), weights.tolist()
        ([0.0, 1.0], [0.5, 0.5])
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


@partial(jax.jit, static_argnames=("path", "prepare", "batch_size"))
def integrate(model, images, targets, own, shared, samples, *, path, batch_size, prepare=None):
    """Sum gradient x step over the samples of a path, in float32.

    Args:
        model: Callable pytree.
        images: [batch, height, width, channels].
        targets: As `targets.prepare` returns them; None is the top class of the image itself.
        own: Pytree of arrays [batch, ...], passed to `path` image by image.
        shared: Pytree of arrays, passed to `path` whole.
        samples: Pytree of arrays [samples, ...], passed to `path` one by one.
        path: The path; static.
        batch_size: At most this many points in flight.
        prepare: `prepare(model, images, targets, own) -> own`, run once per chunk of images.
    """

    def chunk(x, t, mine):
        t = t.frozen(model(x))
        mine = mine if prepare is None else prepare(model, x, t, mine)
        batch = x.shape[0]

        def some(chosen, valid):
            each = jax.vmap(path, in_axes=(0, 0, None, None))
            points, steps = jax.vmap(each, in_axes=(None, None, None, 0))(x, mine, shared, chosen)
            count = points.shape[0]
            flat = points.astype(x.dtype).reshape(count * batch, *x.shape[1:])
            grads = t.tile(count).gradients(model, flat, batch_size=batch_size)[1]
            grads = grads.reshape(count, batch, *grads.shape[1:]).astype(jnp.float32)
            steps = (steps if grads.ndim == steps.ndim else steps[:, :, None]).astype(jnp.float32)
            return jnp.tensordot(valid, grads * steps, axes=1)

        return batching.sum_chunks(some, samples, batch_size=batching.groups(batch_size, batch))

    return batching.map_images(chunk, images, targets, own, batch_size=batch_size)


def line(image, own, shared, sample):
    """The straight line from one of several baselines `own`; a sample is (index, node, weight)."""
    index, node, weight = sample
    difference = image - own[index]
    return own[index] + node * difference, weight * difference


def as_baselines(baseline: Any, images: jax.Array) -> jax.Array:
    """Return one or several baselines as an array [batch, baselines, height, width, channels].

    Raises:
        ValueError: If one does not broadcast to the images, or the list is empty.
    """
    if isinstance(baseline, (list, tuple)):
        if not baseline:
            raise ValueError("`baseline` must be a value, an array or a list of them; got an empty list")
        return jnp.stack([as_baseline(one, images) for one in baseline], axis=1)
    return as_baseline(baseline, images)[:, None]


def as_baseline(baseline: ArrayLike | None, images: jax.Array) -> jax.Array:
    """Return a baseline as an array of the images' shape; None means zero.

    Raises:
        ValueError: If it does not broadcast to the images.
    """
    return checks.like_images(0 if baseline is None else baseline, images, "baseline")
