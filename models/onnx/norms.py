"""Operators that normalize."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from .node import Node, Result, operator
from .values import Value, along


@operator("BatchNormalization")
def _batch_norm(node: Node, x: Value, scale: Value, shift: Value, mean: Value, variance: Value) -> Result:
    if node.get("training_mode", 0):
        raise ValueError("in training mode; export the network for inference")
    factor = scale.plain / jnp.sqrt(jnp.asarray(variance.plain) + node.get("epsilon", 1e-5))
    rest = shift.plain - mean.plain * factor
    shape = [1] * x.rank
    shape[x.axis(1)] = -1
    return x.like(x.array * factor.reshape(shape).astype(x.dtype) + rest.reshape(shape).astype(x.dtype))


def _normalized(x: Any, axes: tuple[int, ...], epsilon: float) -> tuple[Any, Any, Any]:
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    factor = lax.rsqrt((centred * centred).mean(axes, keepdims=True) + epsilon)
    return centred * factor, mean, factor


@operator("InstanceNormalization")
def _instance_norm(node: Node, x: Value, scale: Value, shift: Value) -> Result:
    y, _, _ = _normalized(x.array, x.axes(range(2, x.rank)), node.get("epsilon", 1e-5))
    return x.like(y * along(scale, x) + along(shift, x))


@operator("LayerNormalization")
def _layer_norm(node: Node, x: Value, scale: Value, shift: Value | None = None) -> Result:
    axis = node.get("axis", -1)
    first = axis + x.rank if axis < 0 else axis
    y, mean, factor = _normalized(x.array, x.axes(range(first, x.rank)), node.get("epsilon", 1e-5))
    y = y * _trailing(scale, x)
    results = (x.like(y if shift is None else y + _trailing(shift, x)), x.like(mean), x.like(factor))
    return results[: len(node.outputs)]


@operator("RMSNormalization")
def _rms_norm(node: Node, x: Value, scale: Value) -> Result:
    axis = node.get("axis", -1)
    axes = x.axes(range(axis + x.rank if axis < 0 else axis, x.rank))
    mean = (x.array * x.array).mean(axes, keepdims=True)
    return x.like(x.array * lax.rsqrt(mean + node.get("epsilon", 1e-5)) * _trailing(scale, x))


def _trailing(parameter: Value, x: Value) -> Any:
    """Return parameters of the last axes so that they broadcast against a value as it is stored."""
    array = parameter.plain.reshape((1,) * (x.rank - parameter.rank) + parameter.shape)
    return array.transpose(x.order)


@operator("GroupNormalization")
def _group_norm(node: Node, x: Value, scale: Value, shift: Value) -> Result:
    groups, images = node.get("num_groups", 1), x.last
    *front, channels = images.shape
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels in {groups} groups")
    split = images.reshape(*front, groups, channels // groups)
    axes = (*range(1, x.rank - 1), x.rank)
    y, _, _ = _normalized(split, axes, node.get("epsilon", 1e-5))
    factor, rest = scale.plain, shift.plain
    if factor.shape[0] != channels:
        # Before opset 21 there is one number for each group.
        factor, rest = (jnp.repeat(each, channels // groups) for each in (factor, rest))
    return Value(y.reshape(images.shape) * factor + rest, (0, *range(2, x.rank), 1))


@operator("LpNormalization")
def _lp_norm(node: Node, x: Value) -> Result:
    place, power = x.axis(node.get("axis", -1)), node.get("p", 2)
    if power == 1:
        return x.like(x.array / jnp.abs(x.array).sum(place, keepdims=True))
    return x.like(x.array / jnp.sqrt((x.array * x.array).sum(place, keepdims=True)))


@operator("MeanVarianceNormalization")
def _mean_variance(node: Node, x: Value) -> Result:
    axes = node.whole("axes") or [0, 2, 3]
    places = x.axes(axes)
    centred = x.array - x.array.mean(places, keepdims=True)
    deviation = jnp.sqrt((centred * centred).mean(places, keepdims=True))
    return x.like(centred / (deviation + 1e-9))


@operator("LRN")
def _local_response(node: Node, x: Value) -> Result:
    size, images = node.get("size", 1), x.last
    before = (size - 1) // 2
    window = (1,) * (x.rank - 1) + (size,)
    pads = ((0, 0),) * (x.rank - 1) + ((before, size - 1 - before),)
    total = lax.reduce_window(images * images, 0.0, lax.add, window, (1,) * x.rank, pads)
    scale = node.get("bias", 1.0) + node.get("alpha", 0.0001) / size * total
    y = images * jnp.exp(-node.get("beta", 0.75) * jnp.log(scale))
    return Value(y, (0, *range(2, x.rank), 1))
