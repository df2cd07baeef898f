"""Operators that reduce or select along axes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .node import Node, Result, operator
from .values import Value, integers, numpy_of, plain, space


def _reduction(name: str, function: Callable[[Any, Any, tuple[int, ...], bool], Any]) -> None:
    def run(node: Node, x: Value, axes: Value | None = None) -> Result:
        given = node.whole("axes") if axes is None else integers(axes, "axes")
        if not given:
            if node.get("noop_with_empty_axes", 0):
                return x
            given = list(range(x.rank))
        places, keep = x.axes(given), bool(node.get("keepdims", 1))
        array = function(space(x.array), x.array, places, keep)
        if keep:
            return x.like(array)
        gone = {axis % x.rank for axis in given}
        left = [axis for axis in x.order if axis not in gone]
        return Value(array, tuple(sorted(left).index(axis) for axis in left))

    operator(name)(run)


def _mean(xp, x, axes, keep):
    return x.mean(axes, keepdims=keep, dtype=x.dtype)


def _log_sum_exp(xp, x, axes, keep):
    return jax.nn.logsumexp(x, axes, keepdims=keep)


for _name, _function in {
    "ReduceMean": _mean,
    "ReduceSum": lambda xp, x, axes, keep: x.sum(axes, keepdims=keep, dtype=x.dtype),
    "ReduceMax": lambda xp, x, axes, keep: x.max(axes, keepdims=keep),
    "ReduceMin": lambda xp, x, axes, keep: x.min(axes, keepdims=keep),
    "ReduceProd": lambda xp, x, axes, keep: x.prod(axes, keepdims=keep, dtype=x.dtype),
    "ReduceL1": lambda xp, x, axes, keep: xp.abs(x).sum(axes, keepdims=keep),
    "ReduceL2": lambda xp, x, axes, keep: xp.sqrt((x * x).sum(axes, keepdims=keep)),
    "ReduceSumSquare": lambda xp, x, axes, keep: (x * x).sum(axes, keepdims=keep),
    "ReduceLogSum": lambda xp, x, axes, keep: xp.log(x.sum(axes, keepdims=keep)),
    "ReduceLogSumExp": _log_sum_exp,
}.items():
    _reduction(_name, _function)


def _best(name: str, best: Callable[[Any, int], Any]) -> None:
    def run(node: Node, x: Value) -> Result:
        axis, array = node.get("axis", 0), jnp.asarray(x.plain)
        if node.get("select_last_index", 0):
            size = array.shape[axis]
            found = size - 1 - best(jnp.flip(array, axis), axis)
        else:
            found = best(array, axis)
        return plain(jnp.expand_dims(found, axis) if node.get("keepdims", 1) else found)

    operator(name)(run)


_best("ArgMax", jnp.argmax)
_best("ArgMin", jnp.argmin)


@operator("TopK")
def _top_k(node: Node, x: Value, k: Value | None = None) -> Result:
    count = node.get("k", 0) if k is None else int(numpy_of(k, "k").ravel()[0])
    axis, largest = node.get("axis", -1), node.get("largest", 1)
    array = jnp.moveaxis(jnp.asarray(x.plain), axis, -1)
    values, places = jax.lax.top_k(array if largest else -array, count)
    values = values if largest else -values
    return plain(jnp.moveaxis(values, -1, axis)), plain(jnp.moveaxis(places, -1, axis))
