"""Whether a function is affine, read from its program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .graph import trace


def is_affine(fn: Callable[[jax.Array], Any], x: Any) -> bool:
    """Return whether a function of an array is affine: its derivative's program does not read the array.

    Args:
        fn: Returns one array; what returns several counts as not affine.
        x: The argument, or its shape and type.
    """
    shape = jax.eval_shape(fn, x)
    if not isinstance(shape, jax.ShapeDtypeStruct):
        return False

    def derivative(x, direction):
        return jax.vjp(fn, x)[1](direction)[0]

    x, direction = (jnp.zeros(s.shape, s.dtype) for s in (x, shape))
    graph, *_ = trace(derivative, x, direction)
    return graph.outputs[0] not in graph.dependents(graph.inputs[:1])
