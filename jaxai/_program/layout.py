"""The axes of a value that run along the images' height and width, read from the program."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .axes import (
    BEFORE,
    FIXED,
    MIXED,
    UNKNOWN,
    Axes,
    Axis,
    cut_tokens,
    fits,
    grid_of,
    names_of,
    running,
    size_of,
)
from .control_flow import REMAT, scan_counts
from .facts import Window, fact
from .graph import CUSTOM, Graph, Node, graph_of
from .layouts import NCHW, NHWC, Layout, Tokens
from .run import Each, evaluate, values


def of(graph: Graph) -> Axes | None:
    """Return the image axes of a graph's only result: each axis runs along height, width, both or neither.

    Args:
        graph: A graph whose last input are images [batch, height, width, channels].

    Returns:
        The axes, or None if an operation cannot be followed.
    """
    (out,) = evaluate(graph, _images(graph), each=_each(graph))
    if out is UNKNOWN:
        return None
    return out if isinstance(out, tuple) else ((),) * len(graph.shape(graph.outputs[0]))


def of_values(graph: Graph) -> dict[int, Axes | None]:
    """Return the image axes of each value of a graph, as `of` does for the result."""
    found = values(graph, _images(graph), each=_each(graph))
    return {
        value: None
        if axes is UNKNOWN
        else axes
        if isinstance(axes, tuple)
        else ((),) * len(graph.shape(value))
        for value, axes in found.items()
    }


def _images(graph):
    shape = graph.shape(graph.inputs[-1])
    if len(shape) != 4:
        return [FIXED] * (len(graph.inputs) - 1) + [UNKNOWN]
    images: Axes = ((), running("height", shape[1]), running("width", shape[2]), ())
    return [*[FIXED] * (len(graph.inputs) - 1), images]


def reaches(graph: Graph, axes: Axes | None) -> bool:
    """Return whether a result depends on positions of the graph's first input, which has these axes.

    It does not if only tokens outside the grid are read.
    """
    args = [axes or UNKNOWN, *[FIXED] * (len(graph.inputs) - 1)]
    return any(out is not FIXED for out in map(_axes, evaluate(graph, args, each=_unmixed(graph))))


def _unmixed(graph):
    return partial(_results_unmixed, graph)


def _results_unmixed(graph: Graph, node: Node, operands: Sequence[Any]) -> list[Any]:
    """Follow axes like `_results`; where grid tokens are mixed with others, all results depend on them."""
    if _bodies(graph, node) is None and _mixes(graph, node, operands):
        return [UNKNOWN] * len(node.outputs)
    return _results(graph, node, operands, _unmixed)


def _mixes(graph: Graph, node: Node, operands: Sequence[Any]) -> bool:
    known, params = fact(node.name), node.params
    if known.elementwise or known.rearranges:
        return False
    shapes = [graph.shape(ref) for ref in (*node.inputs, *node.outputs)]
    for place, axes in enumerate(operands):
        for axis in [i for i, x in enumerate(axes) if len(x) > 1] if isinstance(axes, tuple) else []:
            if node.name == "dot_general":
                if axis in params["dimension_numbers"][0][place]:
                    return True
            elif not isinstance(known.window(params, shapes, axis), Window):
                return True
    return False


def name(axes: Axes, shape: Sequence[int], batch: int | None = None) -> Layout | None:
    """Return the layout of a value [batch, ...], None if it is not laid out like an image.

    An axis of length one fits any image axis. With the number of images, tokens may lie before the batch.
    """
    if len(shape) == 3:
        second = batch is not None and shape[1] == batch
        return _tokens(axes, shape, 1) or (_tokens(axes, shape, 0) if second else None)
    if len(shape) != 4 or batch not in (None, shape[0]):
        return None
    for layout, (height, width, channels) in ((NHWC, (1, 2, 3)), (NCHW, (2, 3, 1))):
        found = [(shape[height], axes[height], {"height"}), (shape[width], axes[width], {"width"})]
        if not axes[channels] and all(size == 1 or names_of(axis) == names for size, axis, names in found):
            return layout
    return None


def _tokens(axes, shape, place) -> Tokens | None:
    axis = axes[place]
    if axes[1 - place] or axes[2] or not axis:
        return None
    prefix = axis[0][1] if axis[0][0] == BEFORE else 0
    parts = grid_of(axis)
    order = [part for part, _ in parts]
    rows = [size for part, size in parts if part == "height"]
    if set(order) != {"height", "width"} or order != sorted(order):
        return None
    grid = size_of(parts[: len(rows)]), size_of(parts[len(rows) :])
    return Tokens(grid, prefix, place) if 0 < size_of(parts) <= shape[place] - prefix else None


def _each(graph):
    return partial(_results, graph)


def _results(
    graph: Graph, node: Node, operands: Sequence[Any], each: Callable[[Graph], Each] = _each
) -> list[Any]:
    """Return the image axes of the results; operands are axes, `FIXED`, `UNKNOWN` or arrays."""
    followed = {place: axes for place, axes in enumerate(operands) if isinstance(axes, tuple)}
    if any(axes is UNKNOWN for axes in operands):
        return [UNKNOWN] * len(node.outputs)
    if not followed:
        return [FIXED] * len(node.outputs)
    bodies = _bodies(graph, node)
    if bodies is not None:
        return _of_bodies(node, bodies, operands, each)
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
                        length = graph.shape(node.inputs[place])[axis]
                        other = along if length == shape[target] or len(along) == 1 else MIXED
                        result[target] = _joined(result[target], other, shape[target])
    return cut_tokens(graph, node, operands, followed, found)


def _joined(before: Axis, along: Axis, size: int) -> Axis:
    """Return an axis common to several operands, or one whose length differs from its operand's."""
    if len(along) == 1:
        along = ((along[0][0], size),)
    if fits(before, size) and names_of(before) >= names_of(along):
        return before
    return along if names_of(along) >= names_of(before) else grid_of(before) + grid_of(along)


def _bodies(graph: Graph, node: Node) -> list[Graph] | None:
    """Return the graphs of the functions that a node runs, if it is a region, a loop or a branch."""
    if node.name in CUSTOM:
        return [graph_of(node.params[CUSTOM[node.name]])]
    return list(node.bodies) if node.name in (*REMAT, "scan", "cond") and node.bodies else None


def _of_bodies(
    node: Node, bodies: list[Graph], operands: Sequence[Any], each: Callable[[Graph], Each]
) -> list[Any]:
    if node.name == "scan":
        return _of_scan(node, bodies[0], list(operands), each)
    operands = operands[1:] if node.name == "cond" else operands
    ways = [[_axes(out) for out in evaluate(body, operands, each=each(body))] for body in bodies]
    return [_either(results) for results in zip(*ways, strict=True)]


def _axes(out):
    return out if isinstance(out, tuple) or out is UNKNOWN else FIXED


def _either(results):
    found = {out for out in results if out is not FIXED}
    return FIXED if not found else found.pop() if len(found) == 1 else UNKNOWN


def _of_scan(node: Node, body: Graph, operands: list[Any], each: Callable[[Graph], Each]) -> list[Any]:
    consts, carry = scan_counts(node.params)
    fixed, state, xs = operands[:consts], operands[consts : consts + carry], operands[consts + carry :]
    if any(isinstance(x, tuple) and x[0] for x in xs):
        return [UNKNOWN] * len(node.outputs)
    xs = [x[1:] if isinstance(x, tuple) else UNKNOWN if x is UNKNOWN else FIXED for x in xs]
    # The axes of the state settle after a few steps, or are unknown.
    for _ in range(4):
        out = [_axes(x) for x in evaluate(body, [*fixed, *state, *xs], each=each(body))]
        new = [_either((old, x)) for old, x in zip(map(_axes, state), out[:carry], strict=True)]
        if new == state:
            break
        state = new
    else:
        state = [UNKNOWN] * carry
    return [*state, *[((), *y) if isinstance(y, tuple) else y for y in out[carry:]]]


def _targets(
    graph: Graph, node: Node, place: int, axis: int, followed: dict[int, Axes]
) -> Sequence[int] | None:
    """Return the axes of the results that continue an operand's axis; None if unknown."""
    axis, params, shapes = int(axis), node.params, [graph.shape(ref) for ref in (*node.inputs, *node.outputs)]
    known = fact(node.name)
    if known.aligned:
        return (axis,) if len(shapes[place]) == len(shapes[-1]) else None
    if node.name == "conv_general_dilated" and place == 0:
        numbers = params["dimension_numbers"]
        where = numbers.lhs_spec.index(axis)
        return (int(numbers.out_spec[where]),) if where != 1 else ()
    if node.name == "dot_general":
        return _product(params, shapes, place, axis, _summed(node, place, axis, followed))
    if node.name == "gather" and place == 0:
        return _gathered(params["dimension_numbers"], axis, len(shapes[-1]))
    if node.name == "gather" or (node.name.startswith("dynamic") and place > 1):
        return ()
    if node.name == "stack" or place == 0:
        reads = known.window(params, shapes, axis)
        return (int(reads.axis),) if isinstance(reads, Window) else () if reads == "all" else None
    return None


def _summed(node: Node, place: int, axis: int, followed: dict[int, Axes]) -> bool:
    """Return whether a product sums over an axis along which both operands run: attention to values."""
    contracted, other = node.params["dimension_numbers"][0], 1 - place
    if other not in followed or axis not in contracted[place]:
        return False
    return bool(followed[other][contracted[other][contracted[place].index(axis)]])


def _product(params: dict[str, Any], shapes, place: int, axis: int, summed: bool) -> Sequence[int] | None:
    """Follow an axis through a product; an axis summed with weights becomes the weights' other axis."""
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
    # Resizing and token mixing: one new axis replaces the old one.
    other = 1 - place
    return (start + other * len(free[0]),) if len(free[other]) == 1 else () if not free[other] else None


def _gathered(numbers, axis: int, rank: int) -> Sequence[int] | None:
    dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    if axis in dropped:
        # One entry of the axis, or entries by index, in any order.
        return () if len(numbers.offset_dims) == rank else None
    return (numbers.offset_dims[axis - sum(d < axis for d in dropped)],)


def _reshaped(axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes | None:
    """Return the axes of the same values in another shape: parts are merged and split again."""
    found: list[Axis] = []
    i = j = 0
    while j < len(after) or i < len(before):
        if i < len(before) and j < len(after) and before[i] == after[j]:
            found.append(axes[i])
            i, j = i + 1, j + 1
            continue
        # The smallest blocks of both shapes that hold equally many values.
        first, second, left, right = i, j, 1, 1
        while i == first or j == second or left != right:
            take = i == first or (j > second and left < right) or j == len(after)
            if i < len(before) and take:
                left, i = left * before[i], i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                break
        parts: list[tuple[Any, int]] = []
        olds = [axis for axis in range(first, i) if before[axis] != 1]
        news = [axis for axis in range(second, j) if after[axis] != 1]
        if len(olds) == len(news) == 1:
            found.extend(axes[olds[0]] if axis in news else () for axis in range(second, j))
            continue
        for axis in range(first, i):
            size = before[axis]
            if not axes[axis]:
                parts.append(("", size))
            elif len(axes[axis]) == 1:
                parts.append((axes[axis][0][0], size))
            elif axes[axis][0][0] != BEFORE and size_of(axes[axis]) == size:
                parts.extend(axes[axis])
            else:
                parts.append((axes[axis], size))
        split = _split(parts, after[second:j])
        if split is None:
            return None
        found.extend(split)
    return tuple(found)


def _split(parts: list[tuple[Any, int]], sizes: Sequence[int]) -> list[Axis] | None:
    """Distribute parts over axes of these lengths; if a part is cut, its major piece keeps the name.

    Axes that were merged as one part are not cut.
    """
    rest, found = [part for part in parts if part[1] > 1], []
    for size in sizes:
        axis: list[tuple[Any, int]] = []
        while size > 1:
            if not rest:
                return None
            along, length = rest.pop(0)
            if length > size:
                if length % size or isinstance(along, tuple):
                    return None
                rest.insert(0, ("", length // size))
                length = size
            elif size % length:
                return None
            axis.append((along, length))
            size //= length
        whole = len(axis) == 1 and isinstance(axis[0][0], tuple)
        found.append(axis[0][0] if whole else tuple(axis) if any(along for along, _ in axis) else ())
    return found
