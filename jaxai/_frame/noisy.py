"""Noisy copies of images. Sample i depends only on (key, i) and is shared by the images of a batch."""

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._cpu import threefry
from . import checks

UNITS = ("range", "absolute")


def scale(
    images: Float[Array, "batch *positions channels"], noise: float, unit: str
) -> Float[Array, "batch ..."]:
    """Return the standard deviation of the noise for each image.

    Args:
        images: Model input.
        noise: Noise level, not negative.
        unit: `"range"`: a fraction of the image's maximum minus its minimum, as in the SmoothGrad paper and
            PAIR's library; `"absolute"`: in the units of the input, as in Captum and torch-cam.

    Raises:
        ValueError: If the noise is negative or the unit is unknown.
    """
    checks.choice(unit, "noise_unit", UNITS)
    if not isinstance(noise, Tracer) and not float(noise) >= 0:
        raise ValueError(f"`noise` must not be negative; got {noise}")
    size = jnp.asarray(noise, images.dtype)
    if unit == "absolute":
        return jnp.broadcast_to(size, (images.shape[0], *(1,) * (images.ndim - 1)))
    axes = tuple(range(1, images.ndim))
    return size * (images.max(axes, keepdims=True) - images.min(axes, keepdims=True))


def copies(
    images: Float[Array, "batch *positions channels"],
    deviation: Float[Array, "batch ..."],
    key: jax.Array,
    indices: Int[Array, " samples"],
) -> Float[Array, "samples batch *positions channels"]:
    """Return the noisy images of the samples `indices`."""

    def draw(index):
        return threefry.normal(jax.random.fold_in(key, index), images.shape[1:]).astype(images.dtype)

    return images[None] + deviation[None] * jax.vmap(draw)(indices)[:, None]
