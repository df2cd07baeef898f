"""The core of the CAM family: a layer's activations, the head after it, and a map made from both.

A member is a function `member(view, **options) -> maps`; most are `weights(acts, grads)`, and their map is
the sum over channels of weights x activations. Only the head after the layer is differentiated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import layers, maps
from .._frame import batching, checks
from .._frame import options as _options
from .._frame import targets as _targets

Weights = Callable[..., jax.Array]


@dataclass(frozen=True)
class View:
    """The input of a member: a chunk of images with their activations.

    Attributes:
        model: The layered model.
        layer: The layer's name.
        images: [batch, height, width, channels].
        targets: What to explain.
        acts: The layer's activations, float32 [batch, h, w, features].
        rest: The rest of the network, acts -> scores; takes the whole batch.
        batch_size: At most this many images in flight, or None.
    """

    model: Any
    layer: str
    images: jax.Array
    targets: _targets.Target
    acts: jax.Array
    rest: Callable[[jax.Array], jax.Array]
    batch_size: int | None

    def frozen(self) -> _targets.Target:
        """Return the targets with None replaced by each image's top class."""
        return self.targets.frozen(self.scores())

    def scores(self) -> jax.Array:
        """Return the scores of the images."""
        return self.rest(self.acts)

    def head(self, acts: jax.Array) -> Any:
        """Return the scores as a differentiable function of activations.

        Raises:
            ValueError: If they do not depend on the layer's positions. Gradients and ablations would be zero
                and the map meaningless.
        """
        if not layers.reaches(self.model, self.layer, self.images):
            raise ValueError(
                f"the scores do not depend on the positions of `layer` {self.layer} (a class token alone is"
                f" read there); the default is {layers.resolve(self.model, None, self.images)}"
            )
        return self.rest(acts)

    def gradients(self, **keywords: Any) -> tuple[jax.Array, jax.Array]:
        """Return the target values, [batch] or [batch, k], and the gradients at the layer, in float32."""
        values, grads = self.targets.gradients(self.head, self.acts, batch_size=self.batch_size, **keywords)
        return values, grads.astype(jnp.float32)

    def beside(self, grads: jax.Array) -> jax.Array:
        """Return the activations, broadcastable to gradients or weights [batch, (k), h, w, features]."""
        return self.acts if grads.ndim == self.acts.ndim else self.acts[:, None]

    def for_each_target(self, cam: jax.Array) -> jax.Array:
        """Repeat a map that does not depend on targets, [batch, h, w], for k classes per image."""
        return self.targets.spread(cam)

    def samples(self, of: jax.Array) -> int:
        """Return how many variations of a whole batch of images or activations may be in flight."""
        return batching.groups(batching.chunk_size(self.batch_size, self.model, of), of.shape[0])


Member = Callable[..., jax.Array]


def explain(
    member: Member,
    model: Any,
    images: Any,
    targets: Any,
    *,
    layer: str | None,
    relu: bool,
    upsample: bool,
    batch_size: int | None,
    probability: bool = False,
    **options: Any,
) -> jax.Array:
    """Check the arguments and run a member of the family in chunks of images.

    Args:
        member: `member(view, **options)` returns maps [batch, h, w] or [batch, k, h, w].
        model: As in `jaxai.grad_cam`.
        images: Checked here.
        targets: Checked here.
        layer: A name, or None for the default.
        relu: Whether `finish` applies the ReLU.
        upsample: Whether `finish` resizes the maps.
        batch_size: At most this many images, or variations of them or their activations, in flight.
        probability: Whether the member explains probabilities.
        **options: Passed to the member; arrays are arguments of the compiled program.
    """
    model, images, targets = _targets.prepare(model, images, targets, probability=probability)
    if layer is not None:
        layer = layers.resolve(model, layer, images)
    static, arrays = _options.split(options)
    return _explain(
        model,
        images,
        targets,
        arrays,
        member=member,
        static=static,
        layer=layer,
        relu=bool(relu),
        upsample=bool(upsample),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("member", "static", "layer", "relu", "upsample", "batch_size"))
def _explain(model, images, targets, arrays, *, member, static, layer, relu, upsample, batch_size):
    name = layers.resolve(model, layer, images)

    def chunk(x, t):
        view = look(model, name, x, t, batch_size)
        cam = member(view, **dict(static), **arrays)
        return finish(cam, x, relu=relu, upsample=upsample)

    together = batching.chunk_size(batch_size, model, images)
    return batching.map_images(chunk, images, targets, batch_size=together)


def look(model: Any, layer: str, images: jax.Array, targets: Any, batch_size: int | None) -> View:
    """Return the view of images at a layer.

    Raises:
        ValueError: If the layer's activations are not laid out like an image.
    """
    acts, head = layers.split_positions(model, layer, images)
    kind = acts.dtype

    def rest(acts):
        return head(acts.astype(kind))

    return View(model, layer, images, targets, acts.astype(jnp.float32), rest, batch_size)


def by_gradient(view: View, *, weights: Weights, **options: Any) -> jax.Array:
    """Sum the channels of `weights(acts, grads)` x activations."""
    _, grads = view.gradients()
    return weighted(view, weights(view.beside(grads), grads, **options))


def weighted(view: View, weights: jax.Array) -> jax.Array:
    """Sum the channels of weights [batch, (k), 1 or h, 1 or w, features] x activations."""
    return jnp.sum(weights * view.beside(weights), axis=-1)


def finish(cam: jax.Array, images: jax.Array, *, relu: bool, upsample: bool) -> jax.Array:
    """Apply the ReLU and the upsampling, if requested."""
    cam = jax.nn.relu(cam) if relu else cam
    return maps.upsample(cam, images.shape[1:3]) if upsample else cam
