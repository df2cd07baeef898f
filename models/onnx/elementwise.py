"""Operators that act on each position alone: activations, arithmetic, comparisons, choices, casts."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes, lax

from ..layers import relu6
from .node import Node, Result, operator
from .values import Value, aligned, along, is_static, numpy_of, space


def _unary(function: Callable[[Node, Any], Any]) -> Callable[..., Result]:
    return lambda node, x: x.like(function(node, x.array))


def _enter(table: dict[str, Callable[[Node, Any], Any]]) -> None:
    for name, function in table.items():
        operator(name)(_unary(function))


def _hard_sigmoid(node, x):
    return jnp.clip(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)


def _selu(node, x):
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return gamma * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))


def _elu(node, x):
    return jax.nn.elu(x, node.get("alpha", 1.0))


def _celu(node, x):
    alpha = node.get("alpha", 1.0)
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) / alpha))


def _gelu(node, x):
    return jax.nn.gelu(x, approximate=node.get("approximate", "none") == "tanh")


def _shrink(node, x):
    bound, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    return jnp.where(x < -bound, x + bias, jnp.where(x > bound, x - bias, 0))


def _threshold(node, x):
    return jnp.where(x > node.get("alpha", 1.0), x, 0)


_enter(
    {
        "Relu": lambda node, x: jax.nn.relu(x),
        "LeakyRelu": lambda node, x: jnp.where(x >= 0, x, node.get("alpha", 0.01) * x),
        "Sigmoid": lambda node, x: jax.nn.sigmoid(x),
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": lambda node, x: x * jnp.clip(x * (1 / 6) + 0.5, 0, 1),
        "Swish": lambda node, x: x * jax.nn.sigmoid(node.get("alpha", 1.0) * x),
        "Elu": _elu,
        "Celu": _celu,
        "Selu": _selu,
        "Gelu": _gelu,
        "Erf": lambda node, x: lax.erf(x),
        "Tanh": lambda node, x: jnp.tanh(x),
        "Softplus": lambda node, x: jax.nn.softplus(x),
        "Softsign": lambda node, x: x / (1 + jnp.abs(x)),
        "Mish": lambda node, x: x * jnp.tanh(jax.nn.softplus(x)),
        "Shrink": _shrink,
        "ThresholdedRelu": _threshold,
        "IsNaN": lambda node, x: jnp.isnan(x),
        "IsInf": lambda node, x: jnp.isinf(x),
        "Not": lambda node, x: ~x,
        "BitwiseNot": lambda node, x: ~x,
        "Reciprocal": lambda node, x: 1 / x,
    }
)
for _name, _function in {
    "Neg": "negative", "Abs": "abs", "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Floor": "floor",
    "Ceil": "ceil", "Round": "round", "Sign": "sign", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Asin": "arcsin", "Acos": "arccos", "Atan": "arctan", "Sinh": "sinh", "Cosh": "cosh",
    "Asinh": "arcsinh", "Acosh": "arccosh", "Atanh": "arctanh",
}.items():  # fmt: skip
    operator(_name)(_unary(lambda node, x, name=_function: getattr(space(x), name)(x)))


def _binary(name: str, function: Callable[[Any, Any, Any], Any]) -> None:
    def run(node: Node, a: Value, b: Value) -> Result:
        (x, y), order = aligned([a, b])
        return Value(function(space(x, y), x, y), order)

    operator(name)(run)


def _divide(xp, x, y):
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return x / y
    # Integers are rounded towards zero.
    quotient = xp.abs(x) // xp.abs(y)
    return xp.sign(x) * xp.sign(y) * quotient


for _name, _two in {
    "Add": lambda xp, x, y: x + y,
    "Sub": lambda xp, x, y: x - y,
    "Mul": lambda xp, x, y: x * y,
    "Div": _divide,
    "Pow": lambda xp, x, y: _power(x, y),
    "Equal": lambda xp, x, y: x == y,
    "Greater": lambda xp, x, y: x > y,
    "GreaterOrEqual": lambda xp, x, y: x >= y,
    "Less": lambda xp, x, y: x < y,
    "LessOrEqual": lambda xp, x, y: x <= y,
    "And": lambda xp, x, y: x & y,
    "Or": lambda xp, x, y: x | y,
    "Xor": lambda xp, x, y: x ^ y,
    "BitwiseAnd": lambda xp, x, y: x & y,
    "BitwiseOr": lambda xp, x, y: x | y,
    "BitwiseXor": lambda xp, x, y: x ^ y,
}.items():
    _binary(_name, _two)


def _power(x: Any, y: Any) -> Any:
    if is_static(x):
        return np.power(x, y).astype(x.dtype) if is_static(y) else jnp.power(x, y).astype(x.dtype)
    # An integer power is a product, which has a gradient at zero.
    if is_static(y) and y.size == 1 and (power := float(y.ravel()[0])) == round(power) and abs(power) <= 64:
        return lax.integer_pow(x, int(power))
    if is_static(y) and y.size == 1 and float(y.ravel()[0]) == 0.5:
        return jnp.sqrt(x)
    return jnp.power(x, y).astype(x.dtype)


@operator("Mod")
def _mod(node: Node, a: Value, b: Value) -> Result:
    (x, y), order = aligned([a, b])
    xp = space(x, y)
    return Value(xp.fmod(x, y) if node.get("fmod", 0) else xp.mod(x, y), order)


def _several(name: str, reduce: Callable[[Any, list[Any]], Any]) -> None:
    def run(node: Node, *values: Value) -> Result:
        arrays, order = aligned(values)
        return Value(reduce(space(*arrays), arrays), order)

    operator(name)(run)


def _fold(function):
    def reduce(xp, arrays):
        total = arrays[0]
        for array in arrays[1:]:
            total = function(xp, total, array)
        return total

    return reduce


_several("Sum", _fold(lambda xp, x, y: x + y))
_several("Mean", lambda xp, arrays: _fold(lambda xp, x, y: x + y)(xp, arrays) / np.float32(len(arrays)))
_several("Max", _fold(lambda xp, x, y: xp.maximum(x, y)))
_several("Min", _fold(lambda xp, x, y: xp.minimum(x, y)))


@operator("Clip")
def _clip(node: Node, x: Value, low: Value | None = None, high: Value | None = None) -> Result:
    bounds = [
        None if value is None else value.array if not value.static else value.array.ravel()
        for value in (low, high)
    ]
    limits: list[Any] = [node.attributes.get("min"), node.attributes.get("max")]
    for place, bound in enumerate(bounds):
        if bound is not None:
            limits[place] = bound[0].item() if is_static(bound) else bound
    below, above = limits
    below = None if isinstance(below, float) and below <= float(np.finfo(np.float32).min) else below
    above = None if isinstance(above, float) and above >= float(np.finfo(np.float32).max) else above
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if floating and isinstance(below, (int, float)) and below == 0:
        if above is None:
            return x.like(jax.nn.relu(x.array))
        if isinstance(above, (int, float)) and above == 6:
            return x.like(relu6(x.array))
    array = x.array
    xp = np if x.static else jnp
    if below is not None:
        array = xp.maximum(array, xp.asarray(below, array.dtype))
    if above is not None:
        array = xp.minimum(array, xp.asarray(above, array.dtype))
    return x.like(array)


@operator("PRelu")
def _prelu(node: Node, x: Value, slope: Value) -> Result:
    # Slopes of one number per channel are broadcast from the right, as [channels, 1, 1].
    if slope.rank == 1 and x.rank > 2 and slope.shape[0] == x.shape[1] != x.shape[-1]:
        return x.like(jnp.where(x.array >= 0, x.array, along(slope, x) * x.array))
    (array, factor), order = aligned([x, slope])
    return Value(jnp.where(array >= 0, array, factor * array), order)


@operator("Where")
def _where(node: Node, condition: Value, a: Value, b: Value) -> Result:
    arrays, order = aligned([condition, a, b])
    return Value(space(*arrays).where(*arrays), order)


_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip


def type_of(number: int) -> np.dtype:
    """Return the NumPy type of an ONNX type number."""
    if number not in _TYPES:
        raise ValueError(f"numbers of type {number}")
    return jnp.dtype(_TYPES[number])


def cast(x: Value, dtype: np.dtype) -> Value:
    """Return a value in another type: with 32 bits at most if it depends on the images."""
    if x.static:
        return x.like(x.array.astype(dtype))
    return x.like(x.array.astype(dtypes.canonicalize_dtype(dtype)))


@operator("Cast")
def _cast(node: Node, x: Value) -> Result:
    return cast(x, type_of(node.get("to", 0)))


@operator("CastLike")
def _cast_like(node: Node, x: Value, other: Value) -> Result:
    return cast(x, np.dtype(other.dtype))


@operator("Identity")
def _identity(node: Node, x: Value) -> Result:
    return x


@operator("Dropout")
def _dropout(node: Node, x: Value, ratio: Value | None = None, training: Value | None = None) -> Result:
    if training is not None and bool(numpy_of(training, "training_mode").ravel()[0]):
        raise ValueError("dropout in training mode; export the network for inference")
    mask = x.like(np.ones(x.array.shape, bool) if x.static else jnp.ones(x.array.shape, bool))
    return (x, mask)[: len(node.outputs)] if len(node.outputs) > 1 else x


@operator("CumSum")
def _cumulative(node: Node, x: Value, axis: Value) -> Result:
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise ValueError("attributes exclusive and reverse are not supported")
    place = x.axis(int(numpy_of(axis, "axis").ravel()[0]))
    return x.like(space(x.array).cumsum(x.array, place, dtype=x.dtype))


def _softmax_axes(node: Node, x: Value) -> tuple[int, ...]:
    """Return where the axes of a softmax are stored; before opset 13 it is over all from `axis` on."""
    if node.opset >= 13:
        return (x.axis(node.get("axis", -1)),)
    first = node.get("axis", 1)
    first = first + x.rank if first < 0 else first
    return x.axes(range(first, x.rank))


def _one_or_more(axes):
    return axes[0] if len(axes) == 1 else axes


@operator("Softmax")
def _softmax(node: Node, x: Value) -> Result:
    axes = _softmax_axes(node, x)
    return x.like(jax.nn.softmax(x.array, _one_or_more(axes))) if math.prod(x.shape) else x


@operator("LogSoftmax")
def _log_softmax(node: Node, x: Value) -> Result:
    return x.like(jax.nn.log_softmax(x.array, _one_or_more(_softmax_axes(node, x))))


@operator("Hardmax")
def _hardmax(node: Node, x: Value) -> Result:
    axes = _softmax_axes(node, x)
    if len(axes) > 1:
        raise ValueError("over several axes is not supported")
    best = jnp.argmax(x.array, axes[0])
    return x.like(jax.nn.one_hot(best, x.array.shape[axes[0]], axis=axes[0], dtype=x.dtype))
