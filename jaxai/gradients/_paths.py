"""Integrals of the gradient along a path to the image: one core, a line or so for each path.

A path is a function `path(image, own, shared, sample) -> (point, step)` of one image and one sample: where
the gradient is taken, and what it is multiplied by. `own` belongs to the image (a baseline), `shared` to the
call.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.describe import backward_for_each, describes

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
        own: Pytree of arrays [batch, ...], handed to `path` image by image.
        shared: Pytree of arrays, handed to `path` whole.
        samples: Pytree of arrays [samples, ...], handed to `path` one by one.
        path: The path; static.
        batch_size: At most this many points in flight.
        prepare: `prepare(model, images, targets, own) -> own`, run once for each chunk of images.
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


@describes(
    title="integrated gradients",
    result="pixels",
    cost=backward_for_each("steps"),
    signed=True,
)
def integrated_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    baseline: ArrayLike | Sequence[ArrayLike] | None = None,
    steps: int = 50,
    method: str = "gauss_legendre",
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Integrate the gradient along the straight line from a baseline to the image, times their difference.

    The attributions sum to score(image) - score(baseline), up to the error of the quadrature, which
    `completeness_gap` returns.

    Args:
        baseline: Value or array that broadcasts to `images`, or a list of them, whose attributions are
            averaged (black and white, say); None means zero, which after ImageNet normalisation is the mean
            colour (grey), not black.
        steps: Number of gradients along each path.
        method: Quadrature, as in `path_nodes` (Gauss-Legendre is Captum's default too), or `"adaptive"`:
            midpoints of steps that are short where the score changes fast, found by nine forward passes. It
            pays where the score saturates, as a probability does.

    References:
        Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks. ICML 2017, arXiv 1703.01365,
        equations 1 and 3. Steps by the change of the score: Bhat, Raychowdhury: Non-Uniform Interpolation in
        Integrated Gradients for Low-Latency Explainable-AI. ISCAS 2023, arXiv 2302.11107.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> square = lambda x: (x**2).sum((1, 2))
        >>> float(jaxai.integrated_gradients(square, 3 * jnp.ones((1, 1, 1, 1)), 0).round(4)[0, 0, 0, 0])
        9.0
    """
    model, images, targets = _targets.prepare(model, images, targets)
    baselines = as_baselines(baseline, images)
    batch_size = batching.chunk_size(batch_size, model, images)
    count = baselines.shape[1]
    if method == "adaptive":
        steps = checks.positive(steps, "steps")
        index, step = jnp.divmod(jnp.arange(count * steps), steps)
        own, samples = (baselines, jnp.zeros((images.shape[0], count, steps + 1), jnp.float32)), (index, step)
        return integrate(
            model,
            images,
            targets,
            own,
            None,
            samples,
            path=_adaptive_line,
            batch_size=batch_size,
            prepare=_adapt,
        )
    checks.choice(method, "method", (*PATH_METHODS, "adaptive"))
    nodes, weights = path_nodes(steps, method=method)
    samples = (
        jnp.repeat(jnp.arange(count), steps),
        jnp.tile(jnp.asarray(nodes, jnp.float32), count),
        jnp.tile(jnp.asarray(weights / count, jnp.float32), count),
    )
    return integrate(model, images, targets, baselines, None, samples, path=line, batch_size=batch_size)


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


PROBES = 8


def _adapt(model, images, targets, own):
    """Place the ends of the steps: equal shares of the square root of the score's change between probes."""
    baselines, ends = own
    grid = jnp.linspace(0, 1, PROBES + 1, dtype=jnp.float32)

    def one(baseline):
        def score(position):
            points = (baseline + position * (images - baseline)).astype(images.dtype)
            values = targets.of(model(points))
            return values if values.ndim == 1 else jnp.abs(values).sum(1)

        change = jnp.abs(jnp.diff(jax.lax.map(score, grid), axis=0))
        share = jnp.sqrt(change) + 1e-3 * jnp.sqrt(change.sum(0)) + 1e-12
        share = share / share.sum(0)
        cumulative = jnp.concatenate([jnp.zeros_like(share[:1]), jnp.cumsum(share, axis=0)])
        wanted = jnp.linspace(0, 1, ends.shape[-1], dtype=jnp.float32)
        placed = jax.vmap(lambda known: jnp.interp(wanted, known, grid), in_axes=1)(cumulative)
        return placed.at[:, 0].set(0).at[:, -1].set(1)

    return baselines, jnp.moveaxis(jax.lax.map(one, jnp.moveaxis(baselines, 1, 0)), 0, 1)


def _adaptive_line(image, own, shared, sample):
    baselines, ends = own
    index, step = sample
    start, end = ends[index, step], ends[index, step + 1]
    difference = image - baselines[index]
    weight = (end - start) / baselines.shape[0]
    return baselines[index] + (start + end) / 2 * difference, weight * difference


@completed
def completeness_gap(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    attributions: Float[Array, "batch *k height width channels"],
    baseline: ArrayLike | Sequence[ArrayLike] | None = None,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return how much attributions add up to beyond score(image) - score(baseline); zero is complete.

    Args:
        targets: As the attributions were made for.
        attributions: [batch, height, width, channels], or [batch, k, ...] for k classes per image.
        baseline: As in `integrated_gradients`; the scores of several are averaged.

    Returns:
        Signed gaps in units of the score [batch]; [batch, k] for k classes per image.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> model, x = (lambda x: (x**2).sum((1, 2))), jnp.ones((1, 2, 2, 1))
        >>> found = jaxai.integrated_gradients(model, x, 0, steps=1, method="riemann_right")
        >>> jaxai.completeness_gap(model, x, 0, attributions=found).tolist()
        [4.0]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    attributions = jnp.asarray(attributions)
    lead = attributions.shape[:-3]
    expected = (images.shape[0], *targets.axes, *images.shape[1:])
    if attributions.shape != expected:
        raise ValueError(f"`attributions` must be {expected} for these targets; got {attributions.shape}")
    size = batching.chunk_size(batch_size, model, images)
    difference = _differences(model, images, targets, as_baselines(baseline, images), batch_size=size)
    return attributions.astype(jnp.float32).reshape(*lead, -1).sum(-1) - difference


@partial(jax.jit, static_argnames="batch_size")
def _differences(model, images, targets, baselines, *, batch_size):
    def chunk(x, t, own):
        outputs = model(x)
        t = t.frozen(outputs)
        start = jax.lax.map(lambda b: t.of(model(b)), jnp.moveaxis(own, 1, 0))
        return t.of(outputs) - start.mean(0)

    return batching.map_images(chunk, images, targets, baselines, batch_size=batch_size)
