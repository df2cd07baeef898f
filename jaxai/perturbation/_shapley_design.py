"""Masks and weights for the regression form of Shapley values.

Coalitions come in levels: level j holds those of size j and their complements. Small levels are enumerated as
far as the budget allows, the rest is sampled in complementary pairs, within a level in groups that show every
superpixel equally often. All shapes are static although the number of superpixels may differ between the
images of a batch.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from . import _designs

# Counts of coalitions saturate here: a level this large is never enumerated.
_MANY = 2.0**30


class Coalitions(NamedTuple):
    """Masks float32 [samples, S], regression weights [samples], and 1 for the sampled rows [samples]."""

    masks: jax.Array
    weights: jax.Array
    sampled: jax.Array


def binomials(count: int) -> jax.Array:
    """Return C(n, k) for 0 <= n, k <= count, float32 [count + 1, count + 1], saturated at 2^30."""
    row = [1.0] + [0.0] * count
    table = [row]
    for _ in range(count):
        row = [1.0] + [min(row[k - 1] + row[k], _MANY) for k in range(1, count + 1)]
        table.append(row)
    return jnp.array(table, jnp.float32)


@partial(jax.jit, static_argnames=("samples", "leverage"))
def coalitions(key: jax.Array, present: jax.Array, *, samples: int, leverage: bool) -> Coalitions:
    """Draw coalitions for one image.

    Args:
        key: Randomness; element (m, s) depends on (key, m, s) only.
        present: float32 [S], 1 for the image's superpixels, which come before the padding.
        samples: Number of masks, even.
        leverage: Sample all sizes equally often (their leverage scores) instead of by the Shapley kernel.
    """
    count = present.shape[0]
    players = present.sum().astype(jnp.int32)
    levels = jnp.arange(1, max(2, count // 2 + 1))
    table = binomials(count)
    valid = levels <= players // 2
    middle = 2 * levels == players
    # Pairs (a coalition and its complement) of each level.
    pairs = jnp.where(middle, 0.5, 1.0) * table[players, levels]
    pairs = jnp.where(valid, jnp.maximum(pairs, 1), 0)
    kernel = jnp.where(
        valid,
        jnp.where(middle, 1.0, 2.0) / (levels * jnp.maximum(players - levels, 1)).astype(jnp.float32),
        0.0,
    )
    kernel = kernel / kernel.sum()
    mass = jnp.where(valid, jnp.where(middle, 1.0, 2.0), 0.0) if leverage else kernel
    budget = samples // 2
    full = _enumerated(mass, pairs, valid, budget)
    offsets = jnp.cumsum(jnp.where(full, pairs, 0)) - jnp.where(full, pairs, 0)
    enumerated = jnp.where(full, pairs, 0).sum()

    rows = jnp.arange(budget)
    left = jnp.where(full, 0.0, mass)
    drawn = jnp.maximum(budget - enumerated, 1)
    rate = left / jnp.maximum(left.sum(), 1e-30)
    # Sizes of the sampled pairs are spread evenly over their distribution, from one random start.
    start = jax.random.uniform(jax.random.fold_in(key, 0x73697A65), (), jnp.float32)
    quantile = (rows.astype(jnp.float32) - enumerated + start) / drawn
    level_sampled = jnp.searchsorted(jnp.cumsum(rate), quantile, side="right")
    last = jnp.max(jnp.where(rate > 0, jnp.arange(len(levels)), 0))
    level_sampled = jnp.minimum(level_sampled, last)
    ends = jnp.cumsum(jnp.where(full, pairs, 0))
    level_listed = jnp.searchsorted(ends, rows.astype(jnp.float32), side="right")
    listed = rows.astype(jnp.float32) < enumerated
    level = jnp.where(listed, jnp.minimum(level_listed, len(levels) - 1), level_sampled)

    rank = rows.astype(jnp.float32) - offsets[level]
    shown_listed = _unrank(rank, levels[level], players, middle[level], table)
    noise = jnp.where(present[None] > 0, _designs.uniforms(key, samples=budget, count=count), 2.0)
    order = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    # A random order is cut into disjoint coalitions of the level before the next order is drawn: they differ,
    # and show all superpixels equally often. (Two halves would be each other's complement.)
    parts = jnp.where(middle, 1, jnp.maximum(players // levels, 1))[level]
    part = (rows - jnp.searchsorted(level, level, side="left")) % parts
    begin = (part * levels[level])[:, None]
    order = order[jnp.maximum(rows - part, 0)]
    shown_sampled = ((order >= begin) & (order < begin + levels[level][:, None])).astype(jnp.float32)
    shown = jnp.where(listed[:, None], shown_listed, shown_sampled) * present[None]

    exact = kernel[level] / jnp.maximum(pairs[level], 1)
    estimated = kernel[level] / jnp.maximum(rate[level] * drawn, 1e-30)
    # Nothing is left to sample when every level is enumerated.
    weight = jnp.where(listed, exact, jnp.where(left.sum() > 0, estimated, 0.0)).astype(jnp.float32)
    masks = jnp.stack([shown, (1 - shown) * present[None]], axis=1).reshape(2 * budget, count)
    sampled = 1 - listed.astype(jnp.float32)
    return Coalitions(masks, jnp.repeat(weight / 2, 2), jnp.repeat(sampled, 2))


def _enumerated(mass, pairs, valid, budget):
    """Return which levels are enumerated: those that would get at least as many samples as pairs."""

    def step(state, level):
        left, open_ = state
        share, remaining, need, exists = level
        # The tolerance admits the last level, for which both sides are equal up to rounding.
        take = open_ & exists & (left * share >= (1 - 1e-5) * need * remaining) & (need <= left)
        return (jnp.where(take, left - need, left), open_ & (take | ~exists)), take

    rest = jnp.cumsum(mass[::-1])[::-1]
    start = (jnp.float32(budget), jnp.array(True))
    return jax.lax.scan(step, start, (mass, rest, pairs, valid))[1]


def _unrank(rank, size, players, middle, table):
    """Return the rank-th coalition [rows, S] of `size` among `players`, in lexicographic order.

    If a coalition and its complement have the same size, only those with superpixel 0 are counted.
    """
    count = table.shape[0] - 1

    def step(state, position):
        rank, size = state
        rest = jnp.maximum(players - position - 1, 0)
        including = table[rest, jnp.maximum(size - 1, 0)]
        forced = middle & (position == 0)
        include = (size > 0) & (forced | (rank < including)) & (position < players)
        rank = jnp.where(include | forced, rank, rank - including)
        return (rank, size - include.astype(size.dtype)), include

    state = (rank.astype(jnp.float32), size)
    shown = jax.lax.scan(step, state, jnp.arange(count))[1]
    return shown.T.astype(jnp.float32)
