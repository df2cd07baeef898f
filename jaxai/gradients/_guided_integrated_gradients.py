"""Integrated gradients along a path that the gradient itself chooses."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from ._paths import as_baseline


@describes(
    title="guided IG",
    result="pixels",
    cost=lambda o: Passes(1 + o.steps * o.targets, backward=o.steps * o.targets),
    signed=True,
)
def guided_integrated_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    baseline: ArrayLike | None = None,
    steps: int = 200,
    fraction: float = 0.25,
    max_distance: float = 0.02,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Integrate the gradient along a path that moves the values with the smallest gradients first.

    Every step covers 1/steps of the L1 distance to the image. The `fraction` of values with the smallest
    gradients moves first, then the next, but none further than `max_distance` from the straight line. Each
    step depends on the previous one, so only images and targets run in parallel. Values of equal gradient are
    ordered by position.

    Args:
        fraction: Fraction of the values that moves at a time, in (0, 1].
        max_distance: How far a value may be ahead or behind along the line; 0 is integrated gradients, 1 is
            unconstrained.
        batch_size: At most this many images in flight (times k targets); None chooses by size.

    References:
        Kapishnikov et al.: Guided Integrated Gradients: An Adaptive Path Method for Removing Noise. CVPR
        2021, arXiv 2106.09788, algorithm 1. Defaults are PAIR's.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: (x**2).sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> jaxai.guided_integrated_gradients(net, x, 0, steps=8).shape
        (1, 2, 2, 1)
    """
    model, images, targets = _targets.prepare(model, images, targets)
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must be in (0, 1]; got {fraction!r}")
    if not 0 <= max_distance <= 1:
        raise ValueError(f"`max_distance` must be in [0, 1]; got {max_distance!r}")
    return _guided(
        model,
        images,
        targets,
        as_baseline(baseline, images),
        steps=checks.positive(steps, "steps"),
        fraction=float(fraction),
        max_distance=float(max_distance),
        batch_size=batching.chunk_size(batch_size, model, images),
    )


@partial(jax.jit, static_argnames=("steps", "fraction", "max_distance", "batch_size"))
def _guided(model, images, targets, baseline, *, steps, fraction, max_distance, batch_size):
    def chunk(x, t, start):
        # Each target has a path of its own.
        t, copies, together = t.frozen(model(x)).each()
        x, start = copies(x), copies(start)

        def step(state, number):
            point, total = state
            grad = t.gradients(model, point.astype(x.dtype))[1].astype(jnp.float32)
            move = jax.vmap(partial(_move, steps=steps, fraction=fraction, max_distance=max_distance))
            after = move(point, grad, x, start, jnp.broadcast_to(number, x.shape[:1]))
            return (after, total + (after - point) * grad), None

        state = (start.astype(jnp.float32), jnp.zeros(x.shape, jnp.float32))
        (_, total), _ = jax.lax.scan(step, state, jnp.arange(1, steps + 1, dtype=jnp.float32))
        return together(total)

    size = batching.groups(batch_size, math.prod(targets.axes))
    return batching.map_images(chunk, images, targets, baseline, batch_size=size)


def _move(point, grad, image, start, number, *, steps, fraction, max_distance):
    """Return the point after one step: values of small gradient move until the planned distance remains."""
    shape = point.shape
    point, grad, image, start = (a.ravel().astype(jnp.float32) for a in (point, grad, image, start))
    line = image - start
    position = number / steps
    behind = start + jnp.maximum(position - max_distance, 0) * line
    ahead = start + jnp.minimum(position + max_distance, 1) * line

    # Values that are too far behind move first.
    point = jnp.where(jnp.abs(image - point) > jnp.abs(image - behind), behind, point)
    wanted = jnp.abs(image - point).sum() - (1 - position) * jnp.abs(line).sum()
    room = jnp.abs(ahead - point)

    # In order of their gradients, one group at a time, values move as far as allowed; the last group moves by
    # the distance that remains.
    size = point.shape[0]
    group_size = int(fraction * (size - 1)) + 1
    order = jnp.argsort(jnp.where(room > 0, jnp.abs(grad), jnp.inf))
    groups = -(-size // group_size)
    sorted_room = jnp.pad(room[order], (0, groups * group_size - size)).reshape(groups, group_size)
    each = sorted_room.sum(1)
    needed = jnp.maximum(wanted, 0) - (jnp.cumsum(each) - each)
    share = jnp.clip(needed / jnp.where(each > 0, each, 1), 0, 1)
    moved = jnp.zeros(size, jnp.float32).at[order].set(jnp.repeat(share, group_size)[:size])
    return (point + moved * (ahead - point)).reshape(shape)
