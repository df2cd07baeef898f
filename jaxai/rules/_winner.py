"""The rule for maxima and minima: relevance goes to the winning value."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._program.graph import Node
from ._layer import Layer
from ._relevance import Rule

# The gradient of larger windows is left to XLA.
_MOST_SLICES = 32


@dataclass(frozen=True)
class Winner(Rule):
    """Give the relevance of a maximum or minimum to the winning value: winner takes all.

    Among tied values the first wins. Bach et al. 2015, section "Pixel-wise decomposition for multilayer
    networks", for max-pooling.
    """

    follows_values = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        node = layer.operation.nodes[0]
        if len(node.inputs) == 2:
            return _pair(layer, relevance)
        if node.name == "reduce_window_max" and _is_small_window(node):
            return _window(node, layer.input, relevance)
        return layer.derivative(relevance)


def _is_small_window(node: Node) -> bool:
    dilated = (*node.params["base_dilation"], *node.params["window_dilation"])
    return all(d == 1 for d in dilated) and math.prod(node.params["window_dimensions"]) <= _MOST_SLICES


def _window(node: Node, x: jax.Array, relevance: jax.Array) -> jax.Array:
    """Pass relevance to each window's first winner by strided slices; XLA's own gradient is slow on CPUs."""
    window, strides = node.params["window_dimensions"], node.params["window_strides"]
    padding = node.params["padding"]
    padded = lax.pad(lax.stop_gradient(x), jnp.asarray(-jnp.inf, x.dtype), [(a, b, 0) for a, b in padding])
    offsets = list(itertools.product(*map(range, window)))
    counts = relevance.shape
    best: Any = None
    winner: Any = None
    for number, offset in enumerate(offsets):
        ends = [o + (n - 1) * s + 1 for o, n, s in zip(offset, counts, strides, strict=True)]
        part = lax.slice(padded, offset, ends, strides)
        if best is None:
            best, winner = part, jnp.zeros(counts, jnp.int32)
        else:
            winner = jnp.where(part > best, number, winner)
            best = jnp.maximum(part, best)
    # Without the barrier the comparisons are compiled once per slice below.
    winner = lax.optimization_barrier(winner)
    total = jnp.zeros(padded.shape, relevance.dtype)
    zero = jnp.zeros((), relevance.dtype)
    for number, offset in enumerate(offsets):
        sizes = zip(padded.shape, offset, counts, strides, strict=True)
        spread = [(o, size - o - (n - 1) * s - 1, s - 1) for size, o, n, s in sizes]
        total += lax.pad(jnp.where(winner == number, relevance, 0), zero, spread)
    starts = [a for a, _ in padding]
    return lax.slice(total, starts, [a + size for a, size in zip(starts, x.shape, strict=True)])


def _pair(layer: Layer, relevance: jax.Array) -> Any:
    left, right = layer.operands(*layer.inputs)
    wins = left >= right if layer.operation.name == "max" else left <= right
    y, pullback = jax.vjp(lambda *inputs: jnp.where(wins, *layer.operands(*inputs)), *layer.inputs)
    return layer.one_or_all(pullback(relevance.astype(y.dtype)))
