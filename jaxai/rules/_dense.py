"""Products of dense layers in functions of any library, by `jaxai._cpu.dense`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._cpu.dense import Settings, multiply


def product(x: jax.Array, kernel: jax.Array, *, params: dict[str, Any]) -> jax.Array:
    """Run `lax.dot_general` with the parameters of its equation; a dense layer gets a fast gradient.

    A dense layer is the product of the last axis of `x` with the first of a matrix, both of real numbers; all
    other products run unchanged.
    """
    numbers = (((x.ndim - 1,), (0,)), ((), ()))
    found = tuple(tuple(map(tuple, pair)) for pair in params["dimension_numbers"])
    real = jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(kernel.dtype, jnp.floating)
    # On an explicit mesh, JAX's own gradient handles the sharding.
    spread = params.get("out_sharding") is not None or any(map(is_spread, (x, kernel)))
    if found != numbers or kernel.ndim != 2 or not real or spread:
        return lax.dot_general(x, kernel, **params)
    return multiply(x, kernel, Settings(params["precision"], params["preferred_element_type"]))


def is_spread(x: Any) -> bool:
    """Return whether an array's type says that its axes are spread over the devices of an explicit mesh."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)
