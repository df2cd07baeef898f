"""Which superpixels are shown: random designs of masks.

Element s of mask m is drawn from (key, m, s) only, so an image gets the same masks alone, in a batch with
images that have more superpixels, and at any chunk size.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@partial(jax.jit, static_argnames=("samples", "count"))
def uniforms(key: jax.Array, *, samples: int, count: int) -> jax.Array:
    """Return random numbers in [0, 1), float32 [samples, count]."""

    def element(sample, index):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, sample), index))

    rows = jax.vmap(element, (None, 0))
    return jax.vmap(rows, (0, None))(jnp.arange(samples), jnp.arange(count))


@partial(jax.jit, static_argnames=("samples", "count"))
def uniform(key: jax.Array, samples: int, count: int) -> jax.Array:
    """Return masks float32 [samples, count] of fair coins; the first shows everything, as in `lime_image`."""
    return (uniforms(key, samples=samples, count=count) < 0.5).astype(jnp.float32).at[0].set(1)


def given(masks: Any, batch: int, count: int) -> jax.Array:
    """Check a caller's masks and return them as float32 [samples, count] or [batch, samples, count].

    Raises:
        ValueError: If the shape does not fit, values are outside of [0, 1], or all masks are equal.
    """
    values = jnp.asarray(masks).astype(jnp.float32)
    shared = values.ndim == 2 and values.shape[1] == count
    own = values.ndim == 3 and values.shape[0] == batch and values.shape[2] == count
    if not (shared or own) or 0 in values.shape:
        raise ValueError(
            f"`masks` must be [samples, {count}] or [{batch}, samples, {count}]; got shape {values.shape}"
        )
    if not isinstance(values, jax.core.Tracer):
        host = np.asarray(values)
        # The negation also catches NaN.
        if not ((host >= 0) & (host <= 1)).all():
            raise ValueError(f"`masks` must lie in [0, 1]; got {host.min():g} to {host.max():g}")
        if (host == host[..., :1, :]).all():
            raise ValueError("`masks` must differ from each other; all of them are equal")
    return values
