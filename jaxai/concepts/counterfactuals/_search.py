"""Greedy search for the fewest changes that flip a decision, with a check that each is needed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..._frame import batching

OWN = -1


class Path(NamedTuple):
    """Changes in the order of selection; -1 and NaN after the last."""

    places: jax.Array
    """int32 [most]."""
    sources: jax.Array
    """int32 [most]."""
    count: jax.Array
    """int32 []."""
    flipped: jax.Array
    """bool []."""
    values: jax.Array
    """The value to show of `evaluate`, before the first change and after each, float32 [most + 1]."""


Evaluate = Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def fewest(
    evaluate: Evaluate,
    moves: jax.Array,
    bonus: jax.Array,
    *,
    places: int,
    most: int,
    batch_size: int,
    once: bool,
) -> Path:
    """Change one place after the other until the decision flips, then undo unneeded changes.

    A state holds the content of each place: `OWN`, or a source. Every step evaluates all remaining moves, in
    batches, and makes the one with the largest objective, among those that flip if any does. At the end
    places are reset one after the other as long as the decision stays flipped, so that every single change is
    needed.

    Args:
        evaluate: Maps states [n, places] to their objectives, whether they flip, and a value to show, each
            [n].
        moves: Place and source of each move, int32 [moves, 2].
        bonus: Value added to the objective of each move, [moves].
        places: Number of places.
        most: At most this many changes.
        batch_size: States evaluated at once.
        once: Whether a source may be used for only one place.
    """
    which, whence = moves[:, 0], moves[:, 1]
    start = jnp.full(places, OWN, jnp.int32)

    def scored(states, xs):
        return batching.map_chunks(lambda part: evaluate(jax.vmap(states)(part)), xs, batch_size=batch_size)

    def forward(carry):
        state, path, count, _, _ = carry
        value, flips, _ = scored(lambda move: state.at[move[0]].set(move[1]), moves)
        usable = state[which] == OWN
        if once:
            usable &= ~(whence[:, None] == state[None]).any(1)
        flips &= usable
        wanted = jnp.where(flips.any(), flips, usable)
        best = jnp.argmax(jnp.where(wanted, value + bonus, -jnp.inf))
        moved = usable.any()
        state = jnp.where(moved, state.at[which[best]].set(whence[best]), state)
        path = jnp.where(moved, path.at[count].set(moves[best]), path)
        return state, path, count + moved.astype(jnp.int32), flips[best], ~moved

    def unfinished(carry):
        _, _, count, flipped, stuck = carry
        return (count < most) & ~flipped & ~stuck

    first = evaluate(start[None])
    path = jnp.full((most, 2), OWN, jnp.int32)
    carry = start, path, jnp.int32(0), first[1][0], jnp.bool_(False)
    state, path, count, flipped, _ = jax.lax.while_loop(unfinished, forward, carry)

    def backward(carry):
        state, kept, _ = carry
        value, flips, _ = scored(lambda place: state.at[place].set(OWN, mode="drop"), _inside(path, places))
        idle = flips & kept
        slot = jnp.argmax(jnp.where(idle, value, -jnp.inf))
        found = idle.any()
        return (
            jnp.where(found, state.at[path[slot, 0]].set(OWN), state),
            jnp.where(found, kept.at[slot].set(False), kept),
            found,
        )

    kept = jnp.arange(most) < count
    _, kept, _ = jax.lax.while_loop(lambda carry: carry[2], backward, (state, kept, flipped & (count > 1)))
    order = jnp.argsort(~kept, stable=True)
    count = kept.sum(dtype=jnp.int32)
    path = jnp.where(kept[order][:, None], path[order], OWN)

    def after(number):
        used = jnp.arange(most) < number
        target = jnp.where(used, _inside(path, places), places)
        return start.at[target].set(path[:, 1], mode="drop")

    values = scored(after, jnp.arange(most + 1))[2]
    values = jnp.where(jnp.arange(most + 1) <= count, values, jnp.nan)
    return Path(path[:, 0], path[:, 1], count, flipped, values)


def _inside(path, places):
    """Return the places of a path, with an index out of range for empty slots."""
    return jnp.where(path[:, 0] == OWN, places, path[:, 0])
