"""Curves of scores as pixels are removed, or shown, in the order of a map."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.results import brief, picture, plot, save, to_html
from ..perturbation import _segments
from ..perturbation._scoring import Perturbation
from . import _hidden, _maps, _statistics
from ._hidden import Asked


class Curve(NamedTuple):
    """A score as pixels are removed or shown.

    Attributes:
        curve: The score after each step, from the start on, float32 [batch, steps + 1] ([batch, k, steps +
            1] for k targets per image).
        area: The area that the metric's docstring defines, float32 [batch] or [batch, k].
        share: The share of pixels or superpixels removed or shown so far, [batch, steps + 1].
    """

    curve: Float[Array, "batch *k points"]
    area: Float[Array, "batch *k"]
    share: Float[Array, "batch points"]

    __repr__ = brief
    plot, save, to_html, _repr_png_ = plot, save, to_html, picture


def counts(asked: Asked, steps: int | None, default: int) -> jax.Array:
    """Return the number of units removed after each step, int32 [batch, steps + 1], from none to all.

    Raises:
        ValueError: If there are more steps than units.
    """
    units = _hidden.unit_count(asked)
    steps = check_steps(steps, default, units)
    if asked.units is None:
        # Computed with Python integers: steps times pixels may exceed 32 bits.
        row = np.array([step * units // steps for step in range(steps + 1)], np.int32)
        return jnp.broadcast_to(row, (asked.images.shape[0], steps + 1))
    own = asked.units.present.sum(-1).astype(jnp.int32)
    return jnp.arange(steps + 1, dtype=jnp.int32) * own[:, None] // steps


def check_steps(steps: int | None, default: int, units: int) -> int:
    """Return the number of steps, at most one per unit."""
    steps = min(default, units) if steps is None else checks.positive(steps, "steps")
    if steps > units:
        raise ValueError(f"`steps` must be at most {units}, one for each pixel or superpixel; got {steps}")
    return steps


def along(
    asked: Asked,
    taken: jax.Array,
    *,
    least_first: tuple[bool, ...] = (False,),
    reveal: bool = False,
    top: bool = False,
) -> Any:
    """Return the target's value while units are removed in the order of the maps.

    Equal values are removed in row-major order, or in exactly the opposite order if least relevant first.

    Args:
        asked: The result of `_hidden.ask`.
        taken: Number of units removed at each point, int32 [batch, points].
        least_first: The orders: most relevant first, or least.
        reveal: Units are shown on the background instead.
        top: Whether to also return where the class is still the top one.

    Returns:
        float32 [batch, *k, orders, points], two such arrays with `top`; NaN for constant maps, which define
        no order.
    """
    flat = _maps.constant(asked.maps)
    target, _, restore = asked.target.each()
    hidden, copies = removal(asked, taken, least_first=least_first, reveal=reveal)
    shape = (-1, len(least_first), taken.shape[1])
    values = _hidden.scores(asked, hidden, shape[1] * shape[2], target=target, copies=copies, top=top)
    return jax.tree.map(lambda x: _maps.undefined(restore(x.reshape(shape)), flat), values)


def removal(
    asked: Asked, taken: jax.Array, *, least_first: tuple[bool, ...] = (False,), reveal: bool = False
) -> tuple[Perturbation, int]:
    """Return the hidden pixels at each point of each order of each map, and the number of maps per image."""
    _, repeat, _ = asked.target.each()
    copies = len(repeat(asked.images[:1, 0, 0, 0]))
    maps = asked.maps.reshape(-1, *asked.maps.shape[-2:])
    ranks, totals = _ranks(maps, None if asked.units is None else repeat(asked.units.labels), _count(asked))
    orders = jnp.asarray(np.array(least_first))
    return Perturbation(_by_rank, (reveal,), (ranks, totals, repeat(taken), orders)), copies


def _count(asked):
    return 0 if asked.units is None else asked.units.count


@partial(jax.jit, static_argnames="count")
def _ranks(maps, labels, count):
    """Return each pixel's rank of removal, int32 [maps, height, width] from 0, and the units [maps]."""
    if labels is None:
        values = maps.reshape(len(maps), -1)
        totals = jnp.full(len(maps), values.shape[1], jnp.int32)
    else:
        size = _segments.sums(jnp.ones(labels.shape), labels, count)
        means = _segments.sums(maps, labels, count) / jnp.maximum(size, 1)
        # Labels that an image lacks come last.
        values, totals = jnp.where(size > 0, means, -jnp.inf), (size > 0).sum(-1).astype(jnp.int32)
    order = jnp.argsort(-values, axis=-1, stable=True)
    rank = jax.vmap(lambda o: jnp.zeros(o.shape, jnp.int32).at[o].set(jnp.arange(o.size, dtype=jnp.int32)))(
        order
    )
    return rank.reshape(maps.shape) if labels is None else _segments.paint(rank, labels), totals


def _by_rank(reveal, ranks, totals, taken, least_first, pairs):
    owners, rows = pairs
    points = taken.shape[1]
    rank = ranks[owners]
    reverse = totals[owners][:, None, None] - 1 - rank
    rank = jnp.where(least_first[rows // points][:, None, None], reverse, rank)
    gone = rank < taken[owners, rows % points][:, None, None]
    return ~gone if reveal else gone


def share(asked: Asked, taken: jax.Array) -> jax.Array:
    """Return the share of an image's units removed at each point, float32 [batch, points]."""
    if asked.units is None:
        return taken / _hidden.unit_count(asked)
    return taken / asked.units.present.sum(-1, keepdims=True)


def curve(asked: Asked, taken: jax.Array, values: jax.Array) -> Curve:
    """Return values [batch, *k, points] as a curve with the area under it."""
    found = share(asked, taken)
    return Curve(values, _statistics.area(values, for_each(found, values)), found)


def for_each(share: jax.Array, values: jax.Array) -> jax.Array:
    """Return arrays of images, [batch, n], in a shape that broadcasts to values [batch, *k, n]."""
    return share.reshape(share.shape[0], *(1,) * (values.ndim - 2), share.shape[1])
