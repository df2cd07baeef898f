"""Where images show a concept: activations along its direction."""

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
    directions: Float[Array, "concepts channels"],
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


@partial(jax.jit, static_argnames=("layer", "upsample", "batch_size"))
def _maps(model, images, directions, *, layer, upsample, batch_size):
    def chunk(x):
        acts = layers.split_positions(model, layer, x)[0].astype(jnp.float32)
        if directions.ndim != 2 or directions.shape[1] != acts.shape[-1]:
            raise ValueError(
                f"`directions` must be [concepts, {acts.shape[-1]}], of the channels of {layer!r}; got"
                f" {directions.shape}"
            )
        found = jnp.moveaxis(acts @ directions.T, -1, 1)
        return maps.upsample(found, x.shape[1:3]) if upsample else found

    return batching.map_chunks(chunk, images, batch_size=batching.chunk_size(batch_size, model, images))
