"""Facts about the network around a layer for its rule: dead units, bounds of the input, gates."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ._operations import Network, Operation
from ._products import gate
from ._relevance import Rule


class Context:
    """The facts of a network under some rules, each computed when a rule first asks for it.

    Args:
        net: The network.
        rules: The rule of each operation.
        env: All values of one run.
        bounds: Lowest and highest images, if a rule needs them.
    """

    def __init__(self, net: Network, rules: Sequence[Rule], env: dict[int, Any], bounds: Any = None):
        self.net, self.env = net, env
        self.steps = list(zip(net.operations, rules, strict=True))
        # Arrays are made now: if made later, they could belong to the trace of one of several backward
        # passes.
        self._limits = _limits(net, self.steps, env, bounds) if any(r.needs_bounds for r in rules) else {}

    def dead_are_zero(self, operation: Operation) -> bool:
        """Return whether no relevance arrives where the operation's result is negative."""
        return operation.outputs[0] in self._silent

    def bounds(self, operation: Operation) -> tuple[jax.Array, jax.Array]:
        """Return the lowest and highest values of the operation's input."""
        return self._limits[operation.inputs[0]]

    def gate(self, operation: Operation) -> int | None:
        """Return which factor of a product is its gate."""
        return gate(self.net.graph, self._producers, operation.nodes[0])

    @cached_property
    def _producers(self):
        return self.net.graph.producers()

    @cached_property
    def _silent(self) -> set[int]:
        """The values that get no relevance where they are negative, because only a ReLU reads them."""
        keeps_zero: dict[int, bool] = {self.net.output: False}
        readers: dict[int, int] = {self.net.output: 1}
        silent = set()
        for operation, rule in reversed(self.steps):
            stays = all(keeps_zero.get(out, True) for out in operation.outputs)
            if operation.kind == "relu":
                # Negative inputs give zero outputs; positive inputs keep their relevance.
                if stays and rule.follows_values:
                    silent.update(operation.inputs)
                stays = False
            elif operation.kind not in ("max", "shape") or not rule.follows_values:
                stays = rule.zero_gets_zero
            for ref in operation.inputs:
                keeps_zero[ref] = keeps_zero.get(ref, True) and stays
                readers[ref] = readers.get(ref, 0) + 1
        return {ref for ref in silent if readers[ref] == 1}


def _limits(net: Network, steps: Sequence[tuple[Operation, Rule]], env: dict[int, Any], bounds: Any) -> dict:
    """Return the bounds of all values that are the images at most scaled, shifted or rearranged.

    Raises:
        ValueError: If a rule needs those of another value.
    """
    reached, moves = {net.image}, []
    for operation, rule in steps:
        if operation.kind in ("affine", "shape") and set(operation.inputs) <= reached:
            moves.append(operation)
            reached.update(operation.outputs)
        elif rule.needs_bounds and not set(operation.inputs) <= reached:
            name = type(rule).__name__
            raise ValueError(f"{name}() must meet a layer whose input is the image, scaled at most")
    ends = []
    for bound in bounds:
        moved = {**env, net.image: bound}
        for operation in moves:
            results = operation.call(moved)(*(moved[ref] for ref in operation.inputs))
            results = results if isinstance(results, tuple) else (results,)
            moved.update(zip(operation.outputs, results, strict=True))
        ends.append(moved)
    # A negative scale swaps the two.
    low, high = ends
    return {ref: (jnp.minimum(low[ref], high[ref]), jnp.maximum(low[ref], high[ref])) for ref in reached}
