"""Correlations and areas over the last axis; NaN where nothing varies."""

import jax
import jax.numpy as jnp


def area(curve: jax.Array, share: jax.Array) -> jax.Array:
    """Return the area under curves [..., points] over `share` [..., points] by the trapezoidal rule."""
    return ((curve[..., 1:] + curve[..., :-1]) / 2 * jnp.diff(share)).sum(-1)


def ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """Return above / below; NaN where `below` is not positive."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), jnp.nan)


def pearson(x: jax.Array, y: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Return the linear correlation, in [-1, 1], of the values whose weight is not 0."""
    w = jnp.ones_like(x) if weights is None else jnp.broadcast_to(weights, x.shape)
    x = x - (w * x).sum(-1, keepdims=True) / w.sum(-1, keepdims=True)
    y = y - (w * y).sum(-1, keepdims=True) / w.sum(-1, keepdims=True)
    return _correlation((w * x * y).sum(-1), (w * x * x).sum(-1), (w * y * y).sum(-1))


def _correlation(product, first, second):
    return jnp.clip(ratio(product, jnp.sqrt(first) * jnp.sqrt(second)), -1, 1)


def jackknife(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the linear correlation and its standard error, from the correlations without one sample each."""
    n = x.shape[-1]
    x = x - x.mean(-1, keepdims=True)
    y = y - y.mean(-1, keepdims=True)
    # The sums of squares of n - 1 centred values, without value i: s - n / (n - 1) d_i^2.
    less = n / (n - 1)
    sums = [(a * b).sum(-1, keepdims=True) - less * a * b for a, b in ((x, y), (x, x), (y, y))]
    without = _correlation(sums[0], jnp.maximum(sums[1], 0), jnp.maximum(sums[2], 0))
    spread = jnp.square(without - without.mean(-1, keepdims=True)).sum(-1)
    return pearson(x, y), jnp.sqrt(spread * (n - 1) / n)


def ranks(x: jax.Array) -> jax.Array:
    """Return the ranks of values [..., n] from 0, with the mean rank for equal values."""

    def one(keys):
        count = keys.shape[0]
        ordered, place = jnp.sort(keys), jnp.arange(count, dtype=jnp.int32)
        # The last place of each run of equal values, and the first for each value.
        ends = jnp.append(ordered[1:] != ordered[:-1], True)
        last = jax.lax.cummin(jnp.where(ends, place, count - 1), reverse=True)
        first = jnp.searchsorted(ordered, keys)
        return (first + last[first]) / 2

    flat = jax.vmap(one)(_keys(x).reshape(-1, x.shape[-1]))
    return flat.reshape(x.shape).astype(jnp.float32)


def _keys(x):
    """Return whole numbers in the order of values: XLA on the CPU sorts float32 6 times slower."""
    x = jnp.asarray(x, jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0, x), jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def spearman(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the correlation of ranks, in [-1, 1]."""
    return pearson(ranks(x), ranks(y))


def cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the cosine of the angle between two vectors."""
    return _correlation((x * y).sum(-1), (x * x).sum(-1), (y * y).sum(-1))
