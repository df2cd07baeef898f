"""The core of the CAM family: a weight a channel (or a position), a weighted sum of activations.

A member is a function `weights(acts, grads) -> weights` that broadcasts against the activations; the map is the sum
over channels of weights x activations. Only the head after the layer is differentiated.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import batching, checks, layers, maps
from .. import targets as _targets

Weights = Callable[[jax.Array, jax.Array], jax.Array]


def gradient_cam(
    weights: Weights,
    model: Any,
    images: Any,
    targets: Any,
    *,
    layer: str | None,
    relu: bool,
    upsample: bool,
    batch_size: int | None,
) -> jax.Array:
    """Check the arguments and run a member of the family that needs the head's gradient.

    Args:
        weights: `weights(acts, grads)`, for acts and grads [..., h, w, channels], broadcasting against them.
        model: As in `jaxai.grad_cam`, like all other arguments.
    """
    model, images, targets = _targets.prepare(model, images, targets)
    layer = layers.resolve(model, layer, images)
    return _gradient_cam(
        model,
        images,
        targets,
        weights=weights,
        layer=layer,
        relu=bool(relu),
        upsample=bool(upsample),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("weights", "layer", "relu", "upsample", "batch_size"))
def _gradient_cam(model, images, targets, *, weights, layer, relu, upsample, batch_size):
    def chunk(arguments):
        x, t = arguments
        acts, head = layers.split(model, layer, x)
        spatial(acts, layer)
        grads = _targets.gradients(head, acts, t, batch_size=batch_size)[1]
        acts, grads = acts.astype(jnp.float32), grads.astype(jnp.float32)
        if grads.ndim > acts.ndim:
            acts = acts[:, None]
        cam = jnp.sum(weights(acts, grads) * acts, axis=-1)
        return finish(cam, x, relu=relu, upsample=upsample)

    return batching.map_chunks(chunk, (images, targets), batch_size=batch_size)


def spatial(acts: jax.Array, layer: str) -> None:
    """Raise ValueError if a layer's activations have no positions."""
    if acts.ndim != 4:
        raise ValueError(
            f"`layer` must have activations [batch, height, width, channels]; {layer!r} has shape {acts.shape}"
        )


def finish(cam: jax.Array, images: jax.Array, *, relu: bool, upsample: bool) -> jax.Array:
    """Apply the ReLU and the upsampling that were asked for."""
    cam = jax.nn.relu(cam) if relu else cam
    return maps.upsample(cam, images.shape[1:3]) if upsample else cam
