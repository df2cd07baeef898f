"""Detection of ReLUs in any spelling, and of those that are activations of layers."""

from dataclasses import dataclass
from itertools import permutations

import jax.numpy as jnp

from .facts import fact
from .graph import Constant, Graph, Node, Ref, values_of


@dataclass(frozen=True)
class Relu:
    """max(x, 0), or min(max(x, 0), upper)."""

    x: Ref
    upper: float | None = None


def find_relus(graph: Graph) -> dict[int, Relu]:
    """Return the ReLUs of one graph, in any spelling, by the number of their result.

    Recognised are `jax.nn.relu`, `relu6`, `jnp.maximum(x, 0)`, `jnp.clip`, `jnp.where(x > 0, x, 0)` and `x *
    (x > 0)`, with the zero given as a number or an array.
    """
    producers, uses = graph.producers(), graph.uses()
    found: dict[int, Relu] = {}
    for node in graph.nodes:
        relu = _match(graph, node, producers, uses, found)
        if relu is not None and jnp.issubdtype(graph.avals[node.outputs[0]].dtype, jnp.floating):
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
            if x_inner is not None and upper is not None and upper > 0:
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
        for x, gate in permutations(node.inputs, 2):
            inner = None if isinstance(gate, Constant) else producers.get(gate)
            if inner is not None and inner.name == "convert_element_type":
                if _positive(graph, inner.inputs[0], producers) == (x, True):
                    return Relu(x)
    return None


def _other(graph, inputs, number) -> Ref | None:
    """Return the other operand if one of the two equals `number` everywhere."""
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


def activations(graph: Graph) -> dict[int, Relu]:
    """Return the ReLUs of one graph that are the activations of layers, by the number of their result.

    They depend on the arguments, not only on parameters. A maximum with zero is excluded if it

    - keeps a sum of squares from rounding below zero: the variance of a norm, a squared distance;
    - keeps the argument of a root, a logarithm or a divisor from being negative, where at most 0.1 is added
      before these;
    - is a part of another function of the same value: of a hard swish x relu6(x + 3) / 6, a softplus, or a
      leaky ReLU that is written as a sum;
    - is a hard sigmoid: a ReLU6 of a value shifted by a constant, scaled to at most 1.
    """
    moving = graph.dependents(graph.arguments)
    relus = {out: relu for out, relu in find_relus(graph).items() if out in moving}
    if not relus:
        return relus
    view = _View(graph)
    return {
        out: relu
        for out, relu in relus.items()
        if not (
            view.is_sum_of_squares(relu.x)
            or view.is_guard(out)
            or view.is_part(out, relu.x)
            or view.is_hard_sigmoid(out, relu)
        )
    }


def has_activation(graph: Graph) -> bool:
    """Return whether a graph or one of its bodies has a ReLU that is an activation."""
    return bool(activations(graph)) or any(
        has_activation(body) for node in graph.nodes for body in node.bodies
    )


# Largest number that may be added to a guarded argument of a root.
_MOST_ADDED = 0.1


class _View:
    """A graph without unused nodes that can be followed in both directions."""

    def __init__(self, graph: Graph):
        live = graph.part(graph.inputs, graph.outputs)
        self.graph, self.results = graph, set(values_of(graph.outputs))
        self.producers, self.readers = live.producers(), live.readers()

    def is_number(self, ref: Ref) -> bool:
        """Return whether a value is constant everywhere, with a known value or not."""
        while self.graph.shape(ref) and self.graph.splat(ref) is None:
            node = None if isinstance(ref, Constant) else self.producers.get(ref)
            if node is None or not fact(node.name).rearranges or len(node.inputs) != 1:
                return False
            ref = node.inputs[0]
        return True

    def only_value(self, node: Node) -> Ref | None:
        """Return a node's only operand that is neither a number nor a predicate, if there is one."""
        found = [ref for ref in node.inputs if not self.is_number(ref)]
        found = [ref for ref in found if not jnp.issubdtype(self.graph.dtype(ref), jnp.bool_)]
        return found[0] if len(found) == 1 else None

    def is_sum_of_squares(self, ref: Ref) -> bool:
        """Return whether a sum over squares is among the terms of a value."""
        seen: set[tuple[Ref, bool]] = set()
        ahead = [(ref, False)]
        while ahead:
            here = ahead.pop()
            ref, summed = here
            node = None if isinstance(ref, Constant) else self.producers.get(ref)
            if node is None or here in seen:
                continue
            seen.add(here)
            if self.is_square(node):
                if summed or (node.name == "dot_general" and self.contracts_all(node)):
                    return True
            elif fact(node.name).linear:
                ahead += [(term, summed or fact(node.name).sums) for term in node.inputs]
            elif (value := self.only_value(node)) is not None:
                if node.inputs.index(value) in fact(node.name).linear_in:
                    ahead.append((value, summed))
        return False

    def is_square(self, node: Node) -> bool:
        if node.name in ("mul", "dot_general"):
            return node.inputs[0] == node.inputs[1]
        return node.name == "square" or (node.name == "integer_pow" and node.params["y"] == 2)

    def contracts_all(self, node: Node) -> bool:
        (contracted, _), (batch, _) = node.params["dimension_numbers"]
        return len(contracted) + len(batch) == len(self.graph.shape(node.inputs[0]))

    def is_guard(self, out: int) -> bool:
        """Return whether only roots, logarithms and quotients read a value, after adding little to it."""
        ahead, found = [(out, 0.0)], False
        while ahead:
            ref, added = ahead.pop()
            if ref in self.results or abs(added) > _MOST_ADDED:
                return False
            for node in self.readers.get(ref, ()):
                known, place, only = fact(node.name), node.inputs.index(ref), self.only_value(node) == ref
                if known.flat:
                    continue
                if self.is_root(node, place):
                    found = True
                elif only and (node.name in ("add", "max") or (node.name == "sub" and place == 0)):
                    more = self.graph.splat(node.inputs[1 - place]) or 0.0
                    ahead.append((node.outputs[0], added + more))
                elif known.rearranges or (only and (node.name == "select_n" or place in known.linear_in)):
                    ahead += [(result, added) for result in node.outputs]
                else:
                    return False
        return found

    def is_root(self, node: Node, place: int) -> bool:
        """Return whether a node is undefined for negative values of an operand, or for zero."""
        if node.name == "div":
            return place == 1
        if node.name == "pow" and place == 0:
            power = self.graph.splat(node.inputs[1])
            return power is not None and (power < 0 or power != round(power))
        return node.name in ("sqrt", "rsqrt", "log") or (node.name == "integer_pow" and node.params["y"] < 0)

    def is_part(self, out: int, x: Ref) -> bool:
        """Return whether a ReLU's result is combined elementwise with the value it was made from."""
        roots = [x]
        while (node := self.producers.get(roots[-1])) is not None and fact(node.name).elementwise:
            if (before := self.only_value(node)) is None:
                break
            roots.append(before)
        ours, beside = self.reached({out}), self.reached({*roots}, out)
        alone = beside - ours
        return any(
            alone.intersection(node.inputs)
            for ref in ours
            for node in self.readers.get(ref, ())
            if fact(node.name).elementwise
        )

    def reached(self, start: set[Ref], without: int | None = None) -> set[Ref]:
        """Return the values that depend elementwise on some values."""
        found, ahead = set(start), list(start)
        while ahead:
            for node in self.readers.get(ahead.pop(), ()):
                if fact(node.name).elementwise and not fact(node.name).flat and without not in node.outputs:
                    ahead += [out for out in node.outputs if out not in found]
                    found.update(node.outputs)
        return found

    def is_hard_sigmoid(self, out: int, relu: Relu) -> bool:
        """Return whether a ReLU6 or its like is a ramp from 0 to 1 whose middle is shifted."""
        node = self.producers.get(relu.x)
        if relu.upper is None or node is None or node.name not in ("add", "sub"):
            return False
        if not any(self.graph.splat(ref) for ref in node.inputs):
            return False
        tops = {self.scaled(reader, out, relu.upper) for reader in self.readers.get(out, ())}
        return relu.upper == 1 or (bool(tops) and all(abs(top - 1) < 1e-3 for top in tops))

    def scaled(self, node: Node, ref: int, value: float) -> float:
        """Return the factor of a node that multiplies or divides a value by a number; 0 for other nodes."""
        place = node.inputs.index(ref)
        number = self.graph.splat(node.inputs[1 - place]) if len(node.inputs) == 2 else None
        if not number or place not in fact(node.name).linear_in:
            return 0.0
        return value / number if node.name == "div" else value * number
