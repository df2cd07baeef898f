"""Score-CAM: channels weighted by the score of the image masked by them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import maps
from .._frame import batching
from .._frame.describe import Passes, describes, unless_relu
from .._frame.targets import Targets
from ._core import View, explain, weighted

Change = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _mask_scores(view: View, change: Change, num_samples: int) -> jax.Array:
    """Return the mean scores of the image under each channel's masks, [batch, (k), 1, 1, channels].

    `change(mask, channel, sample)` returns a mask [batch, height, width] that replaces the channel's; values
    are 0 to 1.
    """
    batch, *_, channels = view.acts.shape
    targets = view.frozen()
    size = view.images.shape[1:3]

    def one(index):
        channel, sample = index // num_samples, index % num_samples
        mask = maps.upsample(jnp.take(view.acts, channel, axis=-1), size)
        mask = mask - mask.min((1, 2), keepdims=True)
        mask = mask / (mask.max((1, 2), keepdims=True) + 1e-8)
        return view.images * change(mask, channel, sample)[..., None].astype(view.images.dtype)

    def some(indices):
        masked = jax.vmap(one)(indices)
        count = masked.shape[0]
        scores = view.model(masked.reshape(count * batch, *view.images.shape[1:]))
        values = targets.tile(count).of(scores)
        return values.reshape(count, batch, *values.shape[1:])

    scores = batching.map_chunks(
        some, jnp.arange(channels * num_samples), batch_size=view.samples(view.images)
    )
    scores = scores.reshape(channels, num_samples, *scores.shape[1:]).mean(1)
    return jnp.moveaxis(scores, 0, -1)[..., None, None, :]


def _score(view: View) -> jax.Array:
    scores = _mask_scores(view, lambda mask, channel, sample: mask, 1)
    return weighted(view, jax.nn.softmax(scores, axis=-1))


@describes(title="Score-CAM", result="heatmap", cost=lambda o: Passes(1 + o.channels), signed=unless_relu)
def score_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Weight each channel by the softmax of the scores of the image masked by it; uses no gradients.

    Costs one forward pass per channel of the layer, shared by k targets. A mask is the upsampled channel
    scaled to 0 .. 1. Masked pixels become zero in the model's input (grey after ImageNet normalisation).

    Args:
        targets: What to explain; logits are compared (the baseline's score cancels in the softmax). None is
            the top class of the image itself.

    References:
        Wang et al.: Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks. CVPR
        Workshops 2020, arXiv 1910.01279, equations 5 to 8.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.score_cam(net, x, 1, layer="features").ravel().tolist()
        [0.5, 2.5, 4.5, 6.5]
    """
    return explain(
        _score,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
    )
