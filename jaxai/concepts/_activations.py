"""Activations and gradients at a layer, in the form that concept methods use."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import layers
from .._frame import batching
from .._frame.targets import Target


@partial(jax.jit, static_argnames=("layer", "positions", "batch_size"))
def activations(
    model: Any, images: jax.Array, *, layer: str, positions: str, batch_size: int | None
) -> jax.Array:
    """Return activations [batch, features]: their mean over positions, or all positions flattened."""

    def chunk(x):
        acts = layers.split_positions(model, layer, x, dense=True)[0].astype(jnp.float32)
        acts = acts.mean((1, 2)) if acts.ndim == 4 and positions == "mean" else acts
        return acts.reshape(len(acts), -1)

    return batching.map_chunks(chunk, images, batch_size=batching.chunk_size(batch_size, model, images))


@partial(jax.jit, static_argnames=("layer", "positions", "batch_size"))
def slopes(
    model: Any, images: jax.Array, targets: Target, *, layer: str, positions: str, batch_size: int | None
) -> jax.Array:
    """Return gradients [batch, features] ([batch, k, features]), summed over positions or flattened."""

    def chunk(x, t):
        acts, head = layers.split_positions(model, layer, x, dense=True)
        grads = t.gradients(head, acts, batch_size=batch_size)[1].astype(jnp.float32)
        lead = grads.shape[: 1 + len(t.axes)]
        if acts.ndim == 4 and positions == "mean":
            grads = grads.sum((-3, -2))
        return grads.reshape(*lead, -1)

    size = batching.chunk_size(batch_size, model, images)
    return batching.map_images(chunk, images, targets, batch_size=size)
