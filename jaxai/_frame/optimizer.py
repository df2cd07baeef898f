"""A step of an optax optimizer that works in all of JAX's modes."""

from typing import Any

import jax
import optax


def step(
    optimizer: optax.GradientTransformation, gradient: Any, state: Any, params: Any = None
) -> tuple[Any, Any]:
    """Return the change of the parameters and the new state.

    Optax's Adam raises a float to the power of an integer, which strict promotion of types refuses.
    """
    with jax.numpy_dtype_promotion("standard"):
        return optimizer.update(gradient, state, params)
