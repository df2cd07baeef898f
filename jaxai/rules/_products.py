"""Rules for attention and gates: products of two values that depend on the image, and softmaxes."""

import math
from dataclasses import dataclass
from typing import Any

from .._program.facts import fact
from .._program.graph import Constant, Graph, Node, Ref
from ._layer import Layer, finite
from ._relevance import Rule, divide


@dataclass(frozen=True)
class Uniform(Rule):
    """Give each factor of a product, or of a quotient, half of it. Achtibat et al. 2024, arXiv 2402.05602.

    Equation 7 there, for two factors. Relevance that enters a softmax or a norm through a factor is bounded
    only with the rules for these.
    """

    stabilizer: float = 1e-6

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        left, right = layer.share(divide(relevance, layer.output, self.stabilizer))
        return left / 2, right / 2


@dataclass(frozen=True)
class SignalTakesAll(Rule):
    """Give a product's relevance to its signal and none to its gate, which only scales the signal.

    A gate is a divisor, a factor that is broadcast over positions or channels (squeeze-and-excitation), or
    the result of a sigmoid, a softmax or another bounded function. Products without one of these, such as
    queries times keys, are treated as in `Uniform`. Arras et al. 2017, arXiv 1706.07206.
    """

    stabilizer: float = 1e-6

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        if layer.gate is None:
            return Uniform(self.stabilizer)(layer, relevance)
        left, right = layer.share(divide(relevance, layer.output, self.stabilizer))
        return (None, right) if layer.gate == 0 else (left, None)


@dataclass(frozen=True)
class Softmax(Rule):
    r"""Distribute by Taylor expansion: $R_i = x_i (R^s_i - s_i \sum_j R^s_j)$, s the softmax. Not conserving.

    Achtibat et al. 2024, arXiv 2402.05602, proposition 3.1. Entries masked by minus infinity get nothing.
    """

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        total = relevance.sum(layer.axes, keepdims=True)
        return finite(layer.input) * (relevance - layer.output * total)


# How strongly a function's range indicates a gate: between 0 and 1, or only bounded.
_GATES = {"logistic": 2, "tanh": 1, "erf": 1, "clamp": 1}


def gate(graph: Graph, producers: dict[Ref, Node], node: Node) -> int | None:
    """Return which factor of a product is its gate, 0 or 1; None if neither or both could be.

    A divisor is a gate. So is a factor that was broadcast while the other was not, or that comes from a
    sigmoid, a softmax or, if the other does not, from a tanh or another bounded function.
    """
    if node.name == "div":
        return 1
    left, right = node.inputs
    if left == right:
        return None
    sources = [_source(ref, producers) for ref in (left, right)]
    if node.name == "mul":
        sizes = [math.prod(graph.shape(ref)) for ref in sources]
        if sizes[0] != sizes[1]:
            return 0 if sizes[0] < sizes[1] else 1
    grades = [_grade(ref, producers) for ref in sources]
    if grades[0] == grades[1]:
        return None
    return 0 if grades[0] > grades[1] else 1


def _source(ref: Ref, producers: dict[Ref, Node]) -> Ref:
    """Return the value before it was reshaped or broadcast."""
    while not isinstance(ref, Constant) and (node := producers.get(ref)) is not None:
        if not fact(node.name).rearranges or len(node.inputs) != 1:
            break
        ref = node.inputs[0]
    return ref


def _grade(ref: Ref, producers: dict[Ref, Node]) -> int:
    node = None if isinstance(ref, Constant) else producers.get(ref)
    if node is None:
        return 0
    if node.name == "div":
        # A softmax, or an explicitly written sigmoid: a quotient of or by an exponential.
        above, below = (_source(each, producers) for each in node.inputs)
        return max(_exponential(above, producers), _exponential(below, producers))
    return _GATES.get(node.name, 0)


def _exponential(ref: Ref, producers: dict[Ref, Node]) -> int:
    node = None if isinstance(ref, Constant) else producers.get(ref)
    while node is not None and node.name in ("add", "reduce_sum"):
        found = [_source(each, producers) for each in node.inputs if not isinstance(each, Constant)]
        node = next((producers[each] for each in found if each in producers), None)
    return 2 if node is not None and node.name == "exp" else 0
