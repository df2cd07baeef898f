"""The image axes that a value's axes run along, and the tokens of a grid among other tokens."""

from itertools import pairwise
from typing import Any

import numpy as np
from jax.core import Tracer

from .graph import Graph, Node

# An axis as the parts that were merged into it, major first: the image axis of each and its length. An axis
# with entries before those of the images (class tokens) starts with a part (BEFORE, number of entries). If it
# is merged with others, it is one part, whose name is the axis itself.
Axis = tuple[tuple[Any, int], ...]
Axes = tuple[Axis, ...]

BEFORE = "before"
# The image axes of a value: none for values that do not depend on the images; unknown for some.
FIXED, UNKNOWN = "fixed", "unknown"
# Tokens of a grid of which entries were dropped, repeated or mixed.
MIXED: Axis = (("height", 0), ("width", 0))


def running(direction: str, size: int) -> Axis:
    return ((direction, size),) if size > 1 else ()


def names_of(axis: Axis) -> set[str]:
    found: set[str] = set()
    for direction, _ in axis:
        found |= names_of(direction) if isinstance(direction, tuple) else {direction}
    return found - {"", BEFORE}


def grid_of(axis: Axis) -> Axis:
    return axis[1:] if axis and axis[0][0] == BEFORE else axis


def _placed(axis: Axis, before: int) -> Axis:
    """Return an axis with this many entries before those of the images."""
    return ((BEFORE, before), *grid_of(axis)) if before else grid_of(axis)


def size_of(axis: Axis) -> int:
    total = 1
    for _, size in axis:
        total *= size
    return total


def fits(axis, size):
    entries = size_of(grid_of(axis))
    return entries == size if grid_of(axis) == axis else axis[0][1] + entries <= size


def cut_tokens(
    graph: Graph, node: Node, operands, followed: dict[int, Axes], found: list[list[Axis]]
) -> list[Any]:
    """Follow grids of tokens through operations that add other tokens beside them or remove these."""
    results: list[Any] = []
    for result, spans in zip(found, _spans(graph, node, operands), strict=True):
        gone = False
        for axis, (start, stop, place) in spans.items():
            along = followed[place][axis] if place in followed else ()
            if len(along) < 2:
                continue
            others = any(axes[axis] for other, axes in followed.items() if other != place)
            before = along[0][1] if along[0][0] == BEFORE else 0
            first, last = before - start, before - start + size_of(grid_of(along))
            if first >= 0 and last <= stop - start and not others:
                result[axis] = _placed(along, first)
            elif last <= 0 or first >= stop - start:
                result[axis], gone = (), True
            else:
                result[axis] = MIXED if stop - start > 1 else ()
        results.append(FIXED if gone and not any(result) else tuple(result))
    return results


def _spans(graph: Graph, node: Node, operands) -> list[dict[int, tuple[int, int, int]]]:
    """Return the entries of an operand that each result holds, by axis: start, stop, and the operand's place.

    A span that starts below zero has other entries before the operand's.
    """
    params, shape = node.params, graph.shape(node.inputs[0]) if node.inputs else ()
    if node.name == "concatenate":
        axis, spans, start = params["dimension"], {}, 0
        total = graph.shape(node.outputs[0])[axis]
        for place, ref in enumerate(node.inputs):
            if isinstance(operands[place], tuple) and operands[place][axis]:
                spans = {axis: (-start, total - start, place)}
            start += graph.shape(ref)[axis]
        return [spans]
    if node.name == "slice":
        strides = params["strides"] or (1,) * len(shape)
        ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return [{a: (i, j, 0) for a, (i, j, step) in enumerate(ends) if step == 1 and j - i < shape[a]}]
    if node.name == "pad":
        ends = [(-low, n + high) for n, (low, high, _) in zip(shape, params["padding_config"], strict=True)]
        return [{a: (i, j, 0) for a, (i, j) in enumerate(ends) if (i, j) != (0, shape[a])}]
    if node.name == "split":
        axis, starts = params["axis"], [0]
        for size in params["sizes"]:
            starts.append(starts[-1] + size)
        return [{axis: (i, j, 0)} for i, j in pairwise(starts)]
    if node.name == "dynamic_slice":
        sizes = params["slice_sizes"]
        starts = [_number(x) for x in operands[1 : 1 + len(sizes)]]
        pairs = zip(starts, sizes, strict=True)
        return [{a: (i, i + n, 0) for a, (i, n) in enumerate(pairs) if n < shape[a] and i is not None}]
    return [{} for _ in node.outputs]


def _number(operand):
    known = (
        not isinstance(operand, (str, tuple)) and np.size(operand) == 1 and not isinstance(operand, Tracer)
    )
    return int(np.asarray(operand).reshape(())) if known else None
