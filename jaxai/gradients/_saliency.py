"""The gradient of the score with respect to the image, and its product with the image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import describes, one_backward


@describes(title="saliency", result="pixels", cost=one_backward, signed=True)
def saliency(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Return the gradient of the score with respect to the image, signed.

    `jaxai.maps.magnitude` reduces the channels; the paper's map is its `"max"`.

    Returns:
        d score / d image [batch, height, width, channels]; [batch, k, ...] for k classes per image.

    References:
        Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks. ICLR Workshop 2014,
        arXiv 1312.6034, section 3.1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.saliency(lambda x: x.sum((1, 2)), jnp.ones((1, 2, 2, 3)), 0)[0, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
    return _saliency(model, images, targets, batch_size=checks.batch_size(batch_size))


@partial(jax.jit, static_argnames="batch_size")
def _saliency(model, images, targets, *, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(x, t):
        return t.gradients(model, x, batch_size=batch_size)[1]

    return batching.map_images(chunk, images, targets, batch_size=batch_size)


@describes(title="input x gradient", result="pixels", cost=one_backward, signed=True)
def input_x_gradient(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Multiply the image by the gradient of the score: each value's contribution if the model is linear.

    Zeros in the model's input contribute nothing; after ImageNet normalisation zero is the mean colour.

    Returns:
        image x d score / d image [batch, height, width, channels]; [batch, k, ...] for k classes per image.

    References:
        Shrikumar et al.: Not Just a Black Box. 2016, arXiv 1605.01713, section 2.1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> square = lambda x: (x**2).sum((1, 2))
        >>> float(jaxai.input_x_gradient(square, 3 * jnp.ones((1, 1, 1, 1)), 0)[0, 0, 0, 0])
        18.0
    """
    gradient = saliency(model, images, targets, batch_size=batch_size)
    images = checks.images(images, plane=False)
    return gradient * (images if gradient.ndim == images.ndim else images[:, None])
