"""The standard error of a mean."""

import jax
import jax.numpy as jnp


def standard_error(values: jax.Array) -> jax.Array:
    """Return the standard error of the mean over the first axis; NaN for a single value."""
    count = len(values)
    if count < 2:
        return jnp.full(values.shape[1:], jnp.nan, values.dtype)
    return values.std(0, ddof=1) / count**0.5
