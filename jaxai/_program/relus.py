"""The ReLUs of a function, in any spelling."""

from dataclasses import dataclass

from .graph import Constant, Graph, Node, Ref


@dataclass(frozen=True)
class Relu:
    """max(x, 0), or min(max(x, 0), upper)."""

    x: Ref
    upper: float | None = None


def find_relus(graph: Graph) -> dict[int, Relu]:
    """Return the ReLUs of one graph by the number of their result, however they are written.

    Known are `jax.nn.relu`, `relu6`, `jnp.maximum(x, 0)`, `jnp.clip`, `jnp.where(x > 0, x, 0)` and
    `x * (x > 0)`, with the zero given as a number or an array.
    """
    producers, uses = graph.producers(), graph.uses()
    found: dict[int, Relu] = {}
    for node in graph.nodes:
        relu = _match(graph, node, producers, uses, found)
        if relu is not None:
            found[node.outputs[0]] = relu
            if relu.upper is not None and not isinstance(node.inputs[0], Constant):
                for ref in node.inputs:
                    if not isinstance(ref, Constant) and ref != relu.x:
                        found.pop(ref, None)
    return found


def _match(graph, node: Node, producers, uses, found) -> Relu | None:
    if node.name == "max":
        x = _other(graph, node.inputs, 0.0)
        if x is None:
            return None
        inner = producers.get(x)
        if inner is not None and inner.name == "min" and uses[x] == 1:
            x_inner, upper = _bounded(graph, inner.inputs)
            if upper is not None and upper > 0:
                return Relu(x_inner, upper)
        return Relu(x)
    if node.name == "min":
        x, upper = _bounded(graph, node.inputs)
        if upper is None or upper <= 0 or isinstance(x, Constant):
            return None
        inner = found.get(x)
        return Relu(inner.x, upper) if inner is not None and inner.upper is None and uses[x] == 1 else None
    if node.name == "clamp" and len(node.inputs) == 3:
        low, x, high = node.inputs
        upper = graph.splat(high)
        if graph.splat(low) != 0 or upper is None or upper <= 0 or isinstance(x, Constant):
            return None
        return Relu(x, None if upper == float("inf") else upper)
    if node.name == "select_n" and len(node.inputs) == 3:
        predicate, off, on = node.inputs
        if graph.splat(off) == 0 and _positive(graph, predicate, producers) == (on, True):
            return Relu(on)
        if graph.splat(on) == 0 and _positive(graph, predicate, producers) == (off, False):
            return Relu(off)
    if node.name == "mul":
        for x, gate in (node.inputs, node.inputs[::-1]):
            inner = None if isinstance(gate, Constant) else producers.get(gate)
            if inner is not None and inner.name == "convert_element_type":
                if _positive(graph, inner.inputs[0], producers) == (x, True):
                    return Relu(x)
    return None


def _other(graph, inputs, number) -> Ref | None:
    """Return the operand beside `number`, if one of the two is that number everywhere."""
    for x, bound in (inputs, inputs[::-1]):
        if graph.splat(bound) == number and not isinstance(x, Constant):
            return x
    return None


def _bounded(graph, inputs):
    for x, bound in (inputs, inputs[::-1]):
        number = graph.splat(bound)
        if number is not None and not isinstance(x, Constant):
            return x, number
    return None, None


_COMPARISONS = {"gt": True, "ge": True, "lt": False, "le": False}


def _positive(graph, predicate, producers) -> tuple[Ref, bool] | None:
    """Return `(x, True)` if the predicate is x > 0, `(x, False)` if it is x < 0; equality does not matter."""
    node = None if isinstance(predicate, Constant) else producers.get(predicate)
    if node is None or node.name not in _COMPARISONS:
        return None
    left, right = node.inputs
    if graph.splat(right) == 0:
        return left, _COMPARISONS[node.name]
    if graph.splat(left) == 0:
        return right, not _COMPARISONS[node.name]
    return None


def has_relu(graph: Graph) -> bool:
    """Return whether a graph or one of its bodies has a ReLU."""
    return bool(find_relus(graph)) or any(has_relu(body) for node in graph.nodes for body in node.bodies)
