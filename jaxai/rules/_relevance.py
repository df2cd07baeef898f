"""Relevance through one operation: the formulas of layer-wise relevance propagation.

Each rule of a linear layer z = W x + b is a few calls of the layer with other inputs and weights, and of its
transpose: the convolution's own, so that the cost is counted in convolutions. Where the input is nowhere
negative, as after a ReLU, the halves for negative inputs are zero and are left out; where the output feeds a
ReLU and no relevance arrives at dead units, so is the half for negative outputs.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._program.graph import Node
from ._composites import AlphaBeta, Epsilon, Flat, Gamma, Gradient, Norm, Pass, Rule, WSquare, ZBox, ZPlus
from ._operations import Linear, Merged, Operation


class Context(NamedTuple):
    """What a rule sees of a linear layer besides the relevance.

    Attributes:
        layer: The layer with its batch norm folded in.
        linear: Its parts.
        x: Input.
        y: Output.
        nonnegative: Whether x is known to be nowhere negative.
        dead_are_zero: Whether no relevance arrives where y is negative.
        bounds: Lowest and highest inputs, for the z-box rule.
    """

    layer: Merged
    linear: Linear
    x: jax.Array
    y: jax.Array
    nonnegative: bool
    dead_are_zero: bool
    bounds: tuple[jax.Array, jax.Array] | None


def stabilize(z: jax.Array, epsilon: float) -> jax.Array:
    """Move values away from zero by epsilon, zero itself upwards."""
    return z + jnp.where(z >= 0, epsilon, -epsilon).astype(z.dtype)


def divide(relevance: jax.Array, z: jax.Array, epsilon: float) -> jax.Array:
    """Divide by stabilized values; with epsilon 0, an output of exactly zero passes nothing on."""
    z = stabilize(z, epsilon)
    return relevance / z if epsilon else jnp.where(z == 0, 0, relevance / jnp.where(z == 0, 1, z))


def unbroadcast(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum over the axes along which `shape` has one value."""
    axes = tuple(i for i, size in enumerate(shape) if size == 1 and x.shape[i] != 1)
    return x.sum(axes, keepdims=True)


def positive(x: jax.Array) -> jax.Array:
    """Return max(x, 0)."""
    return jnp.where(x > 0, x, 0)


def negative(x: jax.Array) -> jax.Array:
    """Return min(x, 0)."""
    return jnp.where(x < 0, x, 0)


def transposed(layer: Merged, kernel: jax.Array, x: jax.Array, s: jax.Array) -> jax.Array:
    """Apply the transpose of the layer with another kernel to `s`."""
    return jax.vjp(lambda v: layer.fn(v, kernel), x)[1](s.astype(_dtype(layer, x, kernel)))[0]


def _dtype(layer, x, kernel):
    return jax.eval_shape(layer.fn, x, kernel).dtype


def linear_relevance(rule: Rule, c: Context, relevance: jax.Array) -> jax.Array:
    """Return the relevance of a linear layer's input under a rule.

    Raises:
        ValueError: If the z-box rule has no bounds, or `Pass` meets a layer that changes the shape.
    """
    return _LINEAR[type(rule)](rule, c, relevance)


def _plus(x, *terms):
    total = x
    for term in terms:
        total = total if term is None else total + term
    return total


def _epsilon(rule: Epsilon, c: Context, r):
    return c.x * transposed(c.layer, c.layer.kernel, c.x, divide(r, c.y, rule.epsilon))


def _norm(rule: Norm, c: Context, r):
    return _epsilon(Epsilon(rule.stabilizer), c, r)


def _signed_half(c: Context, up, down, bias, r, stabilizer, gate=None):
    """Share by max(x, 0) `up` + min(x, 0) `down` + bias, over the outputs where `gate` holds."""
    fn = c.layer.fn
    if c.nonnegative:
        z = _plus(fn(c.x, up), bias)
        s = divide(r, z, stabilizer)
        return c.x * transposed(c.layer, up, c.x, s if gate is None else jnp.where(gate, s, 0))
    x_up, x_down = positive(c.x), negative(c.x)
    z = _plus(fn(x_up, up), bias, fn(x_down, down))
    s = divide(r, z, stabilizer)
    s = s if gate is None else jnp.where(gate, s, 0)
    return x_up * transposed(c.layer, up, c.x, s) + x_down * transposed(c.layer, down, c.x, s)


def _z_plus(rule: ZPlus, c: Context, r):
    w, b = c.layer.kernel, c.layer.bias
    bias = None if b is None else positive(b)
    return _signed_half(c, positive(w), negative(w), bias, r, rule.stabilizer)


def _alpha_beta(rule: AlphaBeta, c: Context, r):
    w, b = c.layer.kernel, c.layer.bias
    up, down = (None, None) if b is None else (positive(b), negative(b))
    result = _signed_half(c, positive(w), negative(w), up, r, rule.stabilizer)
    if rule.alpha != 1:
        result = rule.alpha * result
    if rule.beta:
        result -= rule.beta * _signed_half(c, negative(w), positive(w), down, r, rule.stabilizer)
    return result


def _gamma(rule: Gamma, c: Context, r):
    w, b = c.layer.kernel, c.layer.bias
    more, less = w + rule.gamma * positive(w), w + rule.gamma * negative(w)
    up, down = (None, None) if b is None else (b + rule.gamma * positive(b), b + rule.gamma * negative(b))
    result = _signed_half(c, more, less, up, r, rule.stabilizer, gate=c.y > 0)
    if c.dead_are_zero:
        return result
    return result + _signed_half(c, less, more, down, r, rule.stabilizer, gate=c.y < 0)


def _z_box(rule: ZBox, c: Context, r):
    if c.bounds is None:
        raise ValueError("the z-box rule needs the lowest and highest inputs: `low` and `high` must be given")
    w, fn = c.layer.kernel, c.layer.fn
    up, down = positive(w), negative(w)
    low, high = (jnp.broadcast_to(bound, c.x.shape) for bound in c.bounds)
    # A bias takes part with all of itself, less its two halves: with nothing.
    z = fn(c.x, w) - fn(low, up) - fn(high, down)
    s = divide(r, z, rule.stabilizer)
    return (
        c.x * transposed(c.layer, w, c.x, s)
        - low * transposed(c.layer, up, c.x, s)
        - high * transposed(c.layer, down, c.x, s)
    )


def _w_square(rule: WSquare, c: Context, r):
    squares, b = c.layer.kernel**2, c.layer.bias
    one = jnp.ones((1, *c.x.shape[1:]), c.x.dtype) if _is_batched(c) else jnp.ones_like(c.x)
    z = _plus(c.layer.fn(one, squares), None if b is None else b**2)
    return transposed(c.layer, squares, c.x, divide(r, z, rule.stabilizer))


def _is_batched(c: Context) -> bool:
    """Return whether one image can stand for all: a convolution with the images on its first axis."""
    node = c.linear.node
    if node.name == "conv_general_dilated":
        numbers = node.params["dimension_numbers"]
        return numbers.lhs_spec[0] == 0 and numbers.out_spec[0] == 0 and not c.linear.steps
    return False


def _flat(rule: Flat, c: Context, r):
    node, layer = c.linear.node, c.layer
    if node.name == "conv_general_dilated" and node.params["feature_group_count"] == 1:
        return _flat_convolution(rule, c, r)
    ones = jnp.ones_like(layer.kernel)
    z = layer.fn(jnp.ones_like(c.x), ones)
    return transposed(layer, ones, c.x, divide(r, z, rule.stabilizer))


def _flat_convolution(rule: Flat, c: Context, r):
    """Share evenly with one channel in and out: all channels of a position get the same."""
    numbers, linear = c.linear.node.params["dimension_numbers"], c.linear
    channels, features = numbers.lhs_spec[1], numbers.out_spec[1]
    window = [1 if axis in numbers.rhs_spec[:2] else n for axis, n in enumerate(c.layer.kernel.shape)]
    shape = [1 if axis == channels else n for axis, n in enumerate(c.x.shape)]
    kernel, one = jnp.ones(window, c.x.dtype), jnp.ones(shape, c.x.dtype)
    z = linear.base(one, kernel) * c.x.shape[channels]
    # Relevance is put back into the convolution's own shape, where its affine steps are the identity.
    shaped = jnp.zeros(linear.shape, r.dtype)
    r = jax.vjp(linear.after, shaped)[1](r)[0].sum(features, keepdims=True)
    s = divide(r, z, rule.stabilizer).astype(c.x.dtype)
    back = jax.vjp(lambda v: linear.base(v, kernel), one)[1](s)[0]
    return jnp.broadcast_to(back, c.x.shape)


def _pass(rule: Pass, c: Context, r):
    if r.shape != c.x.shape:
        raise ValueError(
            f"Pass() must meet an operation that keeps the shape; got {c.x.shape} in and {r.shape} out"
        )
    return r


def _gradient(rule: Gradient, c: Context, r):
    return transposed(c.layer, c.layer.kernel, c.x, r)


_LINEAR: dict[type, Callable[..., jax.Array]] = {
    Epsilon: _epsilon,
    Gamma: _gamma,
    ZPlus: _z_plus,
    AlphaBeta: _alpha_beta,
    ZBox: _z_box,
    WSquare: _w_square,
    Flat: _flat,
    Pass: _pass,
    Norm: _norm,
    Gradient: _gradient,
}


def shared(operation: Operation, env: dict[int, Any], relevance: jax.Array, stabilizer: float) -> tuple:
    """Share relevance over the operands of a sum or of a pool by their part of the result."""
    values = [env[ref] for ref in operation.inputs]
    y, pullback = jax.vjp(operation.call(env), *values)
    parts = pullback((divide(relevance, y, stabilizer)).astype(y.dtype))
    return tuple(x * part for x, part in zip(values, parts, strict=True))


def by_gradient(operation: Operation, env: dict[int, Any], relevances: tuple) -> tuple:
    """Pull relevance back by the derivative; values that are no floating-point numbers get none."""
    values = [env[ref] for ref in operation.inputs]
    y, pullback = jax.vjp(operation.call(env), *values)
    leaves = y if isinstance(y, tuple) else (y,)
    cotangents = tuple(
        jnp.zeros(leaf.shape, jax.dtypes.float0)
        if not jnp.issubdtype(leaf.dtype, jnp.floating)
        else jnp.zeros_like(leaf)
        if r is None
        else r.astype(leaf.dtype)
        for leaf, r in zip(leaves, relevances, strict=True)
    )
    return pullback(cotangents if isinstance(y, tuple) else cotangents[0])


def to_winner(operation: Operation, env: dict[int, Any], relevance: jax.Array) -> tuple:
    """Send the relevance of a maximum to the value that won; the first of tied ones in a pool or a pair."""
    values = [env[ref] for ref in operation.inputs]
    if operation.name in ("max", "min") and len(operation.nodes[0].inputs) == 2:
        return _pair_winner(operation, env, values, relevance)
    if operation.name == "reduce_window_max" and _is_small_window(operation.nodes[0]):
        return (_window_winner(operation.nodes[0], values[0], relevance),)
    return by_gradient(operation, env, (relevance,))


# Larger windows are left to XLA's own gradient.
_MOST_SLICES = 32


def _is_small_window(node: Node) -> bool:
    dilated = (*node.params["base_dilation"], *node.params["window_dilation"])
    return all(d == 1 for d in dilated) and math.prod(node.params["window_dimensions"]) <= _MOST_SLICES


def _window_winner(node: Node, x: jax.Array, relevance: jax.Array) -> jax.Array:
    """Send relevance to each window's first winner by strided slices; XLA's own gradient is slow on CPUs."""
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
    # Without the barrier the comparisons are compiled once for each of the slices below.
    winner = lax.optimization_barrier(winner)
    total = jnp.zeros(padded.shape, relevance.dtype)
    zero = jnp.zeros((), relevance.dtype)
    for number, offset in enumerate(offsets):
        sizes = zip(padded.shape, offset, counts, strides, strict=True)
        spread = [(o, size - o - (n - 1) * s - 1, s - 1) for size, o, n, s in sizes]
        total += lax.pad(jnp.where(winner == number, relevance, 0), zero, spread)
    starts = [a for a, _ in padding]
    return lax.slice(total, starts, [a + size for a, size in zip(starts, x.shape, strict=True)])


def _pair_winner(operation, env, values, relevance):
    node = operation.nodes[0]
    left, right = (ref.value if not isinstance(ref, int) else env[ref] for ref in node.inputs)
    wins = left >= right if node.name == "max" else left <= right
    parts: dict[int, Any] = dict.fromkeys(operation.inputs, 0)
    for ref, part in zip(
        node.inputs, (jnp.where(wins, relevance, 0), jnp.where(wins, 0, relevance)), strict=True
    ):
        if isinstance(ref, int) and ref in parts:
            parts[ref] = parts[ref] + unbroadcast(part, env[ref].shape)
    return tuple(parts[ref] for ref in operation.inputs)
