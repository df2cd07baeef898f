"""Operations whose result at a position depends on a window of positions, recognised in a traced model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._program.jaxprs import ELEMENTWISE, Constant, Graph, Node

_KEPT = ("depthwise_conv", "max_pool")
_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@dataclass(frozen=True, eq=False)
class Step:
    """How a node is computed on patches.

    Attributes:
        run: Operands, cut to what the patches need and padded, to the patches.
        window: Rows and columns that one result reads.
        strides: Distance of neighbouring windows.
        padding: Before and after, for rows and columns.
        padding_value: What the padding is filled with.
        elementwise: Whether operands meet position by position, fixed ones too.
        uniform: Operands that do not vary in place although their shape does.
    """

    run: Callable[[list[Any]], jax.Array]
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    padding_value: float = 0.0
    elementwise: bool = False
    uniform: frozenset[int] = field(default_factory=frozenset)

    @property
    def pointwise(self) -> bool:
        """Whether a result reads its own position alone."""
        return self.window == self.strides == (1, 1) and self.padding == ((0, 0), (0, 0))


def kept(eqn: Any) -> str | None:
    """Name the ports' calls that are one operation each."""
    name = eqn.params.get("name")
    return name if eqn.primitive.name in ("jit", "pjit") and name in _KEPT else None


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
    if node.name in ELEMENTWISE:
        return _elementwise(node, graph, moving, shapes, out)
    if len(moving) == 1 and node.inputs[0] == moving[0]:
        if node.name == "conv_general_dilated":
            return _convolution(node.params, node, graph)
        if node.name == "depthwise_conv":
            inner = _find(node.params["jaxpr"], "conv_general_dilated")
            return None if inner is None else _convolution(inner.params, node, graph)
        if node.name == "max_pool":
            return _max_pool(node, shapes[0], out)
        if node.name in ("reduce_window_max", "reduce_window_sum"):
            return _reduce_window(node)
    if node.name == "concatenate" and node.params["dimension"] == 3 and len(moving) == len(node.inputs):
        return Step(partial(jnp.concatenate, axis=3))
    return None


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


def _convolution(params, node, graph):
    numbers = params["dimension_numbers"]
    dilation, kernel = tuple(params["rhs_dilation"]), graph.shape(node.inputs[1])
    plain = tuple(map(tuple, (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec))) == _NHWC
    padding = tuple(map(tuple, params["padding"]))
    if not plain or set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        return None
    if any(value < 0 for pair in padding for value in pair):
        return None
    strides, groups = tuple(params["window_strides"]), params["feature_group_count"]
    window = tuple((k - 1) * d + 1 for k, d in zip(kernel[:2], dilation, strict=True))
    depthwise = groups > 1 and kernel[2] == 1 and kernel[3] == groups
    plain_conv = partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding="VALID",
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )

    def run(operands):
        if not depthwise:
            return plain_conv(*operands)
        return lax.platform_dependent(
            *operands, cpu=partial(_shifted, strides=strides, dilation=dilation), default=plain_conv
        )

    return Step(run, window, strides, padding)


def _shifted(x, kernel, *, strides, dilation):
    """Convolve each channel alone as a sum of shifted products: faster than a convolution on the CPU."""
    total = None
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            ends = [
                n - (k - 1 - at) * d
                for n, k, at, d in zip(x.shape[1:3], kernel.shape[:2], (i, j), dilation, strict=True)
            ]
            rows = slice(i * dilation[0], ends[0], strides[0])
            columns = slice(j * dilation[1], ends[1], strides[1])
            term = x[:, rows, columns] * kernel[i, j, 0]
            total = term if total is None else total + term
    return total


def _max_pool(node, before, after):
    inner = _find(node.params["jaxpr"], "slice")
    strides = None if inner is None else inner.params["strides"]
    if strides is None or (before[1] // strides[1], before[2] // strides[2]) != after[1:3]:
        return None
    window = (strides[1], strides[2])

    def run(operands):
        best = None
        for i in range(window[0]):
            for j in range(window[1]):
                part = operands[0][:, i :: window[0], j :: window[1]]
                best = part if best is None else jnp.maximum(best, part)
        return best

    return Step(run, window, window)


def _reduce_window(node):
    params = node.params
    sizes, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    whole = sizes[0] == sizes[3] == strides[0] == strides[3] == 1
    if not whole or set(params["base_dilation"]) != {1} or set(params["window_dilation"]) != {1}:
        return None
    if any(value < 0 for pair in padding for value in pair) or any(map(any, (padding[0], padding[3]))):
        return None
    maximum = node.name == "reduce_window_max"

    def run(operands):
        x = operands[0]
        start = np.array(-np.inf if maximum else 0, x.dtype)
        return lax.reduce_window(x, start, lax.max if maximum else lax.add, sizes, strides, "VALID")

    pads = (tuple(padding[1]), tuple(padding[2]))
    return Step(run, tuple(sizes[1:3]), tuple(strides[1:3]), pads, -math.inf if maximum else 0.0)


def _find(jaxpr: Any, name: str) -> Any:
    """Return the first equation of this name in a jaxpr or anything it calls."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == name:
            return eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, Sequence) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    found = _find(inner, name)
                    if found is not None:
                        return found
    return None


def multiplications(node: Node, graph: Graph) -> float:
    """Return how many multiplications a convolution or matrix product takes; 0 for other nodes."""
    if node.name in ("conv_general_dilated", "depthwise_conv"):
        kernel, out = graph.shape(node.inputs[1]), graph.shape(node.outputs[0])
        return float(np.prod(out)) * float(np.prod(kernel[:3]))
    if node.name == "dot_general":
        (contracted, _), _ = node.params["dimension_numbers"]
        depth = np.prod([graph.shape(node.inputs[0])[axis] for axis in contracted])
        return float(np.prod(graph.shape(node.outputs[0]))) * float(depth)
    return 0.0
