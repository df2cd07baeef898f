"""Groups of channels that fire together: non-negative factors of a layer's activations."""

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
from . import _engine
from ._dream import identity


class Factors(NamedTuple):
    """A non-negative factorization: activations are about maps @ directions."""

    maps: Float[Array, "*batch factors"]
    """How much of each factor there is."""
    directions: Float[Array, "factors channels"]
    """Each factor's channels, of length one."""
    error: Float[Array, ""]
    """Length of the rest over length of the activations."""


def factorize(
    acts: Float[Array, "*batch channels"], *, factors: int, key: jax.Array, steps: int = 200
) -> Factors:
    """Factorize non-negative activations by multiplicative updates, which never increase the squared error.

    Args:
        acts: Any leading axes; negative values count as zero.
        factors: How many.
        key: Typed key of the start.
        steps: Number of updates.

    Returns:
        The factors, largest first.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If a number is out of range.

    References:
        Lee, Seung: Algorithms for Non-negative Matrix Factorization. NIPS 2000 (the updates for the
        squared error).
        Olah et al.: The Building Blocks of Interpretability. Distill 2018.
    """
    checks.key(key)
    acts = jnp.asarray(acts, jnp.float32)
    if acts.ndim < 2 or 0 in acts.shape:
        raise ValueError(f"`acts` must be [..., channels] with no empty axis; got shape {acts.shape}")
    return _factorize(
        acts, key, factors=checks.positive(factors, "factors"), steps=checks.positive(steps, "steps")
    )


@partial(jax.jit, static_argnames=("factors", "steps"))
def _factorize(acts, key, *, factors, steps):
    x = jnp.maximum(acts.reshape(-1, acts.shape[-1]), 0)
    left, right = jax.random.split(key)
    level = jnp.sqrt(x.mean() / factors) + 1e-6
    w = level * jax.random.uniform(left, (x.shape[0], factors), jnp.float32, 0.5, 1.5)
    h = level * jax.random.uniform(right, (factors, x.shape[1]), jnp.float32, 0.5, 1.5)
    tiny = 1e-9

    def step(pair, _):
        w, h = pair
        h = h * (w.T @ x) / (w.T @ w @ h + tiny)
        w = w * (x @ h.T) / (w @ (h @ h.T) + tiny)
        return (w, h), None

    w, h = jax.lax.scan(step, (w, h), length=steps)[0]
    lengths = jnp.linalg.norm(h, axis=1)
    h = h / jnp.where(lengths > 0, lengths, 1)[:, None]
    w = w * lengths
    order = jnp.argsort(-w.sum(0))
    w, h = w[:, order], h[order]
    error = jnp.linalg.norm(x - w @ h) / jnp.maximum(jnp.linalg.norm(x), tiny)
    return Factors(w.reshape(*acts.shape[:-1], factors), h, error)


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
