"""Recognition of operations in a traced model whose results depend on windows of positions."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._cpu import conv
from .._program.facts import Window, fact
from .._program.graph import Constant, Graph, Node

_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_SAME = (Window(1), Window(2))


@dataclass(frozen=True, eq=False)
class Step:
    """How a node is computed on patches.

    Attributes:
        run: Maps operands, cropped to what the patches need and padded, to the patches.
        reads: The windows that a result reads along the rows and along the columns.
        padding_value: Value of the padding.
        elementwise: Whether operands are combined position by position, including fixed ones.
        uniform: Operands whose values do not vary with position although they have these axes.
    """

    run: Callable[[list[Any]], jax.Array]
    reads: tuple[Window, Window] = _SAME
    padding_value: float = 0.0
    elementwise: bool = False
    uniform: frozenset[int] = field(default_factory=frozenset)

    @property
    def pointwise(self) -> bool:
        """Whether a result reads only its own position."""
        return self.reads == _SAME


def step(node: Node, graph: Graph, dependent: set[int]) -> Step | None:
    """Return how to compute a node on patches, or None if it mixes positions in another way.

    Args:
        node: A node whose operands that depend on the image are activations [1, height, width, channels].
        graph: Its graph.
        dependent: The values that depend on the image.
    """
    moving = [r for r in node.inputs if not isinstance(r, Constant) and r in dependent]
    shapes = [graph.shape(r) for r in moving]
    out = graph.shape(node.outputs[0])
    if len(node.outputs) != 1 or any(len(s) != 4 or s[0] != 1 for s in (out, *shapes)):
        return None
    known = fact(node.name)
    if known.elementwise:
        return _elementwise(node, graph, moving, shapes, out)
    if node.name == "concatenate" and node.params["dimension"] == 3 and len(moving) == len(node.inputs):
        return Step(partial(jnp.concatenate, axis=3))
    if len(moving) != 1 or node.inputs[0] != moving[0] or node.name not in _ON_PATCHES:
        return None
    sizes = [graph.shape(ref) for ref in (*node.inputs, *node.outputs)]
    rows, columns = (known.window(node.params, sizes, axis) for axis in (1, 2))
    if not (isinstance(rows, Window) and isinstance(columns, Window)) or min(rows.before, columns.before) < 0:
        return None
    run = _ON_PATCHES[node.name](node.params, sizes)
    lowest = -math.inf if node.name == "reduce_window_max" else 0.0
    return None if run is None else Step(run, (rows, columns), lowest)


def _elementwise(node, graph, moving, shapes, out):
    if any(s[1:3] != out[1:3] for s in shapes):
        return None
    uniform = set()
    producers = {o: n for n in graph.nodes for o in n.outputs} if len(moving) < len(node.inputs) else {}
    for ref in node.inputs:
        if isinstance(ref, Constant) or ref in moving:
            continue
        if len(graph.shape(ref)) not in (0, 4):
            return None
        maker = producers.get(ref)
        if maker is not None and maker.name == "broadcast_in_dim":
            before = graph.shape(maker.inputs[0])
            kept = dict(zip(maker.params["broadcast_dimensions"], before, strict=True))
            if kept.get(1, 1) == 1 and kept.get(2, 1) == 1:
                uniform.add(ref)

    def run(operands):
        full = jnp.broadcast_shapes(*(jnp.shape(x) for x in operands))
        return node.run(*(x if jnp.ndim(x) == 0 else jnp.broadcast_to(x, full) for x in operands))[0]

    return Step(run, elementwise=True, uniform=frozenset(uniform))


def _convolution(params, shapes):
    numbers = params["dimension_numbers"]
    plain = tuple(map(tuple, (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec))) == _NHWC
    if not plain or params["batch_group_count"] != 1:
        return None
    settings = conv.Settings(
        strides=tuple(params["window_strides"]),
        # Patches are cut out with their padding.
        padding=((0, 0), (0, 0)),
        dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
        precision=params["precision"],
        dtype=params["preferred_element_type"],
    )
    return lambda operands: conv.forward(operands[0], operands[1], settings)


def _reduce_window(maximum, params, shapes):
    sizes, strides = params["window_dimensions"], params["window_strides"]
    if not sizes[0] == sizes[3] == strides[0] == strides[3] == 1 or set(params["window_dilation"]) != {1}:
        return None
    if any(map(any, (params["padding"][0], params["padding"][3]))):
        return None

    def run(operands):
        x = operands[0]
        if maximum and sizes == strides:
            # Without overlap, comparisons of slices are faster.
            offsets = itertools.product(range(sizes[1]), range(sizes[2]))
            return reduce(jnp.maximum, [x[:, i :: sizes[1], j :: sizes[2]] for i, j in offsets])
        start = np.array(-np.inf if maximum else 0, x.dtype)
        return lax.reduce_window(x, start, lax.max if maximum else lax.add, sizes, strides, "VALID")

    return run


# How operations on windows are computed on patches cut out with their padding.
_ON_PATCHES = {
    "conv_general_dilated": _convolution,
    "reduce_window_max": partial(_reduce_window, True),
    "reduce_window_sum": partial(_reduce_window, False),
}


def multiplications(node: Node, graph: Graph) -> float:
    """Return the number of multiplications of a convolution or matrix product; 0 for other nodes."""
    if node.name == "conv_general_dilated":
        kernel, out = graph.shape(node.inputs[1]), graph.shape(node.outputs[0])
        return float(np.prod(out)) * float(np.prod(kernel[:3]))
    if node.name == "dot_general":
        (contracted, _), _ = node.params["dimension_numbers"]
        depth = np.prod([graph.shape(node.inputs[0])[axis] for axis in contracted])
        return float(np.prod(graph.shape(node.outputs[0]))) * float(depth)
    return 0.0
