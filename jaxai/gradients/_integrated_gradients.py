"""Integrated gradients along the straight line from a baseline, and their completeness gap."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.describe import backward_for_each, describes
from ._paths import PATH_METHODS, as_baselines, integrate, line, path_nodes


@describes(
    title="integrated gradients",
    result="pixels",
    cost=backward_for_each("steps"),
    signed=True,
)
def integrated_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    baseline: ArrayLike | Sequence[ArrayLike] | None = None,
    steps: int = 50,
    method: str = "gauss_legendre",
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Integrate the gradient along the straight line from a baseline to the image, times their difference.

    The attributions sum to score(image) - score(baseline), up to the error of the quadrature, which
    `completeness_gap` returns.

    Args:
        baseline: Value or array that broadcasts to `images`, or a list of them, whose attributions are
            averaged (such as black and white); None means zero, which after ImageNet normalisation is the
            mean colour (grey), not black.
        steps: Number of gradients along each path.
        method: Quadrature, as in `path_nodes` (Gauss-Legendre is Captum's default too), or `"adaptive"`:
            midpoints of steps that are short where the score changes fast, which nine forward passes
            determine. It pays off where the score saturates, as probabilities do.

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
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
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
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    attributions: Float[Array, "batch ..."],
    baseline: ArrayLike | Sequence[ArrayLike] | None = None,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the attributions' sum minus (score(image) - score(baseline)); zero means complete.

    Args:
        targets: The targets that the attributions explain.
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
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
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
