"""Relevance through products of two values that both depend on the image: gates, attention, normalisation."""

import math
from typing import Any, NamedTuple

import jax

from .._program.graph import Constant, Graph, Node, Ref
from . import _relevance
from ._composites import Gradient, SignalTakesAll, Uniform
from ._operations import Network, Operation


class Parts(NamedTuple):
    """How much of a product's relevance its left and its right factor get."""

    left: float
    right: float
    stabilizer: float


# How surely a function's result is a gate: between 0 and 1, or only bounded.
_GATES = {"logistic": 2, "exp": 2, "tanh": 1, "erf": 1, "clamp": 1}
_REARRANGED = frozenset(
    "reshape transpose squeeze expand_dims broadcast_in_dim convert_element_type copy name"
    " reduce_precision stop_gradient optimization_barrier slice".split()
)


def parts(net: Network, operation: Operation, rule: SignalTakesAll | Uniform | Gradient) -> Parts | Gradient:
    """Return the parts of a product's factors under a rule."""
    if isinstance(rule, Gradient):
        return rule
    half = Parts(0.5, 0.5, rule.stabilizer)
    if isinstance(rule, Uniform):
        return half
    return {0: Parts(0.0, 1.0, rule.stabilizer), 1: Parts(1.0, 0.0, rule.stabilizer), None: half}[
        gate(net.graph, operation.nodes[0])
    ]


def gate(graph: Graph, node: Node) -> int | None:
    """Return which factor of a product is its gate, 0 or 1; None if neither or both could be.

    A divisor is one. So is a factor that was broadcast where the other was not, or that comes from a sigmoid,
    a softmax or, where the other does not, from a tanh or another bounded function.
    """
    if node.name == "div":
        return 1
    left, right = node.inputs
    if left == right:
        return None
    producers = graph.producers()
    sources = [_source(ref, producers) for ref in (left, right)]
    if node.name == "mul":
        sizes = [math.prod(graph.shape(ref)) for ref in sources]
        if sizes[0] != sizes[1]:
            return 0 if sizes[0] < sizes[1] else 1
    grades = [_grade(ref, producers) for ref in sources]
    if grades[0] == grades[1]:
        return None
    return 0 if grades[0] > grades[1] else 1


def _source(ref: Ref, producers: dict[int, Node]) -> Ref:
    """Return what a value was before it was reshaped or broadcast."""
    while not isinstance(ref, Constant) and (node := producers.get(ref)) is not None:
        if node.name not in _REARRANGED:
            break
        ref = node.inputs[0]
    return ref


def _grade(ref: Ref, producers: dict[int, Node]) -> int:
    node = None if isinstance(ref, Constant) else producers.get(ref)
    if node is None:
        return 0
    if node.name == "div":
        # A softmax, or a sigmoid that is written out: a quotient of an exponential, or by one.
        above, below = (_source(each, producers) for each in node.inputs)
        return max(_exponential(above, producers), _exponential(below, producers))
    return 0 if node.name == "exp" else _GATES.get(node.name, 0)


def _exponential(ref: Ref, producers: dict[int, Node]) -> int:
    node = None if isinstance(ref, Constant) else producers.get(ref)
    while node is not None and node.name in ("add", "reduce_sum"):
        found = [_source(each, producers) for each in node.inputs if not isinstance(each, Constant)]
        node = next((producers[each] for each in found if each in producers), None)
    return 2 if node is not None and node.name == "exp" else 0


def share(operation: Operation, chosen: Parts, env: dict[int, Any], relevance: jax.Array) -> tuple:
    """Return the relevances of a product's factors."""
    node = operation.nodes[0]
    left, right = (ref.value if isinstance(ref, Constant) else env[ref] for ref in node.inputs)
    if node.name == "div":
        # The dividend's contribution is the quotient itself, and the divisor's counts as another.
        y = env[operation.outputs[0]]
        kept = y * _relevance.divide(relevance, y, chosen.stabilizer)
        found = [chosen.left * kept, chosen.right * kept]
        found = [_relevance.unbroadcast(r, x.shape) for r, x in zip(found, (left, right), strict=True)]
    else:
        y, pullback = jax.vjp(lambda a, b: node.run(a, b)[0], left, right)
        back = pullback(_relevance.divide(relevance, y, chosen.stabilizer).astype(y.dtype))
        found = [chosen.left * left * back[0], chosen.right * right * back[1]]
    if node.inputs[0] == node.inputs[1]:
        return (found[0] + found[1],)
    by_ref = dict(zip(node.inputs, found, strict=True))
    return tuple(by_ref[ref] for ref in operation.inputs)
