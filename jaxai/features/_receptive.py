"""Receptive fields: the number of pixels on which a unit depends, read from the network's program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._program.facts import fact
from .._program.graph import Graph, Node, graph_of
from .._program.run import evaluate


@dataclass(frozen=True)
class _Span:
    """The receptive field of index i along an axis: image lines `jump * i + low` to `jump * i + high`."""

    axis: int
    jump: int
    low: int
    high: int


class _Unknown(Exception):
    """An operation whose reach is not known."""


# The whole image, whatever its size, as after a global mean.
_WHOLE = "whole"


@dataclass(frozen=True)
class _Seen:
    """The receptive field of a value, along rows and along columns."""

    rows: Any
    columns: Any


def field(jaxpr: Any, output: int = 0) -> tuple[int, int] | None:
    """Return the rows and columns of the image that a unit sees if padding does not cut them off.

    Args:
        jaxpr: A closed jaxpr whose last input is the image, [batch, rows, columns, channels].
        output: Which of its outputs, with the positions along two axes.

    Returns:
        (rows, columns), of the local path if another one sees the whole image (such as a squeeze-excitation);
        None if there is none, or if the program has operations whose reach is not known.
    """
    graph = graph_of(jaxpr)
    try:
        seen = _see(graph, [None] * (len(graph.inputs) - 1) + [_Seen(_Span(1, 1, 0, 0), _Span(2, 1, 0, 0))])
    except _Unknown:
        return None
    found = seen[output]
    if not isinstance(found, _Seen) or _WHOLE in (found.rows, found.columns):
        return None
    rows, columns = (int(span.high - span.low + 1) for span in (found.rows, found.columns))
    return rows, columns


def _see(graph: Graph, args: Sequence[Any]) -> list[Any]:
    """Return what the results see, given what the inputs see; anything but `_Seen` sees nothing."""

    def each(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
        if not any(isinstance(value, _Seen) for value in operands):
            return [None] * len(node.outputs)
        return _through(graph, node, operands)

    return evaluate(graph, args, each=each)


def _through(graph: Graph, node: Node, operands: Sequence[Any]) -> Sequence[Any]:
    known = fact(node.name)
    count = len(node.outputs)
    if node.name == "cond" and not isinstance(operands[0], _Seen):
        branches = [_see(body, operands[1:]) for body in node.bodies]
        return [_union(results) for results in zip(*branches, strict=True)]
    if known.elementwise and count > 1:
        return operands
    if known.elementwise:
        return [_union(operands)]
    shapes = [graph.shape(ref) for ref in (*node.inputs, *node.outputs)]
    seen, *rest = operands
    if node.name in ("concatenate", "stack"):
        seen, rest = _union(operands), []
    if not isinstance(seen, _Seen) or any(isinstance(one, _Seen) for one in rest):
        raise _Unknown(node.name)
    spans = (_move(known.window, node.params, shapes, span) for span in (seen.rows, seen.columns))
    return [_Seen(*spans)] * count


def _move(window, params, shapes, span):
    """Return what a result sees along an axis, given what the first operand does."""
    if span == _WHOLE:
        return _WHOLE
    reads = window(params, shapes, span.axis)
    if reads == "all":
        return _WHOLE
    if reads is None:
        raise _Unknown
    low = span.low - reads.before * span.jump
    return _Span(
        reads.axis, span.jump * reads.stride, low, span.high + low - span.low + (reads.size - 1) * span.jump
    )


def _union(seen):
    """Return what is seen by any; spans of one array have the same axis and jump."""
    spans = [one for one in seen if isinstance(one, _Seen)]
    if not spans:
        return None
    return _Seen(_join([one.rows for one in spans]), _join([one.columns for one in spans]))


def _join(spans):
    local = [span for span in spans if span != _WHOLE]
    if not local:
        return _WHOLE
    if len({(span.axis, span.jump) for span in local}) > 1:
        raise _Unknown
    low, high = min(span.low for span in local), max(span.high for span in local)
    return _Span(local[0].axis, local[0].jump, low, high)
