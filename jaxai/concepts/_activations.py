"""Activations and gradients at a layer, in the form that concept methods use."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import layers
from .._frame import batching
from .._frame.targets import Target


@partial(jax.jit, static_argnames=("names", "positions", "batch_size"))
def activations(
    model: Any, images: jax.Array, *, names: tuple[str, ...], positions: str, batch_size: int | None
) -> dict[str, jax.Array]:
    """Return each layer's activations [batch, features]: their mean over positions, or all flattened.

    All layers are read in one pass: the compiler merges what the networks up to them have in common.
    """

    def flat(acts):
        acts = acts.astype(jnp.float32)
        acts = acts.mean((1, 2)) if acts.ndim == 4 and positions == "mean" else acts
        return acts.reshape(len(acts), -1)

    def chunk(x):
        return {name: flat(layers.split_positions(model, name, x, dense=True)[0]) for name in names}

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
