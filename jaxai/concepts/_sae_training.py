"""Training of sparse autoencoders in compiled rounds of steps, with checkpoints in a file."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import _files
from . import _sae_kinds as kinds

# A code is dead if no activation has used it for this many steps; what it explains of the others' residual
# has this weight. With 200 and 1/32, the usual numbers of longer trainings, 2 to 7 % of the codes stay dead.
_PATIENCE = 80
_AUXILIARY = 1 / 4
# What a step multiplies the encoder's columns of dead codes by, until some activation selects them.
_GROWTH = 1.02
# The gates' kernel width in units of an activation's length; the weight of the number of codes.
_BANDWIDTH, _NUMBER = 0.05, 0.5
# How far a step moves all gates, on the log scale, per unit of the relative error of the number of codes.
_HOLD = 0.02
_BORDER_MEMORY = 0.99
# Floats in a round's batches, 64 MiB; rows per part of a pass over all activations; rounds of clustering.
_ROUND, _ROWS, _CLUSTERINGS = 1 << 24, 8192, 10


@dataclasses.dataclass(frozen=True)
class Plan:
    """The parameters of a training, without its data."""

    num_codes: int
    k: int
    kind: str
    archetypal: bool
    steps: int
    examples: int


class Data(NamedTuple):
    """Activations, in memory or on disk, with their centre and scale."""

    rows: Any
    mean: jax.Array
    scale: jax.Array

    def take(self, index: np.ndarray) -> jax.Array:
        """Return rows, centred and scaled."""
        on_disk = isinstance(self.rows, np.memmap)
        rows = jnp.asarray(self.rows[index], jnp.float32) if on_disk else self.rows[jnp.asarray(index)]
        return (rows - self.mean) / self.scale

    def parts(self, size: int = _ROWS) -> Iterator[jax.Array]:
        """Yield all rows in order, in parts."""
        for first in range(0, len(self.rows), size):
            yield (jnp.asarray(self.rows[first : first + size], jnp.float32) - self.mean) / self.scale


def moments(rows: Any) -> tuple[jax.Array, jax.Array]:
    """Return the mean of rows, and the root of their mean squared distance from it per feature."""
    if not isinstance(rows, np.memmap):
        mean = rows.mean(0)
        return mean, jnp.sqrt(jnp.square(rows - mean).mean())
    starts = range(0, len(rows), _ROWS)
    total = sum(np.asarray(rows[i : i + _ROWS], np.float64).sum(0) for i in starts)
    mean = np.asarray(total / len(rows))
    spread = sum(np.square(np.asarray(rows[i : i + _ROWS], np.float64) - mean).sum() for i in starts)
    return jnp.asarray(mean, jnp.float32), jnp.asarray(np.sqrt(spread / rows.size), jnp.float32)


def of_length_one(rows: jax.Array) -> jax.Array:
    """Return rows divided by their length; zeros stay zero."""
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def encoded(x, directions, encoder, threshold, gate, *, k: int, kind: str) -> jax.Array:
    """Return the codes of rows that are centred and scaled."""
    if kind == "matching_pursuit":
        return kinds.pursued(x, directions, k)
    codes = kinds.activated(encoder, threshold, x)
    if kind == "top_k":
        return kinds.largest(codes, k)
    return jnp.where(codes > gate, codes, 0)


def train(
    plan: Plan,
    data: Data,
    key: jax.Array,
    points: jax.Array | None,
    numbers: dict[str, float],
    checkpoint: Path | None,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Return the arrays of an `Sae`, and its history."""
    start, draws = jax.random.split(key)
    rows, features = data.rows.shape
    chosen = np.asarray(jax.random.choice(start, rows, (plan.num_codes,), replace=plan.num_codes > rows))
    wobble = 0.1 * jax.random.normal(jax.random.fold_in(start, 1), (plan.num_codes, features))
    first = np.asarray(_drawn(draws, jnp.arange(1), rows, plan.examples))[0]
    state = _start(plan, data.take(chosen) + wobble, points, data.take(first))
    done, history = 0, np.zeros(plan.steps, np.float32)
    mark = _mark(plan, data, key, points, numbers)
    if checkpoint is not None and checkpoint.exists():
        done, state, history = _read(checkpoint, mark, state, history)
    together = max(1, min(plan.steps, _ROUND // (plan.examples * features)))
    while done < plan.steps:
        count = min(together, plan.steps - done)
        index = np.asarray(_drawn(draws, jnp.arange(done, done + count), rows, plan.examples))
        state, left = _round(state, data.take(index), points, numbers, plan=plan)
        history[done : done + count] = left
        done += count
        if checkpoint is not None:
            _write(checkpoint, mark, done, state, history)
    return _finished(state, points, plan), jnp.asarray(history)


@partial(jax.jit, static_argnums=(2, 3))
def _drawn(draws, steps, rows, examples):
    def one(step):
        return jax.random.randint(jax.random.fold_in(draws, step), (examples,), 0, rows, jnp.int32)

    return jax.vmap(one)(steps)


def _start(plan, chosen, points, batch):
    if plan.archetypal:
        assert points is not None
        # The same for every key; spaced evenly, since given points may be sorted.
        order = np.linspace(0, len(points) - 1, plan.num_codes).round().astype(np.int32)
        dictionary = {
            "weights": jax.nn.one_hot(order, len(points), dtype=jnp.float32),
            "offsets": jnp.zeros((plan.num_codes, chosen.shape[1]), jnp.float32),
        }
    else:
        dictionary = {"directions": of_length_one(chosen)}
    parameters: dict[str, Any] = {"dictionary": dictionary}
    if plan.kind != "matching_pursuit":
        directions = _directions(dictionary, points)
        size, gate = _suited(plan.k, directions, batch)
        parameters["encoder"] = size * directions.T
        parameters["threshold"] = jnp.zeros(plan.num_codes, jnp.float32)
        if plan.kind == "jump_relu":
            parameters["log_gate"] = jnp.full(plan.num_codes, jnp.log(size * gate), jnp.float32)
    idle = jnp.zeros(plan.num_codes, jnp.int32)
    return parameters, _optimizer(1.0, plan.steps).init(parameters), idle, jnp.float32(-1)


def _suited(k, directions, batch):
    """Return the encoder's size that explains a batch best, and the value that k codes per row exceed.

    Entries overlap, so the transposed dictionary alone explains each activation several times over: of random
    entries the reconstruction is worse than none.
    """
    codes = jax.nn.relu(batch @ directions.T)
    gate = jnp.maximum(kinds.border(codes, k * len(batch)), 1e-6)
    made = jnp.where(codes >= gate, codes, 0) @ directions
    square = jnp.square(made).sum()
    return jnp.where(square > 0, (batch * made).sum() / jnp.maximum(square, 1e-12), 1.0), gate


def _optimizer(learning_rate, steps):
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def _directions(dictionary, points):
    """Return the entries, of length one (equation 4 of Fel et al. 2025, without its common factor)."""
    if "directions" in dictionary:
        return dictionary["directions"]
    return of_length_one(dictionary["weights"] @ points + dictionary["offsets"])


def _allowed(dictionary, delta):
    """Project to valid dictionaries: entries of length one, or convex combinations and short steps."""
    if "directions" in dictionary:
        return {"directions": of_length_one(dictionary["directions"])}
    lengths = jnp.linalg.norm(dictionary["offsets"], axis=1, keepdims=True)
    return {
        "weights": _convex(dictionary["weights"]),
        "offsets": dictionary["offsets"] * jnp.minimum(1, delta / jnp.maximum(lengths, 1e-9)),
    }


def _convex(weights):
    """Return the nearest rows that are non-negative and sum to one: max(w - t, 0), with t of each row.

    A step of Adam adds about the same amount to half of a row's thousands of weights. Their sum soon exceeds
    the few large ones; if rows were divided by it, every entry would become a mean of half of the points, far
    from those that it started at.
    """

    def raised(ts):
        above = weights > ts[1]
        mean = (jnp.where(above, weights, 0).sum(1, keepdims=True) - 1) / above.sum(1, keepdims=True)
        return ts[1], jnp.maximum(ts[1], mean)

    # From below, t rises until it is the excess over one of the weights above it, divided by their number
    # (Michelot 1986).
    lowest = weights.max(1, keepdims=True) - 1
    t = jax.lax.while_loop(lambda ts: (ts[1] > ts[0]).any(), raised, (lowest - 1, lowest))[1]
    return jax.nn.relu(weights - t)


@partial(jax.jit, static_argnames="plan")
def _round(state, batches, points, numbers, *, plan):
    optimizer = _optimizer(numbers["learning_rate"], plan.steps)
    k, count = plan.k, plan.num_codes
    bandwidth = jnp.float32(_BANDWIDTH * np.sqrt(batches.shape[-1]))

    def spare(codes, directions, left, idle):
        # Dead codes learn to explain the residual of the used ones.
        found = kinds.largest(jnp.where(idle > _PATIENCE, codes, 0), min(2 * k, count))
        return _AUXILIARY * jnp.square(left - found @ directions).mean()

    def loss(parameters, batch, idle):
        directions = _directions(parameters["dictionary"], points)
        penalty, edge, number = 0.0, jnp.float32(0), jnp.float32(k)
        if plan.kind == "matching_pursuit":
            codes, used = None, kinds.pursued(batch, directions, k)
        else:
            codes = kinds.activated(parameters["encoder"], parameters["threshold"], batch)
            if plan.kind == "top_k":
                used = kinds.largest(codes, k)
            elif plan.kind == "batch_top_k":
                edge = kinds.border(jax.lax.stop_gradient(codes), k * len(batch))
                used = jnp.where(codes >= jnp.maximum(edge, 1e-12), codes, 0)
            else:
                gate = jnp.exp(parameters["log_gate"])
                used = kinds.jump_relu(codes, gate, bandwidth)
                number = kinds.number_above(codes, gate, bandwidth)
                penalty = _NUMBER * jnp.square(number / k - 1)
        rest = batch - used @ directions
        left_over = jnp.square(rest).mean()
        if codes is not None:
            # Skipped when no code is dead, which saves nearly half of a step.
            found = codes, directions, jax.lax.stop_gradient(rest), idle
            penalty += jax.lax.cond((idle > _PATIENCE).any(), spare, lambda *_: jnp.float32(0), *found)
        return left_over + penalty, (left_over, (used > 0).any(0), rest, edge, number)

    def step(carry, batch):
        parameters, state, idle, edge = carry
        slopes, (left, fired, rest, now, number) = jax.grad(loss, has_aux=True)(parameters, batch, idle)
        updates, state = optimizer.update(slopes, state)
        parameters = jax.tree.map(jnp.add, parameters, updates)
        dictionary = _allowed(parameters["dictionary"], numbers["delta"])
        idle = jnp.where(fired, 0, idle + 1)
        if plan.kind == "matching_pursuit":
            dictionary, idle = _revived(dictionary, idle, rest, points)
        parameters = {**parameters, "dictionary": dictionary}
        if plan.kind != "matching_pursuit":
            parameters["encoder"] = parameters["encoder"] * jnp.where(idle > _PATIENCE, _GROWTH, 1.0)
        if plan.kind == "jump_relu":
            # Gates that no activation is near have no pseudo-derivative; the number of codes is held at k.
            shift = _HOLD * (number / k - 1)
            parameters["log_gate"] = parameters["log_gate"] + jnp.clip(shift, -_HOLD, _HOLD)
        edge = jnp.where(edge < 0, now, _BORDER_MEMORY * edge + (1 - _BORDER_MEMORY) * now)
        return (parameters, state, idle, edge), left

    return jax.lax.scan(step, state, batches)


def _revived(dictionary, idle, rest, points):
    """Replace dead entries by the activations that are explained worst."""
    order = jnp.argsort(-jnp.square(rest).sum(1))
    dead = idle > _PATIENCE
    # The first dead entry takes the worst row, and so on; entries beyond the number of rows wait.
    rank = jnp.cumsum(dead) - 1
    row = of_length_one(rest)[order[jnp.minimum(rank, len(rest) - 1)]]
    dead &= rank < len(rest)
    if "directions" in dictionary:
        revived = {"directions": jnp.where(dead[:, None], row, dictionary["directions"])}
    else:
        nearest = jax.nn.one_hot(jnp.argmax(row @ of_length_one(points).T, 1), len(points), dtype=row.dtype)
        revived = {
            "weights": jnp.where(dead[:, None], nearest, dictionary["weights"]),
            "offsets": jnp.where(dead[:, None], 0, dictionary["offsets"]),
        }
    return revived, jnp.where(dead, 0, idle)


def _finished(state, points, plan):
    parameters, _, _, edge = state
    directions = _directions(parameters["dictionary"], points)
    gate = jnp.zeros(plan.num_codes, jnp.float32)
    if plan.kind == "jump_relu":
        gate = jnp.exp(parameters["log_gate"])
    elif plan.kind == "batch_top_k":
        gate = jnp.full_like(gate, edge)
    return {
        "directions": directions,
        "encoder": parameters.get("encoder", directions.T),
        "threshold": parameters.get("threshold", jnp.zeros_like(gate)),
        "gate": gate,
    }


def measured(found: dict[str, jax.Array], data: Data, *, k: int, kind: str) -> tuple[jax.Array, ...]:
    """Return R2, the mean number of codes, and the fraction of rows that use each code, over all rows."""
    left = total = 0.0
    usage = np.zeros(len(found["directions"]), np.float64)
    for part in data.parts():
        rest, whole, used = _measured(found, part, k=k, kind=kind)
        left, total = left + float(rest), total + float(whole)
        usage += np.asarray(used, np.float64)
    usage /= len(data.rows)
    return tuple(jnp.asarray(value, jnp.float32) for value in (1 - left / total, usage.sum(), usage))


@partial(jax.jit, static_argnames=("k", "kind"))
def _measured(found, x, *, k, kind):
    used = encoded(x, **found, k=k, kind=kind)
    return jnp.square(x - used @ found["directions"]).sum(), jnp.square(x).sum(), (used > 0).sum(0)


def centres(data: Data, count: int) -> jax.Array:
    """Return the centres of `count` clusters of the rows, or of a subset if there are many; deterministic."""
    rng = np.random.default_rng(0)
    some = rng.permutation(len(data.rows))[: max(16 * count, _ROWS)]
    rows = data.take(np.sort(some))
    return _centres(rows, rows[jnp.asarray(rng.permutation(len(rows))[:count])])


@jax.jit
def _centres(rows, start):
    def nearest(part, centres):
        return jnp.argmin(jnp.square(centres).sum(1)[None] - 2 * part @ centres.T, axis=1)

    def step(centres, _):
        place = jax.lax.map(lambda row: nearest(row[None], centres)[0], rows, batch_size=1024)
        number = jnp.zeros(len(centres)).at[place].add(1)
        total = jnp.zeros_like(centres).at[place].add(rows)
        return jnp.where((number > 0)[:, None], total / jnp.maximum(number, 1)[:, None], centres), None

    return jax.lax.scan(step, start, length=_CLUSTERINGS)[0]


def _mark(plan, data, key, points, numbers):
    """Return a line with the settings that a checkpoint must match."""
    sums = [float(data.scale), *np.asarray(data.mean[:4], np.float64).tolist()]
    given = "" if points is None else hashlib.sha256(np.asarray(points).tobytes()).hexdigest()
    drawn = np.asarray(jax.random.key_data(key)).tolist()
    facts = [dataclasses.asdict(plan), list(data.rows.shape), sums, given, drawn, numbers]
    return json.dumps(facts, sort_keys=True)


def _write(path, mark, done, state, history):
    leaves: dict[str, Any] = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    with _files.file(path) as new, open(new, "wb") as out:
        np.savez(out, mark=np.array(mark), done=np.array(done), history=history, **leaves)


def _read(path, mark, state, history):
    leaves, tree = jax.tree.flatten(state)
    shown = _files.shown(path, 200)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["mark"]) != mark:
                raise _Another
            found = [jnp.asarray(stored[f"leaf{i}"]) for i in range(len(leaves))]
            return int(stored["done"]), jax.tree.unflatten(tree, found), stored["history"].copy()
    except _Another:
        raise ValueError(
            f"`checkpoint` {shown} is of a training with other activations, options or key; name another file"
        ) from None
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"`checkpoint` {shown} is no state of a training that can be read") from error


class _Another(Exception):
    """The checkpoint belongs to another training."""
