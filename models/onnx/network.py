"""An ONNX graph as a JAX function whose leaves are its parameters."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import register_dataclass

from ..._files import shown
from ...weights_convert.stored import Refused
from .node import OPERATORS, Node
from .reader import Graph, reason
from .values import Value, channels_last, plain


@dataclass(frozen=True, eq=False)
class Plan:
    """What an imported network computes, without its parameters.

    Attributes:
        nodes: The nodes that depend on the images, in order.
        constants: Numbers that shapes and single numbers are made of.
        orders: How each parameter's axes are stored.
        input: The name of the images.
        axes: Which axis of the images [batch, height, width, channels] is which of the file's.
        dtype: The type of the images.
        outputs: The names of the results.
        single: Whether the file is written for one image, and each reshape must be read for more.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Value]
    orders: Mapping[str, tuple[int, ...]]
    input: str
    axes: tuple[int, ...]
    dtype: Any
    outputs: tuple[str, ...]
    single: bool = False


@register_dataclass
@dataclass(frozen=True, eq=False)
class Network:
    """A network that was read from an ONNX file; a callable pytree whose leaves are its parameters.

    Attributes:
        parameters: Weights by their name in the file; kernels and transposed matrices are stored as JAX wants
            them, [*window, channels, features].
        plan: What is computed with them.
    """

    parameters: dict[str, jax.Array]
    plan: Plan = field(metadata={"static": True})

    def __call__(self, images: jax.Array) -> Any:
        """Return the scores of images [batch, height, width, channels]; a dict if the file has several."""
        env = self.values(images)
        results = {name: jnp.asarray(env[name].plain) for name in self.plan.outputs}
        return results if len(results) > 1 else results[self.plan.outputs[0]]

    def values(self, images: jax.Array) -> dict[str, Value]:
        """Return all values of the graph, by their names in the file, for images as `__call__` takes them."""
        plan = self.plan
        images = jnp.asarray(images, _widest(images.dtype, plan.dtype))
        env = dict(plan.constants)
        env.update({name: Value(array, plan.orders[name]) for name, array in self.parameters.items()})
        env[plan.input] = Value(images, plan.axes)
        batch = images.shape[0] if plan.single else 1
        for node in plan.nodes:
            for name, value in zip(node.outputs, run(node, env, batch), strict=False):
                env[name] = _marked(node, value)
        return env


def _widest(given: Any, own: Any) -> Any:
    """Return the type that a network computes in: its own, or that of its images if they are narrower."""
    return own if jnp.issubdtype(given, jnp.integer) or given == jnp.bool_ else given


def run(node: Node, env: Mapping[str, Value], batch: int = 1) -> tuple[Value, ...]:
    """Return the results of a node; a file that is written for one image is read for `batch`.

    Raises:
        Refused: If it cannot be computed; the node is named.
    """
    with _about(node):
        values = [env[name] if name else None for name in node.inputs]
        while values and values[-1] is None:
            values.pop()
        known = all(value is None or value.static for value in values) and node.op not in ("Shape", "Size")
        if known:
            # What depends on no image is computed while the graph is traced.
            with jax.ensure_compile_time_eval():
                found = OPERATORS[node.op].run(node, *values)
                results = found if isinstance(found, tuple) else (found,)
                return tuple(plain(np.asarray(each.plain)) for each in results)
        if batch > 1:
            values = _for_all(node, values, batch)
        found = OPERATORS[node.op].run(node, *values)
        results = found if isinstance(found, tuple) else (found,)
        return tuple(_stored(each) for each in results)


def _for_all(node: Node, values: list[Any], batch: int) -> list[Any]:
    """Return what a node reads for a batch where the file states it for one image.

    The images are taken to lie along the first axis of every value.
    """
    if node.op == "Reshape" and len(values) == 2 and values[1].static:
        one, shape = [values[0].shape[0] // batch, *values[0].shape[1:]], values[1].plain.tolist()
        shape = [one[i] if size == 0 and i < len(one) else size for i, size in enumerate(shape)]
        if -1 in shape:
            known = math.prod(size for size in shape if size != -1)
            shape[shape.index(-1)] = math.prod(one) // max(known, 1)
        return [values[0], plain(np.asarray([shape[0] * batch, *shape[1:]]))]
    if node.op == "Concat" and node.get("axis", 1) % max(values[0].rank, 1) > 0:
        return [_repeated(value, batch) for value in values]
    return values


def _repeated(value: Value, batch: int) -> Value:
    if value.shape[0] != 1:
        return value
    return plain(jnp.broadcast_to(value.plain, (batch, *value.shape[1:])))


def _stored(value: Value) -> Value:
    """Return a result in one of the two orders that values are kept in."""
    if not isinstance(value.array, (np.ndarray, jax.Array)):
        value = value.like(np.asarray(value.array))
    if value.static:
        return plain(value.plain)
    if value.is_plain or (value.rank > 2 and value.order == channels_last(value.rank)):
        return value
    return plain(value.plain)


@contextmanager
def _about(node: Node) -> Iterator[None]:
    """Name the node that an error comes from."""
    try:
        yield
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        where = f"node {shown(node.name)!r} ({node.op})"
        if isinstance(error, KeyError):
            message = f"{where} reads {shown(error.args[0])!r}, which nothing before it computes"
        else:
            message = f"{where}: {reason(error)}"
        raise Refused(message) from error


def _marked(node: Node, value: Value) -> Value:
    """Return a floating value under its node's name, which makes it a layer."""
    if value.static or value.rank < 2 or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return value.like(checkpoint_name(value.array, node.name))


def network(graph: Graph, axes: tuple[int, ...]) -> Network:
    """Return a graph as a function; what depends only on its constants is computed now.

    Raises:
        Refused: If a node cannot be computed.
    """
    env = {name: plain(array) for name, array in graph.constants.items()}
    nodes = []
    for node in graph.nodes:
        if all(name in env for name in node.inputs if name):
            if any(value.array.size > 1 << 27 for value in (env[n] for n in node.inputs if n)):
                raise Refused(f"node {shown(node.name)!r} computes with constants that are too large")
            env.update(zip(node.outputs, run(node, env), strict=False))
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.inputs} | set(graph.outputs)
    weights = {
        name
        for node in nodes
        for place, name in enumerate(node.inputs)
        if place not in OPERATORS[node.op].settings
    }
    orders = _orders(nodes, env)
    parameters, constants = {}, {}
    dtype: Any = jnp.float32
    for name, value in env.items():
        if name not in read:
            continue
        if name in weights and jnp.issubdtype(value.dtype, jnp.floating) and value.array.size > 1:
            stored = value.ordered(orders[name])
            parameters[name] = jnp.asarray(stored)
        else:
            constants[name] = value
    wide = [array.dtype for array in parameters.values()]
    if wide and all(each == wide[0] for each in wide):
        dtype = wide[0]
    kept = {name: orders[name] for name in parameters}
    plan = Plan(tuple(nodes), constants, kept, graph.input, axes, dtype, graph.outputs)
    return Network(parameters, plan)


def _orders(nodes: list[Node], env: Mapping[str, Value]) -> dict[str, tuple[int, ...]]:
    """Return how the axes of each parameter are stored: as the first node that reads it takes them."""
    orders: dict[str, tuple[int, ...]] = {}
    for node in nodes:
        storage = OPERATORS[node.op].storage
        for place, name in enumerate(node.inputs):
            if name in env and name not in orders:
                rank = env[name].rank
                wanted = storage[place](node, rank) if place in storage and rank > 1 else range(rank)
                orders[name] = tuple(wanted)
    return {name: orders.get(name, tuple(range(value.rank))) for name, value in env.items()}
