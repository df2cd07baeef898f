"""Heads that begin with a dense layer, and each channel's contribution to that layer.

If each channel is pooled or flattened separately before the first dense layer, removing a channel is a
rank-one change there, and the sum of a class's gradient over a channel's positions is one column of a matrix
product. The head's graph shows whether this is so.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._program.facts import Window, fact
from .._program.graph import Constant, Graph, Node, Ref, trace, values_of
from .._program.run import evaluate, values

BLOCK = 64


class DenseHead(NamedTuple):
    """A head as `after(features @ kernel)`, where feature d depends on channel d % channels only.

    Attributes:
        before: acts -> features [batch, inputs].
        kernel: Weights of the first dense layer, [inputs, outputs].
        after: Its product [batch, outputs] -> scores.
        channels: Number of channels.
    """

    before: Callable[[jax.Array], jax.Array]
    kernel: jax.Array
    after: Callable[[jax.Array], jax.Array]
    channels: int


def find(head: Callable[[jax.Array], jax.Array], acts: jax.Array) -> DenseHead | None:
    """Return a head in that form, or None if it has another form."""
    graph, flat, _ = trace(head, acts)
    source, channels = graph.inputs[-1], acts.shape[-1]
    dependent = graph.dependents([source])
    dense = _first_dense(graph, dependent, channels)
    if dense is None or len(graph.outputs) != 1:
        return None
    place = next(i for i, ref in enumerate(dense.inputs) if ref in dependent)
    features, kernel = dense.inputs[place], dense.inputs[1 - place]
    if isinstance(kernel, Constant):
        return None
    # A kernel may be given transposed, or first, as `weight @ features`: then the product is transposed.
    across = dense.params["dimension_numbers"][0][1 - place][0] == 1
    below, above = graph.part([source], [features]), graph.part(dense.outputs, graph.outputs)
    read = {kernel, *values_of(r for part in (below, above) for n in part.nodes for r in n.inputs)}
    late = graph.dependents(dense.outputs)
    if any(ref in dependent and ref not in late for node in above.nodes for ref in values_of(node.inputs)):
        return None

    beside = graph.part(graph.inputs[:-1], [ref for ref in read if ref not in dependent])
    fixed = values(beside, flat[:-1])
    return DenseHead(
        before=lambda acts: evaluate(below, [acts], known=fixed)[0],
        kernel=fixed[kernel].T if across else fixed[kernel],
        after=lambda product: evaluate(above, [product.T if place else product], known=fixed)[0],
        channels=channels,
    )


def _first_dense(graph: Graph, dependent: set[int], channels: int) -> Node | None:
    """Return the first dense layer if channels stay separate before it, finally on the last axis."""
    source = graph.inputs[-1]
    axes: dict[Ref, int] = {source: len(graph.shape(source)) - 1}
    for node in graph.nodes:
        if not dependent.intersection(values_of(node.inputs)):
            continue
        if node.name == "dot_general":
            return node if _is_dense(graph, node, dependent, axes, channels) else None
        axis = _channel_axis(graph, node, axes, channels)
        if axis is None:
            return None
        axes.update(dict.fromkeys(node.outputs, axis))
    return None


def _is_dense(graph: Graph, node: Node, dependent: set[int], axes: dict[Ref, int], channels: int) -> bool:
    moving = [place for place, ref in enumerate(node.inputs) if ref in dependent]
    contracted, batches = node.params["dimension_numbers"]
    if len(moving) != 1 or any(batches) or any(len(graph.shape(ref)) != 2 for ref in node.inputs):
        return False
    features = node.inputs[moving[0]]
    return (
        tuple(contracted[moving[0]]) == (1,)
        and axes[features] == 1
        and graph.shape(features)[1] % channels == 0
    )


def _channel_axis(graph: Graph, node: Node, axes: dict[Ref, int], channels: int) -> int | None:
    """Return the axis of each result on which entry d depends on channel d % channels only, if there is one.

    Args:
        graph: The head.
        node: One of its operations.
        axes: This axis for all values that depend on the activations.
        channels: Number of channels.
    """
    shapes = [graph.shape(ref) for ref in (*node.inputs, *node.outputs)]
    moving = [place for place, ref in enumerate(node.inputs) if ref in axes]
    known, out = fact(node.name), shapes[-1]
    own = [axes[node.inputs[place]] for place in moving]
    if not out:
        return None
    if node.name == "transpose":
        return list(node.params["permutation"]).index(own[0]) if node.params["permutation"][0] == 0 else None
    if node.name == "reshape":
        if node.params["dimensions"] is not None or len(out) < 2 or out[0] != shapes[0][0]:
            return None
        if own[0] < len(shapes[0]) - 1:
            # Axes of length one after the channels may be dropped.
            short = shapes[0][: own[0] + 1]
            return own[0] if tuple(out) == tuple(short) and set(shapes[0][own[0] + 1 :]) == {1} else None
        # Positions may be merged into the channels' axis if the channels stay innermost.
        return len(out) - 1 if out[-1] % channels == 0 else None
    whole = node.name != "concatenate" or len(moving) == len(node.inputs)
    if not whole or not (known.elementwise or moving == [0] or node.name == "concatenate"):
        return None
    found = set()
    for place, axis in zip(moving, own, strict=True):
        kept, batch = (known.window(node.params, shapes, at) for at in (axis, 0))
        if not isinstance(kept, Window) or kept != Window(kept.axis) or batch != Window(0):
            return None
        if shapes[place][axis] != out[kept.axis] or shapes[place][0] != out[0]:
            return None
        found.add(kept.axis)
    return found.pop() if len(found) == 1 else None


def channel_rows(dense: DenseHead, features: jax.Array, channels: jax.Array) -> jax.Array:
    """Return the contributions of channels to the first dense layer: [len(channels), batch, outputs]."""
    batch = features.shape[0]
    places = features.reshape(batch, -1, dense.channels)
    kernel = dense.kernel.reshape(places.shape[1], dense.channels, -1)

    def one(channel):
        part = jnp.take(places, channel, axis=2)
        return part @ jnp.take(kernel, channel, axis=1)

    return jax.vmap(one)(channels)
