"""Arguments that the command passes to methods besides their options, by parameter name."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import gradients
from .._frame.describe import Description


@dataclass(frozen=True)
class Run:
    """The inputs of a method's run.

    Attributes:
        net: The network, `Pretrained`.
        images: A batch of the network's input.
        targets: Classes [batch] or [batch, k], a function of the outputs, or a tuple of functions.
        key: Randomness.
        layer: For methods that look at one; None means the model's own choice.
        segments: Superpixels of the batch, if a method needs them.
        num_segments: Their static number, where batches are to share programs.
        batch_size: Images in flight at most.
    """

    net: Any
    images: jax.Array
    targets: Any
    key: jax.Array
    layer: str | None = None
    segments: jax.Array | None = None
    num_segments: int | None = None
    batch_size: int | None = None


def plain_colours(run: Run) -> jax.Array:
    """Return eight photos of one colour each, the corners of the colour cube, as the model takes them."""
    corners = jnp.array(list(itertools.product((0.0, 1.0), repeat=run.images.shape[-1])))
    photos = jnp.broadcast_to(corners[:, None, None, :], (len(corners), *run.images.shape[1:]))
    return run.net.normalize(photos).astype(run.images.dtype)


def _mean_gradient(run: Run) -> jax.Array:
    """Return the magnitude of the gradient's mean over the channels, as Xplique filters it."""
    found = gradients.saliency(run.net.model, run.images, run.targets, batch_size=run.batch_size)
    return jnp.abs(found.mean(-1))


SUPPLIED: dict[str, Callable[[Run], Any]] = {
    "model": lambda run: run.net.model,
    "images": lambda run: run.images,
    "targets": lambda run: run.targets,
    "key": lambda run: run.key,
    "layer": lambda run: run.layer,
    "segments": lambda run: run.segments,
    "num_segments": lambda run: run.num_segments,
    "batch_size": lambda run: run.batch_size,
    "baselines": plain_colours,
    "maps": _mean_gradient,
}
# Options for which the command's defaults differ from the methods': of any method, because it shows one map;
# and of a method by name. 400 stratified masks have about the error of 1,000 of LIME's own.
_PREFERRED: dict[str, Any] = {"times_activation": True}
_PREFERRED_OF: dict[str, dict[str, Any]] = {"lime": {"sampling": "stratified", "num_samples": 400}}


def preferred(description: Description) -> dict[str, Any]:
    """Return the options of a method for which the command has a default of its own."""
    general = {name: value for name, value in _PREFERRED.items() if name in description.options}
    return general | _PREFERRED_OF.get(description.name, {})
