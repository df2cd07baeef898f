"""Dense scores in a program, such as those of a segmentation or detector, and the values that become them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .axes import Axes
from .graph import CUSTOM, Graph, Node, graph_of, values_of

PRODUCTS = ("dot_general", "conv_general_dilated")
_POOL = "reduce_window"


def is_dense(shape: Sequence[int]) -> bool:
    """Return whether an output [batch, ...] of this shape has more than one axis of scores."""
    return math.prod(shape[1:]) > max(shape[1:], default=1)


def scores_of(graph: Graph, axes: Mapping[int, Axes | None]) -> set[int]:
    """Return the values that become dense outputs without a product along the channels and without a pool.

    These are the outputs themselves and what precedes an activation, softmax, resizing, or joining of them.
    What they are computed from, the last hidden layers, is not among them.

    Args:
        graph: A program whose last input are images.
        axes: The image axes of each value.
    """
    moving = graph.dependents(graph.inputs[-1:])
    producers = graph.producers()
    open_ = [ref for ref in values_of(graph.outputs) if ref in moving and is_dense(graph.shape(ref))]
    found: set[int] = set()
    while open_:
        value = open_.pop()
        node = producers.get(value)
        if value in found or node is None:
            continue
        found.add(value)
        if not _mixes(graph, node, axes):
            open_ += [ref for ref in values_of(node.inputs) if ref in moving]
    return found


def _mixes(graph: Graph, node: Node, axes: Mapping[int, Axes | None]) -> bool:
    """Return whether results are products along axes that do not run along the images, or pools."""
    if node.name not in PRODUCTS:
        return node.name.startswith(_POOL) or any(map(_hides, _bodies(node)))
    if node.name == "conv_general_dilated":
        spec = node.params["dimension_numbers"].lhs_spec
        return graph.shape(node.inputs[0])[spec[1]] > node.params["feature_group_count"]
    contracted, _ = node.params["dimension_numbers"]
    for ref, summed in zip(node.inputs, contracted, strict=True):
        known = axes.get(ref) if isinstance(ref, int) else None
        if known is not None and summed and all(known[axis] for axis in summed):
            return False
    return True


def _bodies(node: Node) -> list[Graph]:
    own: Any = node.params.get(CUSTOM.get(node.name, ""))
    return [*node.bodies, *([graph_of(own)] if own is not None else [])]


def _hides(graph: Graph) -> bool:
    return any(
        node.name in PRODUCTS or node.name.startswith(_POOL) or any(map(_hides, _bodies(node)))
        for node in graph.nodes
    )
