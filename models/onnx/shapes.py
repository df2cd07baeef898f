"""Operators that move values: shapes, slices, joins, copies."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from .elementwise import type_of
from .node import Node, Result, operator
from .values import Value, aligned, bounded, channels_last, integers, last, numpy_of, plain, space


def _options(node: Node, value: Value | None, name: str) -> list[int] | None:
    """Return integers that are an attribute in older files and an input in newer ones."""
    return node.whole(name) if value is None else integers(value, name)


@operator("Shape")
def _shape(node: Node, x: Value) -> Result:
    shape = x.shape[node.get("start", 0) : node.attributes.get("end")]
    return plain(np.asarray(shape, np.int64))


@operator("Size")
def _size(node: Node, x: Value) -> Result:
    return plain(np.asarray(math.prod(x.shape), np.int64))


@operator("Constant")
def _constant(node: Node) -> Result:
    for name, value in node.attributes.items():
        if name.startswith("value"):
            # From opset 12 on there are attributes for single numbers and strings.
            kind = {"value_float": np.float32, "value_floats": np.float32}.get(name)
            return plain(np.asarray(value, kind))
    raise ValueError("a constant of a kind that is not supported")


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, shape: Value) -> Result:
    value = np.ravel(node.attributes.get("value", np.zeros(1, np.float32)))
    return plain(np.full(bounded(integers(shape, "the shape")), value[0]))


@operator("EyeLike")
def _eye_like(node: Node, x: Value) -> Result:
    dtype = type_of(node.attributes["dtype"]) if "dtype" in node.attributes else x.dtype
    rows, columns = bounded(x.shape)
    return plain(np.eye(rows, columns, node.get("k", 0), dtype))


@operator("Range")
def _range(node: Node, start: Value, limit: Value, delta: Value) -> Result:
    numbers = [numpy_of(value, "the range").ravel()[0] for value in (start, limit, delta)]
    bounded([max(0, math.ceil((numbers[1] - numbers[0]) / numbers[2]))])
    return plain(np.arange(*numbers, dtype=start.dtype))


@operator("NonZero")
def _non_zero(node: Node, x: Value) -> Result:
    return plain(np.asarray(np.nonzero(numpy_of(x, "the input")), np.int64))


@operator("Reshape")
def _reshape(node: Node, x: Value, shape: Value | None = None) -> Result:
    wanted = _options(node, shape, "shape")
    if wanted is None:
        raise ValueError("no shape")
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return reshaped(x, wanted)


def reshaped(x: Value, shape: list[int]) -> Value:
    """Return a value in another shape, without a transposition where the order of its axes allows it."""
    if -1 in shape:
        rest = math.prod(size for size in shape if size != -1)
        count = math.prod(x.shape)
        if shape.count(-1) > 1 or rest <= 0 or count % rest:
            raise ValueError(f"shape {list(x.shape)} as {shape}")
        shape = [count // rest if size == -1 else size for size in shape]
    if math.prod(shape) != math.prod(x.shape):
        raise ValueError(f"shape {list(x.shape)} as {shape}")
    if not x.is_plain and x.rank > 2 and x.order == channels_last(x.rank):
        batch, channels, *sizes = x.shape
        if math.prod(sizes) == 1 or channels == 1:
            return plain(x.array.reshape(shape))
        if len(shape) > 2 and shape[:2] == [batch, channels]:
            # Only the numbering of the positions differs.
            return last(x.array.reshape(batch, *shape[2:], channels))
    return plain(x.plain.reshape(shape))


@operator("Flatten")
def _flatten(node: Node, x: Value) -> Result:
    axis = node.get("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    if not 0 <= axis <= x.rank:
        raise ValueError(f"axis {axis} of an array of {x.rank} axes")
    return reshaped(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])


@operator("Squeeze")
def _squeeze(node: Node, x: Value, axes: Value | None = None) -> Result:
    given = _options(node, axes, "axes")
    drop = [i for i, size in enumerate(x.shape) if size == 1] if given is None else given
    drop = {axis % x.rank if -x.rank <= axis < x.rank else -1 for axis in drop}
    if any(axis < 0 or x.shape[axis] != 1 for axis in drop):
        raise ValueError(f"axes {given} of shape {list(x.shape)} are not of size 1")
    return reshaped(x, [size for i, size in enumerate(x.shape) if i not in drop])


@operator("Unsqueeze")
def _unsqueeze(node: Node, x: Value, axes: Value | None = None) -> Result:
    given = _options(node, axes, "axes") or []
    rank = x.rank + len(given)
    places = {axis + rank if axis < 0 else axis for axis in given}
    sizes = iter(x.shape)
    if len(places) != len(given) or not places <= set(range(rank)):
        raise ValueError(f"axes {given} of {rank}")
    return reshaped(x, [1 if i in places else next(sizes) for i in range(rank)])


@operator("Transpose")
def _transpose(node: Node, x: Value) -> Result:
    moves = node.whole("perm")
    moves = list(range(x.rank))[::-1] if moves is None else moves
    if sorted(moves) != list(range(x.rank)):
        raise ValueError(f"attribute perm must name each of {x.rank} axes once; got {moves}")
    # Nothing moves yet: the same array, with its axes numbered otherwise.
    return Value(x.array, tuple(moves.index(axis) for axis in x.order))


@operator("Concat")
def _concat(node: Node, *values: Value) -> Result:
    axis = node.get("axis", 1)
    largest = max(values, key=lambda value: (not value.static, value.array.size))
    arrays = [value.ordered(largest.order) for value in values]
    dtype = largest.dtype
    if not all(value.static for value in values):
        arrays = [jnp.asarray(array).astype(dtype) for array in arrays]
    return largest.like(space(*arrays).concatenate(arrays, largest.axis(axis)))


@operator("Split")
def _split(node: Node, x: Value, sizes: Value | None = None) -> Result:
    parts, place = _options(node, sizes, "split"), x.axis(node.get("axis", 0))
    size = x.array.shape[place]
    if parts is None:
        count = node.get("num_outputs", len(node.outputs))
        each = -(-size // count)
        parts = [max(0, min(each, size - i * each)) for i in range(count)]
    if sum(parts) != size or len(parts) < len(node.outputs) or min(parts) < 0:
        raise ValueError(f"parts of {parts} of size {size}")
    ends = np.cumsum(parts)
    return tuple(
        x.like(_cut(x.array, place, int(end - part), int(end))) for part, end in zip(parts, ends, strict=True)
    )


def _cut(array: Any, place: int, start: int, end: int) -> Any:
    return array[(slice(None),) * place + (slice(start, end),)]


@operator("Slice")
def _slice(
    node: Node,
    x: Value,
    starts: Value | None = None,
    ends: Value | None = None,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Result:
    first, end = _options(node, starts, "starts"), _options(node, ends, "ends")
    if first is None or end is None or len(first) != len(end):
        raise ValueError("starts and ends")
    which = _options(node, axes, "axes")
    which = list(range(len(first))) if which is None else which
    by = [1] * len(first) if steps is None else integers(steps, "steps")
    index = [slice(None)] * x.rank
    for axis, start, stop, step in zip(which, first, end, by, strict=True):
        place = x.axis(axis)
        size = x.array.shape[place]
        if step == 0:
            raise ValueError("steps of 0")
        if step > 0:
            index[place] = slice(*slice(start, stop, step).indices(size))
            continue
        # Backwards the end may lie before the first entry, which Python cannot write as a number.
        start, stop, step = slice(start, stop if stop >= -size else None, step).indices(size)
        index[place] = slice(start, stop if stop >= 0 else None, step)
    return x.like(x.array[tuple(index)])


@operator("Gather")
def _gather(node: Node, x: Value, indices: Value) -> Result:
    axis = node.get("axis", 0)
    place = x.axis(axis)
    where = indices.plain
    if x.static and indices.static:
        return plain(np.asarray(np.take(x.plain, where, axis)))
    if indices.static:
        size = x.array.shape[place]
        if where.size and not (-size <= where.min() and where.max() < size):
            raise ValueError(f"an index out of {size}")
        where = np.where(where < 0, where + size, where)
        if where.ndim == 0:
            taken = _cut(x.array, place, int(where), int(where) + 1).squeeze(place)
            order = [a - (a > axis % x.rank) for a in x.order if a != axis % x.rank]
            return Value(taken, tuple(order))
    if indices.rank == 1:
        return x.like(jnp.take(x.array, where, place, mode="clip"))
    return plain(jnp.take(x.plain, where, axis, mode="clip"))


@operator("GatherElements")
def _gather_elements(node: Node, x: Value, indices: Value) -> Result:
    axis = node.get("axis", 0)
    return plain(space(x.array, indices.array).take_along_axis(x.plain, indices.plain, axis))


@operator("GatherND")
def _gather_nd(node: Node, x: Value, indices: Value) -> Result:
    if node.get("batch_dims", 0):
        raise ValueError("attribute batch_dims is not supported")
    array = x.plain if indices.static else jnp.asarray(x.plain)
    return plain(
        array[
            tuple(np.moveaxis(indices.plain, -1, 0) if indices.static else jnp.moveaxis(indices.plain, -1, 0))
        ]
    )


@operator("ScatterND")
def _scatter_nd(node: Node, x: Value, indices: Value, updates: Value) -> Result:
    if node.get("reduction", "none") != "none":
        raise ValueError("attribute reduction is not supported")
    where = tuple(np.moveaxis(numpy_of(indices, "indices"), -1, 0))
    if x.static and updates.static:
        array = x.plain.copy()
        array[where] = updates.plain
        return plain(array)
    return plain(jnp.asarray(x.plain).at[where].set(updates.plain))


@operator("Expand")
def _expand(node: Node, x: Value, shape: Value) -> Result:
    wanted = integers(shape, "the shape")
    widened = aligned([x, plain(np.empty((1,) * len(wanted)))])[0][0] if x.rank < len(wanted) else x.plain
    full = np.broadcast_shapes(widened.shape, tuple(wanted))
    return plain(space(widened).broadcast_to(widened, bounded(full) if x.static else full))


@operator("Tile")
def _tile(node: Node, x: Value, repeats: Value) -> Result:
    counts = integers(repeats, "repeats")
    bounded([size * count for size, count in zip(x.shape, counts, strict=True)])
    return x.like(space(x.array).tile(x.array, [counts[axis] for axis in x.order]))


_PADDING = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@operator("Pad")
def _pad(
    node: Node, x: Value, pads: Value | None = None, fill: Value | None = None, axes: Value | None = None
) -> Result:
    widths = _options(node, pads, "pads")
    which = list(range(x.rank)) if axes is None else integers(axes, "axes")
    if widths is None or len(widths) != 2 * len(which):
        raise ValueError("pads must be two for each axis")
    mode = node.get("mode", "constant")
    if mode not in _PADDING:
        raise ValueError(f"mode {mode!r}")
    around = [(0, 0)] * x.rank
    for axis, before, after in zip(which, widths, widths[len(which) :], strict=False):
        around[x.axis(axis)] = before, after
    array = x.array
    for place, (before, after) in enumerate(around):
        # Negative widths cut.
        array = _cut(array, place, max(0, -before), array.shape[place] - max(0, -after))
    around = [(max(0, before), max(0, after)) for before, after in around]
    bounded([size + sum(pair) for size, pair in zip(array.shape, around, strict=True)])
    if mode != "constant":
        return x.like(space(array).pad(array, around, mode=mode))
    value: Any = node.get("value", 0.0) if fill is None else fill.array.ravel()[0]
    if not x.static and not isinstance(value, float):
        value = jnp.asarray(value).astype(x.dtype)
    return x.like(space(array).pad(array, around, constant_values=value))


@operator("DepthToSpace")
def _depth_to_space(node: Node, x: Value) -> Result:
    block, array = node.get("blocksize", 0), x.last
    batch, height, width, channels = array.shape
    features = channels // block**2
    if node.get("mode", "DCR") == "DCR":
        split = array.reshape(batch, height, width, block, block, features).transpose(0, 1, 3, 2, 4, 5)
    else:
        split = array.reshape(batch, height, width, features, block, block).transpose(0, 1, 4, 2, 5, 3)
    return last(split.reshape(batch, height * block, width * block, features))


@operator("SpaceToDepth")
def _space_to_depth(node: Node, x: Value) -> Result:
    block, array = node.get("blocksize", 0), x.last
    batch, height, width, channels = array.shape
    split = array.reshape(batch, height // block, block, width // block, block, channels)
    joined = split.transpose(0, 1, 3, 2, 4, 5)
    return last(joined.reshape(batch, height // block, width // block, block**2 * channels))


@operator("OneHot")
def _one_hot(node: Node, indices: Value, depth: Value, values: Value) -> Result:
    count = int(numpy_of(depth, "depth").ravel()[0])
    where, off_on = indices.plain, values.plain
    bounded([*indices.shape, count])
    axis = node.get("axis", -1)
    hot = jnp.expand_dims(where % count, axis) == jnp.arange(count).reshape(
        [-1 if i == axis % (indices.rank + 1) else 1 for i in range(indices.rank + 1)]
    )
    return plain(jnp.where(hot, off_on[1], off_on[0]))


@operator("Trilu")
def _trilu(node: Node, x: Value, k: Value | None = None) -> Result:
    by = 0 if k is None else int(numpy_of(k, "k").ravel()[0])
    array, xp = x.plain, space(x.array)
    return plain(xp.triu(array, by) if node.get("upper", 1) else xp.tril(array, by))
