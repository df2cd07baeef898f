"""Which axis of a value runs along the images' height and which along their width, read from the program."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from .facts import Window, fact
from .graph import Graph, Node
from .run import evaluate

# An axis as the parts that were merged into it, major first: what of the images each runs along, its length.
Axis = tuple[tuple[str, int], ...]
Axes = tuple[Axis, ...]

NHWC, NCHW = "NHWC", "NCHW"
# What the axes of a value run along: what images do not reach runs along nothing, and some cannot be told.
FIXED, UNKNOWN = "fixed", "unknown"


def of(graph: Graph) -> Axes | None:
    """Return what the axes of a graph's only result run along: the images' height, width, both or neither.

    Args:
        graph: A flat graph whose last input are images [batch, height, width, channels].

    Returns:
        The axes, or None if an operation cannot be followed.
    """
    _, height, width, _ = graph.shape(graph.inputs[-1])
    images: Axes = ((), _axis("height", height), _axis("width", width), ())
    args = [*[FIXED] * (len(graph.inputs) - 1), images]
    (out,) = evaluate(graph, args, each=partial(_results, graph))
    if out is UNKNOWN:
        return None
    return out if isinstance(out, tuple) else ((),) * len(graph.shape(graph.outputs[0]))


def name(axes: Axes, shape: Sequence[int]) -> str | None:
    """Return "NHWC" or "NCHW" if a value [batch, ...] is laid out so, otherwise None.

    An axis of length one may stand for any.
    """
    for layout, (height, width, channels) in ((NHWC, (1, 2, 3)), (NCHW, (2, 3, 1))):
        found = [(shape[height], axes[height], {"height"}), (shape[width], axes[width], {"width"})]
        if not axes[channels] and all(size == 1 or _names(axis) == names for size, axis, names in found):
            return layout
    return None


def _axis(along: str, size: int) -> Axis:
    return ((along, size),) if size > 1 else ()


def _names(axis: Axis) -> set[str]:
    return {along for along, _ in axis if along}


def _size(axis: Axis) -> int:
    total = 1
    for _, size in axis:
        total *= size
    return total


def _results(graph: Graph, node: Node, operands: Sequence[Any]) -> list[Any]:
    """Return what the results' axes run along; operands are axes, `FIXED`, `UNKNOWN` or arrays."""
    followed = {place: axes for place, axes in enumerate(operands) if isinstance(axes, tuple)}
    if any(axes is UNKNOWN for axes in operands):
        return [UNKNOWN] * len(node.outputs)
    if not followed:
        return [FIXED] * len(node.outputs)
    if node.name == "reshape":
        return [_reshaped(followed[0], graph.shape(node.inputs[0]), graph.shape(node.outputs[0])) or UNKNOWN]
    shapes = [graph.shape(ref) for ref in node.outputs]
    found: list[list[Axis]] = [[()] * len(shape) for shape in shapes]
    for place, axes in followed.items():
        for axis, along in enumerate(axes):
            targets = _targets(graph, node, place, axis, followed) if along else ()
            if targets is None:
                return [UNKNOWN] * len(shapes)
            for result, shape in zip(found, shapes, strict=True):
                for target in targets:
                    if target < len(shape) and shape[target] > 1:
                        result[target] = _joined(result[target], along, shape[target])
    return [tuple(axes) for axes in found]


def _joined(before: Axis, along: Axis, size: int) -> Axis:
    """Return an axis of several operands, or of another length than its operand."""
    if len(along) == 1:
        along = ((along[0][0], size),)
    fits = _size(before) == size and _names(before) >= _names(along)
    return before if fits else along if _names(along) >= _names(before) else before + along


def _targets(
    graph: Graph, node: Node, place: int, axis: int, followed: dict[int, Axes]
) -> Sequence[int] | None:
    """Return the axes of the results along which an operand's axis runs on; None if that is unknown."""
    params, shapes = node.params, [graph.shape(ref) for ref in (*node.inputs, *node.outputs)]
    known = fact(node.name)
    if known.aligned:
        return (axis,) if len(shapes[place]) == len(shapes[-1]) else None
    if node.name == "conv_general_dilated" and place == 0:
        numbers = params["dimension_numbers"]
        where = numbers.lhs_spec.index(axis)
        return (numbers.out_spec[where],) if where != 1 else ()
    if node.name == "dot_general":
        return _product(params, shapes, place, axis, _summed(node, place, axis, followed))
    if node.name == "gather" and place == 0:
        return _gathered(params["dimension_numbers"], axis, len(shapes[-1]))
    if node.name == "gather" or (node.name.startswith("dynamic") and place > 1):
        return ()
    if node.name == "stack" or place == 0:
        reads = known.window(params, shapes, axis)
        return (reads.axis,) if isinstance(reads, Window) else () if reads == "all" else None
    return None


def _summed(node: Node, place: int, axis: int, followed: dict[int, Axes]) -> bool:
    """Return whether a product sums over an axis along which both operands run: attention to values."""
    contracted, other = node.params["dimension_numbers"][0], 1 - place
    if other not in followed or axis not in contracted[place]:
        return False
    return bool(followed[other][contracted[other][contracted[place].index(axis)]])


def _product(params: dict[str, Any], shapes, place: int, axis: int, summed: bool) -> Sequence[int] | None:
    """Follow an axis through a product; one that is summed with weights becomes the weights' other axis."""
    contracted, batch = params["dimension_numbers"]
    free = [
        [a for a in range(len(shapes[side])) if a not in (*contracted[side], *batch[side])] for side in (0, 1)
    ]
    start = len(batch[0])
    if axis in batch[place]:
        return (batch[place].index(axis),)
    if axis in free[place]:
        return (start + place * len(free[0]) + free[place].index(axis),)
    if summed:
        return ()
    # Resizing and token mixing: one new axis in the place of the old one.
    other = 1 - place
    return (start + other * len(free[0]),) if len(free[other]) == 1 else () if not free[other] else None


def _gathered(numbers, axis: int, rank: int) -> Sequence[int] | None:
    dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    if axis in dropped:
        # One place of the axis, or places by an index, in any order.
        return () if len(numbers.offset_dims) == rank else None
    return (numbers.offset_dims[axis - sum(d < axis for d in dropped)],)


def _reshaped(axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes | None:
    """Return the axes of the same values in another shape: parts are merged, and taken apart again."""
    found: list[Axis] = []
    i = j = 0
    while j < len(after) or i < len(before):
        # The smallest blocks of both shapes that hold as many values.
        first, second, left, right = i, j, 1, 1
        while i == first or j == second or left != right:
            if i < len(before) and (left <= right or j == len(after)):
                left, i = left * before[i], i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                break
        parts: list[tuple[str, int]] = []
        if i - first == j - second == 1:
            found.append(axes[first])
            continue
        for axis in range(first, i):
            size = before[axis]
            if not axes[axis]:
                parts.append(("", size))
            elif len(axes[axis]) == 1:
                parts.append((axes[axis][0][0], size))
            elif _size(axes[axis]) == size:
                parts.extend(axes[axis])
            else:
                return None
        split = _split(parts, after[second:j])
        if split is None:
            return None
        found.extend(split)
    return tuple(found)


def _split(parts: list[tuple[str, int]], sizes: Sequence[int]) -> list[Axis] | None:
    """Distribute parts over axes of these lengths; of a part that is cut, the major piece keeps its name."""
    rest, found = [part for part in parts if part[1] > 1], []
    for size in sizes:
        axis: list[tuple[str, int]] = []
        while size > 1:
            if not rest:
                return None
            along, length = rest.pop(0)
            if length > size:
                if length % size:
                    return None
                rest.insert(0, ("", length // size))
                length = size
            elif size % length:
                return None
            axis.append((along, length))
            size //= length
        found.append(tuple(axis) if any(along for along, _ in axis) else ())
    return found
