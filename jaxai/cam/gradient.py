"""Class activation maps weighted by the gradient of the score."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from ..targets import Targets
from .core import gradient_cam


def _mean_gradient(acts: jax.Array, grads: jax.Array) -> jax.Array:
    return grads.mean((-3, -2), keepdims=True)


def grad_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Weight each channel of a layer by its mean gradient and sum: where the evidence for a class is.

    One forward pass and, for each of k targets, one backward pass of the layers after `layer`. Values are raw
    (not normalised); Captum's LayerGradCam is `relu=False, upsample=False`.

    Args:
        model: A layered model (`jaxai.models`, `jaxai.chain`, `jaxai.layers.named`).
        images: Model input, float [batch, height, width, channels].
        targets: What to explain (see `jaxai.targets`); logits are differentiated.
        layer: A name of `model.layer_names`; None picks the last layer that is not a pool and has positions.
        relu: Keep only evidence for the target.
        upsample: Resize the map to the image, bilinear between half-pixel centres.
        batch_size: At most so many images in flight; None means all.

    Returns:
        Maps [batch, height, width] ([batch, h, w] of the layer without `upsample`); [batch, k, ...] for k classes
        an image.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, or a class or layer does not exist.

    References:
        Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization.
        ICCV 2017, arXiv 1610.02391, equations 1 and 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"conv": lambda x: x * jnp.array([1.0, 2.0]), "pool": lambda x: x.mean((1, 2))})
        >>> jaxai.grad_cam(net, jnp.ones((1, 2, 2, 2)), 1)[0].tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    return gradient_cam(
        _mean_gradient,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
    )
