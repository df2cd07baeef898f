"""Groups of channels that activate together: non-negative factors of a layer's activations."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.results import brief
from . import _engine
from ._dream import identity


class Factors(NamedTuple):
    """A non-negative factorization: activations are about maps @ directions."""

    maps: Float[Array, "*batch factors"]
    """Amount of each factor per position."""
    directions: Float[Array, "factors channels"]
    """Each factor's direction of channels, of length one."""
    error: Float[Array, ""]
    """Norm of the residual relative to the norm of the activations."""

    __repr__ = brief


METHODS = ("multiplicative", "projected_gradient")
STARTS = ("random", "nndsvd")
_TINY = 1e-9
# Accelerated steps for one factor before switching to the other; updates between two looks at the error.
_INNER, _LOOK = 4, 10


def factorize(
    acts: Float[Array, "*batch channels"],
    *,
    factors: int,
    key: jax.Array,
    steps: int = 200,
    method: str = "multiplicative",
    start: str = "random",
    tolerance: float = 0.0,
) -> Factors:
    """Factorize non-negative activations: maps and directions that minimise the squared error.

    Args:
        acts: Any leading axes; negative values count as zero.
        factors: How many.
        key: Typed key of the start.
        steps: Number of updates of both factors, at most.
        method: `"multiplicative"`: updates that never increase the error and never leave zero;
            `"projected_gradient"`: accelerated projected gradients for one factor at a time, which come
            closer to a minimum in the same number of steps.
        start: `"random"`; or `"nndsvd"`, the positive parts of the leading singular vectors, which is
            deterministic.
        tolerance: Stop when ten updates lower the error by less than this fraction of the start's error, as
            scikit-learn does with 1e-4; 0 never stops early.

    Returns:
        The factors, largest first.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If a number is out of range, an option does not exist, or `"nndsvd"` is asked for more
            factors than singular vectors.

    References:
        Lee, Seung: Algorithms for Non-negative Matrix Factorization. NIPS 2000 (the updates for the
        squared error).
        Guan et al.: NeNMF: An Optimal Gradient Method for Nonnegative Matrix Factorization. IEEE Transactions
        on Signal Processing 60, 2012 (projected gradients).
        Boutsidis, Gallopoulos: SVD based initialization: A head start for nonnegative matrix factorization.
        Pattern Recognition 41, 2008 (NNDSVD).
        Olah et al.: The Building Blocks of Interpretability. Distill 2018.
    """
    checks.key(key)
    checks.choice(method, "method", METHODS)
    checks.choice(start, "start", STARTS)
    acts = jnp.asarray(acts, jnp.float32)
    if acts.ndim < 2 or 0 in acts.shape:
        raise ValueError(f"`acts` must be [..., channels] with no empty axis; got shape {acts.shape}")
    factors, rows = checks.positive(factors, "factors"), math.prod(acts.shape[:-1])
    if start == "nndsvd" and factors > min(rows, acts.shape[-1]):
        raise ValueError(
            f"`factors` must be at most {min(rows, acts.shape[-1])} for start='nndsvd', the rank of {rows}"
            f" activations of {acts.shape[-1]} channels; got {factors}"
        )
    steps, tolerance = checks.positive(steps, "steps"), checks.number(tolerance, "tolerance", "[0, inf)")
    stops = tolerance > 0
    return _factorize(
        acts, key, tolerance, factors=factors, steps=steps, method=method, start=start, stops=stops
    )


@partial(jax.jit, static_argnames=("factors", "steps", "method", "start", "stops"))
def _factorize(acts, key, tolerance, *, factors, steps, method, start, stops):
    x = jnp.maximum(acts.reshape(-1, acts.shape[-1]), 0)
    w, h = _nndsvd(x, factors) if start == "nndsvd" else _random(x, factors, key)
    if method == "multiplicative":
        # Zeros would stay zero.
        w, h = (jnp.maximum(part, 1e-3 * part.mean() + _TINY) for part in (w, h))

    def step(_, pair):
        w, h = pair
        if method == "multiplicative":
            h = h * (w.T @ x) / (w.T @ w @ h + _TINY)
            w = w * (x @ h.T) / (w @ (h @ h.T) + _TINY)
        else:
            h = non_negative(h, w.T @ x, w.T @ w, _INNER)
            w = non_negative(w.T, h @ x.T, h @ h.T, _INNER).T
        return w, h

    def residual(pair):
        return jnp.linalg.norm(x - pair[0] @ pair[1])

    if stops:
        first = residual((w, h))

        def falls(state):
            _, done, before, now = state
            return (done < steps) & ((done == 0) | (before - now >= tolerance * first))

        def some(state):
            pair, done, _, now = state
            count = jnp.minimum(_LOOK, steps - done)
            pair = jax.lax.fori_loop(0, count, step, pair)
            return pair, done + count, now, residual(pair)

        (w, h), *_ = jax.lax.while_loop(falls, some, ((w, h), jnp.int32(0), first, first))
    else:
        w, h = jax.lax.fori_loop(0, steps, step, (w, h))
    lengths = jnp.linalg.norm(h, axis=1)
    h = h / jnp.where(lengths > 0, lengths, 1)[:, None]
    w = w * lengths
    order = jnp.argsort(-w.sum(0))
    w, h = w[:, order], h[order]
    error = residual((w, h)) / jnp.maximum(jnp.linalg.norm(x), _TINY)
    return Factors(w.reshape(*acts.shape[:-1], factors), h, error)


def _random(x, factors, key):
    left, right = jax.random.split(key)
    level = jnp.sqrt(x.mean() / factors) + 1e-6
    w = level * jax.random.uniform(left, (x.shape[0], factors), jnp.float32, 0.5, 1.5)
    return w, level * jax.random.uniform(right, (factors, x.shape[1]), jnp.float32, 0.5, 1.5)


def _nndsvd(x, factors):
    """Return the larger of the positive and the negative part of each leading pair of singular vectors."""
    wide = x.shape[1] > x.shape[0]
    values, vectors = jnp.linalg.eigh(x @ x.T if wide else x.T @ x)
    values, vectors = values[::-1][:factors], vectors[:, ::-1][:, :factors]
    sizes = jnp.sqrt(jnp.maximum(values, 0))
    others = (x.T if wide else x) @ vectors / jnp.maximum(sizes, 1e-6 * sizes[0] + _TINY)
    u, v = (vectors, others) if wide else (others, vectors)
    parts = [(jnp.maximum(s * u, 0), jnp.maximum(s * v, 0)) for s in (1.0, -1.0)]
    (a, b), (c, d) = parts
    lengths = [(jnp.linalg.norm(p, axis=0), jnp.linalg.norm(q, axis=0)) for p, q in parts]
    products = [p * q for p, q in lengths]
    first = products[0] >= products[1]
    product = jnp.where(first, *products)
    size = jnp.sqrt(sizes * product)

    def scaled(one, other, own, others):
        return jnp.where(first, one, other) * size / jnp.maximum(jnp.where(first, own, others), _TINY)

    return scaled(a, c, lengths[0][0], lengths[1][0]), scaled(b, d, lengths[0][1], lengths[1][1]).T


def non_negative(start: jax.Array, wanted: jax.Array, products: jax.Array, steps: int) -> jax.Array:
    """Improve y >= 0 [factors, columns] towards least squares of D' y - a by accelerated projected gradients.

    Columns do not depend on each other.

    Args:
        start: Where to begin, at least zero.
        wanted: D a, [factors, columns].
        products: D D', [factors, factors].
        steps: Number of steps; momentum restarts where it points uphill.
    """
    # The gradient's Lipschitz constant is the largest eigenvalue.
    length = 1 / jnp.maximum(jnp.linalg.eigvalsh(products)[-1], _TINY)

    def step(carry, _):
        y, ahead, t = carry
        after = jnp.maximum(ahead - length * (products @ ahead - wanted), 0)
        uphill = ((ahead - after) * (after - y)).sum(0) > 0
        t = jnp.where(uphill, 1.0, t)
        next_t = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        momentum = jnp.where(uphill, 0.0, (t - 1) / next_t)
        return (after, after + momentum * (after - y), next_t), None

    return jax.lax.scan(step, (start, start, jnp.ones(start.shape[1])), length=steps)[0][0]


@completed
def layer_activations(
    model: Callable[..., Any],
    photos: Float[Array, "batch height width channels"],
    *,
    layer: str,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    batch_size: int | None = None,
) -> Float[Array, "batch *rest"]:
    """Return a layer's activations of photos in [0, 1], in chunks; the network runs no further."""
    model, photos = _targets.as_model(model), checks.images(photos, "photos")
    normalize = _targets.as_model(normalize or identity)
    layer = layers.resolve(model, layer, photos)
    return _activations(
        model,
        normalize,
        photos,
        layer=layer,
        batch_size=batching.chunk_size(batch_size, model, photos),
    )


def position_activations(
    model: Callable[..., Any], photos: jax.Array, *, layer: str, normalize: Any = None, batch_size: Any = None
) -> Float[Array, "batch rows columns features"]:
    """Return `layer_activations` of a layer with positions; raise ValueError for another."""
    acts = layer_activations(model, photos, layer=layer, normalize=normalize, batch_size=batch_size)
    x = jax.eval_shape(normalize or identity, photos)
    layers.check_positions(_targets.as_model(model), layer, x, acts.shape)
    return acts


@partial(jax.jit, static_argnames=("layer", "batch_size"))
def _activations(model, normalize, photos, *, layer, batch_size):
    def chunk(x):
        return _engine.see(model, normalize, (layer,), x)[layer].astype(jnp.float32)

    return batching.map_chunks(chunk, photos, batch_size=batch_size)


@completed
def channel_factors(
    model: Callable[..., Any],
    photos: Float[Array, "batch height width channels"],
    *,
    layer: str,
    factors: int,
    key: jax.Array,
    steps: int = 200,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    batch_size: int | None = None,
) -> Factors:
    """Factorize a layer's activations over the positions of photos.

    Visualize a factor with `visualize(model, objectives.direction(layer, found.directions[i]), ...)`.

    Args:
        layer: A layer with positions; negative activations count as zero.
        factors: How many.
        key: Typed key of the start.
        steps: Number of updates.

    Returns:
        `maps` [batch, h, w, factors], `directions` [factors, channels], `error`.
    """
    acts = layer_activations(model, photos, layer=layer, normalize=normalize, batch_size=batch_size)
    return factorize(acts, factors=factors, key=key, steps=steps)
