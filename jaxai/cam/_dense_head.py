"""Heads that begin with a dense layer: what each channel of the activations adds to it.

Where each channel is pooled or flattened by itself before the first dense layer, taking a channel away is a
change of rank one there, and the sum of a class's gradient over a channel's positions is one column of a
product of matrices. The head is read as a graph to find out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._program import jaxprs
from .._program.jaxprs import Constant, Graph, Node

BLOCK = 64


class DenseHead(NamedTuple):
    """A head as `after(features @ kernel)`, feature d made of channel d % channels alone.

    Attributes:
        before: acts -> features [batch, inputs].
        kernel: Of the first dense layer, [inputs, outputs].
        after: Its product [batch, outputs] -> scores.
        affine: Whether nothing but sums with constants comes after.
        channels: Number of channels.
    """

    before: Callable[[jax.Array], jax.Array]
    kernel: jax.Array
    after: Callable[[jax.Array], jax.Array]
    affine: bool
    channels: int


# Operations that leave the last axis alone, whatever they do along the others.
_ELEMENTWISE = frozenset(
    "add sub mul div max min neg abs sign exp log logistic tanh sqrt rsqrt square integer_pow pow clamp"
    " select_n ge gt le lt eq ne and or not is_finite convert_element_type copy name".split()
)
_AFFINE = frozenset("add sub convert_element_type reshape broadcast_in_dim squeeze copy name".split())


def find(head: Callable[[jax.Array], jax.Array], acts: jax.Array) -> DenseHead | None:
    """Return a head in that form, or None if it has another."""
    graph, flat, _ = jaxprs.trace(head, acts)
    source, channels = graph.inputs[-1], acts.shape[-1]
    dependent = graph.dependents([source])
    split = _first_dense(graph, source, dependent, channels)
    if split is None or len(graph.outputs) != 1:
        return None
    place = graph.nodes.index(split)
    features, kernel = split.inputs
    early = {out for node in graph.nodes[:place] for out in node.outputs if out in dependent} | {source}
    if any(ref in early for node in graph.nodes[place + 1 :] for ref in _refs(node)):
        return None

    fixed = _constants(graph, flat, dependent)

    def before(acts):
        env = {**fixed, source: acts}
        _run(graph.nodes[:place], env, dependent)
        return _read(env, features)

    def after(product):
        env = {**fixed, split.outputs[0]: product}
        _run(graph.nodes[place + 1 :], env, dependent)
        return _read(env, graph.outputs[0])

    affine = all(
        node.name in _AFFINE and sum(ref in dependent for ref in _refs(node)) == 1
        for node in graph.nodes[place + 1 :]
        if node.outputs[0] in dependent
    )
    return DenseHead(before, _read(fixed, kernel), after, affine, channels)


def _refs(node: Node) -> list[int]:
    return [ref for ref in node.inputs if not isinstance(ref, Constant)]


def _read(env: dict[int, Any], ref: Any) -> Any:
    return ref.value if isinstance(ref, Constant) else env[ref]


def _run(nodes, env, dependent):
    for node in nodes:
        if node.outputs and node.outputs[0] in dependent:
            env.update(zip(node.outputs, node.run(*(_read(env, ref) for ref in node.inputs)), strict=True))


def _constants(graph: Graph, flat, dependent) -> dict[int, Any]:
    """Return every value that the activations do not change."""
    env = {**graph.constants, **dict(zip(graph.inputs, flat, strict=True))}
    for node in graph.nodes:
        if node.outputs and node.outputs[0] not in dependent:
            env.update(zip(node.outputs, node.run(*(_read(env, ref) for ref in node.inputs)), strict=True))
    return env


def _first_dense(graph: Graph, source: int, dependent: set[int], channels: int) -> Node | None:
    """Return the first dense layer, if all before it keeps the channels apart on the last axis."""
    for node in graph.nodes:
        if not any(ref in dependent for ref in _refs(node)):
            continue
        if node.name == "dot_general":
            return node if _is_dense(graph, node, dependent, channels) else None
        if not _keeps_channels(graph, node, dependent, channels):
            return None
    return None


def _is_dense(graph, node, dependent, channels) -> bool:
    left, right = node.inputs
    if isinstance(left, Constant) or left not in dependent or right in dependent:
        return False
    shape = graph.shape(left)
    dense = node.params["dimension_numbers"] == (((1,), (0,)), ((), ()))
    return dense and len(shape) == 2 and len(graph.shape(right)) == 2 and shape[1] % channels == 0


def _keeps_channels(graph: Graph, node: Node, dependent: set[int], channels: int) -> bool:
    out, params = graph.shape(node.outputs[0]), node.params
    inputs = [graph.shape(ref) for ref in _refs(node) if ref in dependent]
    last = len(inputs[0]) - 1
    if any(shape[-1] % channels or shape[0] != inputs[0][0] for shape in inputs):
        return False
    if node.name in _ELEMENTWISE:
        return all(shape == out for shape in inputs)
    if node.name.startswith("reduce_") and "axes" in params:
        return 0 not in params["axes"] and last not in params["axes"]
    if node.name.startswith("reduce_window") or node.name.startswith("cumsum"):
        window = params.get("window_dimensions", ())
        return bool(window) and window[0] == 1 and window[-1] == 1 and inputs[0][-1] == out[-1]
    if node.name in ("slice", "pad"):
        return out[0] == inputs[0][0] and out[-1] == inputs[0][-1]
    if node.name == "concatenate":
        return params["dimension"] not in (0, last) and len(inputs) == len(node.inputs)
    if node.name in ("reshape", "squeeze"):
        plain = params.get("dimensions") is None or node.name == "squeeze"
        return plain and out[0] == inputs[0][0] and out[-1] % channels == 0 and len(out) > 1
    if node.name == "broadcast_in_dim":
        places = params["broadcast_dimensions"]
        return places[0] == 0 and places[-1] == len(out) - 1 and out[-1] == inputs[0][-1]
    return False


def channel_rows(dense: DenseHead, features: jax.Array, channels: jax.Array) -> jax.Array:
    """Return what channels add to the first dense layer's product: [len(channels), batch, outputs]."""
    batch = features.shape[0]
    places = features.reshape(batch, -1, dense.channels)
    kernel = dense.kernel.reshape(places.shape[1], dense.channels, -1)

    def one(channel):
        part = jnp.take(places, channel, axis=2)
        return part @ jnp.take(kernel, channel, axis=1)

    return jax.vmap(one)(channels)
