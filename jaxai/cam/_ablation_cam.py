"""Ablation-CAM: the drop of the score without a channel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import batching
from .._frame.describe import Passes, describes, unless_relu
from .._frame.targets import Targets
from . import _dense_head
from ._core import View, explain, weighted


def _drops(view: View) -> tuple[jax.Array, jax.Array]:
    """Return the targets' values [batch, (k)], and the values without each channel [channels, batch, (k)]."""
    channels = view.acts.shape[-1]
    targets = view.frozen()
    indices = jnp.arange(channels)
    dense = _dense_head.find(view.head, view.acts)
    if dense is None:

        def without(index):
            return targets.of(view.head(view.acts * (jnp.arange(channels) != index)))

        values = batching.map_chunks(jax.vmap(without), indices, batch_size=view.samples(view.acts))
        return targets.of(view.scores()), values

    # Each channel reaches the dense layer separately, so removing it subtracts its contribution to the
    # product.
    features = dense.before(view.acts)
    product = features @ dense.kernel
    change = features - dense.before(jnp.zeros_like(view.acts))

    def without_some(some):
        rest = product[None] - _dense_head.channel_rows(dense, change, some)
        return jax.vmap(lambda z: targets.of(dense.after(z)))(rest)

    values = batching.map_chunks(without_some, indices, batch_size=_dense_head.BLOCK)
    return targets.of(dense.after(product)), values


def _ablation(view: View) -> jax.Array:
    score, without = _drops(view)
    weights = (score[None] - without) / jnp.where(score == 0, 1, score)[None]
    return weighted(view, jnp.moveaxis(weights, 0, -1)[..., None, None, :])


@describes(
    title="Ablation-CAM", result="heatmap", cost=lambda o: Passes(heads=1 + o.channels), signed=unless_relu
)
def ablation_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Weight each channel by the relative drop of the score without it, (y - y_k) / y; uses no gradients.

    The image passes through the network once; the head runs once per channel. If the head begins with a dense
    layer, after pools that treat each channel separately, only the change of that layer's product is
    computed. If the score is zero, the drops are not divided; a negative score flips the signs, as the
    formula implies.

    Args:
        batch_size: At most this many images or changed activations in flight; None chooses by size.

    References:
        Desai, Ramaswamy: Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
        Localization. WACV 2020, equations 3 and 4.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.ablation_cam(net, x, 1, layer="features").ravel().tolist()
        [1.0, 3.0, 5.0, 7.0]
    """
    return explain(
        _ablation,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
    )
