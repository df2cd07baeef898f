"""Evaluation of graphs: the one loop that runs their nodes, on arrays or on other values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp

from .graph import Constant, Graph, Node, Ref

Each = Callable[[Node, Sequence[Any]], Sequence[Any]]
Exchange = Callable[[Graph], dict[int, tuple[Callable[..., Any], tuple[Ref, ...]]]]


def run_node(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
    """Return a node's results."""
    return node.run(*operands)


def values(
    graph: Graph, args: Sequence[Any], *, known: Mapping[int, Any] | None = None, each: Each = run_node
) -> dict[int, Any]:
    """Return every value of a graph, by number.

    Args:
        graph: As `trace` returns it, or a part of one.
        args: Values of the graph's inputs.
        known: Values that need not be computed, and values that a part of a graph reads from outside.
        each: `each(node, operands) -> results` is called instead of running a node: to observe or change
            results, or to interpret the program on values other than arrays. Literals and constants are
            passed unchanged.
    """
    found = {**graph.constants, **(known or {}), **dict(zip(graph.inputs, args, strict=True))}
    for node in graph.nodes:
        if node.outputs and all(out in found for out in node.outputs):
            continue
        operands = [ref.value if isinstance(ref, Constant) else found[ref] for ref in node.inputs]
        found.update(zip(node.outputs, each(node, operands), strict=True))
    return found


def evaluate(
    graph: Graph, args: Sequence[Any], *, known: Mapping[int, Any] | None = None, each: Each = run_node
) -> list[Any]:
    """Return a graph's results; the arguments are those of `values`."""
    found = values(graph, args, known=known, each=each)
    return [ref.value if isinstance(ref, Constant) else found[ref] for ref in graph.outputs]


def exchanged(graph: Graph, exchange: Exchange) -> Graph | None:
    """Return a graph in which other functions compute some of the values; None if nothing changes.

    Args:
        graph: As `trace` returns it.
        exchange: `exchange(graph)` returns the function that computes a node and that function's operands, by
            the node's first output; it is also called with the bodies of loops and branches.
    """
    found, nodes, changed = exchange(graph), [], False
    for node in graph.nodes:
        if node.outputs and node.outputs[0] in found:
            function, operands = found[node.outputs[0]]
            node = replace(node, inputs=operands, run=partial(_single, function), bodies=(), build=None)
            changed = True
        elif node.build is not None:
            bodies = [exchanged(body, exchange) for body in node.bodies]
            if any(body is not None for body in bodies):
                whole = [new or old for new, old in zip(bodies, node.bodies, strict=True)]
                node = replace(node, run=node.build(*(partial(_body, body) for body in whole)))
                changed = True
        nodes.append(node)
    return replace(graph, nodes=nodes) if changed else None


def _single(function, *operands):
    return (function(*operands),)


def _body(graph, *args):
    return [jnp.asarray(x) for x in evaluate(graph, args)]
