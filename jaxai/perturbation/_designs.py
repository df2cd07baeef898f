"""Random designs of masks, which determine the superpixels that are shown.

Element s of mask m depends only on (key, m, s), so an image gets the same masks alone, in a batch with images
that have more superpixels, and at any chunk size; more masks continue the same sequence.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import _kernels

SAMPLING = ("lime", "uniform", "paired", "stratified", "glime")
# Designs whose consecutive masks are drawn in pairs.
IN_PAIRS = ("paired", "stratified", "glime")
_GOLDEN = 0.6180339887498949


@partial(jax.jit, static_argnames=("samples", "count"))
def uniforms(key: jax.Array, *, samples: int, count: int) -> jax.Array:
    """Return random numbers in [0, 1), float32 [samples, count]."""

    def element(sample, index):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, sample), index), (), jnp.float32)

    rows = jax.vmap(element, (None, 0))
    return jax.vmap(rows, (0, None))(jnp.arange(samples), jnp.arange(count))


@partial(jax.jit, static_argnames=("sampling", "samples", "shared"))
def draw(
    key: jax.Array, present: jax.Array, width: jax.Array, *, sampling: str, samples: int, shared: bool
) -> jax.Array:
    """Return masks of a design.

    Args:
        key: Randomness of the masks.
        present: float32 [batch, S].
        width: Width of LIME's kernel, for `"glime"`.
        sampling: `"lime"`: fair coins, the first mask showing everything; `"uniform"`: fair coins;
            `"paired"`: every other mask is the complement of the one before; `"stratified"`: the same, with
            numbers of shown superpixels spread evenly over the coins' distribution instead of at random;
            `"glime"`: the same for the distribution of the coins times the kernel, so that the second mask of
            a pair shows superpixels from the other end of the first mask's random order.
        samples: Number of masks.
        shared: Whether all images have S superpixels.

    Returns:
        float32 [samples, S] if the images share the masks, else [batch, samples, S].
    """
    count = present.shape[1]
    if sampling in ("lime", "uniform", "paired"):
        number = samples - samples // 2 if sampling == "paired" else samples
        masks = (uniforms(key, samples=number, count=count) < 0.5).astype(jnp.float32)
        if sampling == "lime":
            return masks.at[0].set(1)
        if sampling == "paired":
            return jnp.stack([masks, 1 - masks], axis=1).reshape(-1, count)[:samples]
        return masks
    pairs = samples - samples // 2
    noise = uniforms(key, samples=pairs, count=count)
    start = jax.random.uniform(jax.random.fold_in(key, 0x73697A65), (), jnp.float32)
    # Multiples of the golden ratio fill [0, 1) evenly for any length of the sequence.
    quantiles = jnp.mod(start + _multiples(pairs), 1.0)

    def one(exists):
        probability, weight = _kernels.of_counts(exists, width)
        mass = probability * weight if sampling == "glime" else probability
        ends = jnp.cumsum(mass) / mass.sum()
        players = exists.sum().astype(jnp.int32)

        def shown(quantile):
            return jnp.minimum(jnp.searchsorted(ends[:-1], quantile, side="right"), players)

        # The second mask of a pair takes the opposite quantile, and starts from the other end of the same
        # order.
        order = jnp.argsort(jnp.argsort(jnp.where(exists > 0, noise, 2.0), axis=1), axis=1)
        first = order < shown(quantiles)[:, None]
        second = order >= players - shown(1 - quantiles)[:, None]
        masks = jnp.stack([first, second], axis=1).reshape(-1, count)[:samples]
        return masks.astype(jnp.float32) * exists[None]

    return one(present[0]) if shared else jax.vmap(one)(present)


def _multiples(samples: int) -> np.ndarray:
    """Return the fractions of 0, 1, 2, ... golden ratios, exact for any number of samples."""
    return np.mod(np.arange(samples, dtype=np.float64) * _GOLDEN, 1.0).astype(np.float32)


def given(masks: Any, batch: int, count: int) -> jax.Array:
    """Check a caller's masks and return them as float32 [samples, count] or [batch, samples, count].

    Raises:
        ValueError: If the shape does not fit, values are outside [0, 1], or all masks are equal.
    """
    values = jnp.asarray(masks).astype(jnp.float32)
    shared = values.ndim == 2 and values.shape[1] == count
    own = values.ndim == 3 and values.shape[0] == batch and values.shape[2] == count
    if not (shared or own) or 0 in values.shape:
        raise ValueError(
            f"`masks` must be [samples, {count}] or [{batch}, samples, {count}]; got shape {values.shape}"
        )
    if not isinstance(values, Tracer):
        host = np.asarray(values)
        # The negation also catches NaN.
        if not ((host >= 0) & (host <= 1)).all():
            raise ValueError(f"`masks` must lie in [0, 1]; got {host.min():g} to {host.max():g}")
        if (host == host[..., :1, :]).all():
            raise ValueError("`masks` must differ from each other; all of them are equal")
    return values
