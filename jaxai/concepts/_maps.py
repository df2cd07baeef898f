"""Where images show a concept, and where scores draw on it: activations and slopes along its direction."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers, maps
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed


@completed
def concept_maps(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    *,
    layer: str | None = None,
    directions: Float[Array, "concepts features"],
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch concepts height width"]:
    """Return the activations of a layer along directions, position by position.

    Args:
        directions: Directions of channels, [concepts, channels], as `cav`, `tcav` and `craft` find them.

    Returns:
        Maps [batch, concepts, height, width] ([batch, concepts, h, w] of the layer without `upsample`).

    Raises:
        ValueError: If the directions are not of the layer's channels.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(12.0).reshape(1, 2, 2, 3)
        >>> jaxai.concepts.concept_maps(net, x, layer="features", directions=jnp.eye(3)[1:2])[0, 0].tolist()
        [[1.0, 4.0], [7.0, 10.0]]
    """
    model, images, _ = _targets.prepare(model, images, lambda scores: scores)
    directions = jnp.asarray(directions, jnp.float32)
    return _maps(
        model,
        images,
        directions,
        layer=layers.resolve(model, layer, images),
        upsample=bool(upsample),
        batch_size=checks.batch_size(batch_size),
    )


@completed
def concept_slopes(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    directions: Float[Array, "concepts features"],
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k concepts height width"]:
    """Return the slopes of scores along directions, position by position: where a score draws on a concept.

    `concept_maps` says where a concept is; this says where more of it would change the score, and which way.
    Their sum over a layer's positions is `Tcav.sensitivity`.

    Args:
        directions: Directions of channels, [concepts, channels], as `cav`, `tcav` and `craft` find them.

    Returns:
        Maps [batch, concepts, height, width] ([batch, concepts, h, w] of the layer without `upsample`); with
        k classes per image [batch, k, ...].

    Raises:
        ValueError: If the directions are not of the layer's channels.

    References:
        Kim et al.: Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
        Vectors (TCAV). ICML 2018, arXiv 1711.11279, equation 1, at each position.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: (x**2).sum((1, 2))})
        >>> x = jnp.arange(12.0).reshape(1, 2, 2, 3)
        >>> green = jnp.eye(3)[1:2]
        >>> jaxai.concepts.concept_slopes(net, x, 1, layer="features", directions=green)[0, 0].tolist()
        [[2.0, 8.0], [14.0, 20.0]]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    directions = jnp.asarray(directions, jnp.float32)
    return _slopes(
        model,
        images,
        targets,
        directions,
        layer=layers.resolve(model, layer, images),
        upsample=bool(upsample),
        batch_size=checks.batch_size(batch_size),
    )


def _along(values, directions, layer, size):
    """Return values [..., h, w, channels] along directions, [..., concepts, h, w], resized if to a size."""
    if directions.ndim != 2 or directions.shape[1] != values.shape[-1]:
        raise ValueError(
            f"`directions` must be [concepts, {values.shape[-1]}], of the channels of {layer!r}; got"
            f" {directions.shape}"
        )
    found = jnp.moveaxis(values.astype(jnp.float32) @ directions.T, -1, -3)
    return found if size is None else maps.upsample(found, size)


@partial(jax.jit, static_argnames=("layer", "upsample", "batch_size"))
def _maps(model, images, directions, *, layer, upsample, batch_size):
    def chunk(x):
        acts = layers.split_positions(model, layer, x)[0]
        return _along(acts, directions, layer, x.shape[1:3] if upsample else None)

    return batching.map_chunks(chunk, images, batch_size=batching.chunk_size(batch_size, model, images))


@partial(jax.jit, static_argnames=("layer", "upsample", "batch_size"))
def _slopes(model, images, targets, directions, *, layer, upsample, batch_size):
    def chunk(x, t):
        acts, head = layers.split_positions(model, layer, x)
        grads = t.gradients(head, acts, batch_size=batch_size)[1]
        return _along(grads, directions, layer, x.shape[1:3] if upsample else None)

    size = batching.chunk_size(batch_size, model, images)
    return batching.map_images(chunk, images, targets, batch_size=size)
