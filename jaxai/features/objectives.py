"""Objectives: the quantity that an image should maximise, with arithmetic.

An objective is a pytree: its kind and layer are static, its channel, position or direction is data.
Objectives of one structure therefore run as one batch, and another channel needs no recompilation. They add,
subtract and multiply: `channel("conv5_1", 12) + 2 * channel("conv5_1", 40)`, `-a`, `a * b`, `a / 3`.

An objective sees all images of a run at once (`copies` in `visualize`; one by default) and values each.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import register_dataclass

from .. import layers as _layers
from .._frame import targets as _targets

IMAGES = "input"
OPACITY = "opacity"
View = Mapping[str, jax.Array]


class Objective:
    """A function from a network's activations, {layer: activations [copies, ...]}, to values [copies]."""

    def layers(self) -> frozenset[str]:
        """Return the names of the layers it looks at; `"input"` is the image in [0, 1]."""
        raise NotImplementedError

    def __call__(self, view: View) -> jax.Array:
        """Return one value for each image of the run."""
        raise NotImplementedError

    def __add__(self, other):
        return _binary(operator.add, self, other)

    def __radd__(self, other):
        return _binary(operator.add, other, self)

    def __sub__(self, other):
        return _binary(operator.sub, self, other)

    def __rsub__(self, other):
        return _binary(operator.sub, other, self)

    def __mul__(self, other):
        return _binary(operator.mul, self, other)

    def __rmul__(self, other):
        return _binary(operator.mul, other, self)

    def __truediv__(self, other):
        return _binary(operator.truediv, self, other)

    def __neg__(self):
        return _binary(operator.mul, -1.0, self)


@register_dataclass
@dataclass(frozen=True)
class Constant(Objective):
    """A number, the same for every image."""

    value: jax.Array

    def layers(self):
        return frozenset()

    def __call__(self, view):
        return self.value


@register_dataclass
@dataclass(frozen=True)
class Binary(Objective):
    """Two objectives and the operation that combines them."""

    left: Objective
    right: Objective
    join: Callable[[Any, Any], Any] = field(metadata={"static": True})

    def layers(self):
        return self.left.layers() | self.right.layers()

    def __call__(self, view):
        return self.join(self.left(view), self.right(view))


@register_dataclass
@dataclass(frozen=True)
class Term(Objective):
    """A function of one layer: `fn(acts [copies, ...], **data) -> [copies]`.

    Attributes:
        data: Arrays by name: channel, position, direction ...
        layer: A layer's name, `"input"` or `"opacity"`.
        fn: A function defined once, at the top of a module, so that equal objectives are equal.
        options: Static keywords of `fn`.
    """

    data: dict[str, Any]
    layer: str = field(metadata={"static": True})
    fn: Callable[..., jax.Array] = field(metadata={"static": True})
    options: tuple[tuple[str, Any], ...] = field(default=(), metadata={"static": True})

    def layers(self):
        return frozenset((self.layer,))

    def __call__(self, view):
        acts = view[self.layer].astype(jnp.float32)
        return self.fn(acts, **self.data, **dict(self.options))


def _binary(join, left, right):
    first, second = (s if isinstance(s, Objective) else _constant(s) for s in (left, right))
    if first is None or second is None:
        return NotImplemented
    return Binary(first, second, join)


def _constant(value):
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number, np.ndarray, jax.Array)):
        return None
    value = jnp.asarray(value, jnp.float32)
    return Constant(value) if value.ndim == 0 else None


def at_channel(acts: jax.Array, channel: jax.Array) -> jax.Array:
    """Return the activations of one channel, [copies, ...]; a product, so that its gradient is no scatter."""
    return acts @ jax.nn.one_hot(channel, acts.shape[-1], dtype=acts.dtype)


def at_position(acts: jax.Array, position: jax.Array) -> jax.Array:
    """Return the activations [copies, channels] at (row, column); negative means the centre, size // 2."""
    if acts.ndim == 2:
        return acts
    rows, columns = acts.shape[1:3]
    center = jnp.array([rows // 2, columns // 2])
    row, column = jnp.where(position < 0, center, position)
    return jnp.einsum("nhwc,h,w->nc", acts, jax.nn.one_hot(row, rows), jax.nn.one_hot(column, columns))


def _mean(values):
    return values.reshape(values.shape[0], -1).mean(1)


def _neuron(acts, channel, position):
    return at_channel(at_position(acts, position), channel)


def _channel(acts, channel):
    return _mean(at_channel(acts, channel))


def _layer(acts):
    return _mean(jnp.square(acts))


def neuron(layer: str, channel: int, position: tuple[int, int] | None = None) -> Objective:
    """Return the activation of a channel at one position (row, column); None means the centre, size // 2."""
    place = jnp.asarray((-1, -1) if position is None else position, jnp.int32)
    return Term({"channel": _index(channel), "position": place}, layer, _neuron)


def channel(layer: str, channel: int) -> Objective:
    """Return the mean activation of a channel."""
    return Term({"channel": _index(channel)}, layer, _channel)


def layer(layer: str) -> Objective:
    """Return the mean square of all activations of a layer: DeepDream's objective."""
    return Term({}, layer, _layer)


def class_logit(index: int, layer: str = _layers.OUTPUT) -> Objective:
    """Return the score of a class."""
    return channel(layer, index)


def _index(value):
    value = jnp.asarray(value)
    if value.ndim or not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"`channel` must be an integer; got {value.dtype} of shape {value.shape}")
    return value.astype(jnp.int32)


def custom(fn: Callable[..., Any], layer: str = IMAGES) -> Objective:
    """Return an objective made of a function of a layer: `fn(acts [copies, ...]) -> float[copies]`.

    Args:
        fn: Callable pytree; arrays bound to it with `jax.tree_util.Partial` are data of the run.
        layer: A layer's name; `"input"` is the image in [0, 1] as it is before the transforms.
    """
    return Term({"fn": _targets.as_model(fn)}, layer, _custom)


def _custom(acts, fn):
    values = jnp.asarray(fn(acts))
    if values.shape != acts.shape[:1]:
        raise ValueError(
            f"a custom objective must return shape {acts.shape[:1]}, one value per image; got {values.shape}"
        )
    return values


def parse(value: Any) -> Objective:
    """Return an objective given as one, as a string or as a function of the image.

    Strings are `LAYER` (the whole layer), `LAYER:CHANNEL` and `LAYER:CHANNEL@ROW,COLUMN` (or `@center`).
    """
    if isinstance(value, Objective):
        return value
    if callable(value):
        return custom(value)
    if not isinstance(value, str):
        raise TypeError(
            f"an objective must be a string, an Objective or a callable; got {type(value).__name__}"
        )
    name, colon, rest = value.strip().partition(":")
    number, at, place = rest.partition("@")
    try:
        if not name or (colon and not number):
            raise ValueError
        if not colon:
            return layer(name)
        if not at:
            return channel(name, int(number))
        if place.strip() in ("center", "centre"):
            return neuron(name, int(number))
        row, column = map(int, place.split(","))
        return neuron(name, int(number), (row, column))
    except ValueError:
        raise ValueError(
            f"an objective is LAYER, LAYER:CHANNEL or LAYER:CHANNEL@ROW,COLUMN; got {value!r}"
        ) from None


def terms(objective: Objective) -> list[Term]:
    """Return the terms of an objective from left to right."""
    if isinstance(objective, Binary):
        return [*terms(objective.left), *terms(objective.right)]
    return [objective] if isinstance(objective, Term) else []


def check(objective: Objective, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError if a term's channel, position or direction does not exist in its layer.

    Args:
        objective: What to check; traced data passes.
        shapes: Shape of the activations [batch, ...] by layer.
    """
    for term in terms(objective):
        shape = shapes[term.layer]
        data = {k: v for k, v in term.data.items() if not isinstance(v, Tracer)}
        for name in ("channel", "channel2"):
            if name in data and not 0 <= int(data[name]) < shape[-1]:
                raise ValueError(
                    f"layer {term.layer!r} has channels 0 to {shape[-1] - 1}; got {int(data[name])}"
                )
        if "position" in data and int(data["position"][0]) >= 0:
            row, column = map(int, data["position"])
            if len(shape) != 4 or row >= shape[1] or column >= shape[2] or column < 0:
                raise ValueError(
                    f"layer {term.layer!r} has activations {shape[1:]}; got position ({row}, {column})"
                )
        if "vector" in data and data["vector"].shape != shape[-1:]:
            raise ValueError(
                f"layer {term.layer!r} has {shape[-1]} channels; got a direction of shape"
                f" {data['vector'].shape}"
            )
        if "tensor" in data and data["tensor"].shape != shape[1:]:
            raise ValueError(
                f"layer {term.layer!r} has activations {shape[1:]}; got a target of shape"
                f" {data['tensor'].shape}"
            )
