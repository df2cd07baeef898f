"""Kernels: weights of the local regression by the distance of a masked image from the original."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from . import _segments

DISTANCES = ("mask_cosine", "pixel_cosine", "pixel_euclidean")
_EXACT = jax.lax.Precision.HIGHEST


class Moments(NamedTuple):
    """Sums over each superpixel, float32 [batch, S]: of image^2, image x background and background^2."""

    image: jax.Array
    mixed: jax.Array
    background: jax.Array


@partial(jax.jit, static_argnames="count")
def moments(images: jax.Array, background: jax.Array, segments: jax.Array, count: int) -> Moments:
    """Return the sums that pixel distances need, for images [batch, height, width, channels]."""
    x, b = images.astype(jnp.float32), background.astype(jnp.float32)
    return Moments(*(_segments.sums((p * q).sum(-1), segments, count) for p, q in ((x, x), (x, b), (b, b))))


def exponential(distance: jax.Array, width: jax.Array | float) -> jax.Array:
    """Return exp(-d^2 / (2 width^2)): `lime_image`'s sqrt(exp(-d^2 / width^2)), and Captum's kernel."""
    return jnp.exp(-jnp.square(distance) / (2 * width**2))


def distances(name: str, masks: jax.Array, present: jax.Array, sums: Moments | None) -> jax.Array:
    """Return the distances of masks [samples, S] of one image from the original, float32 [samples].

    `"mask_cosine"` compares a mask with the one that shows everything: 1 - sqrt(shown / S) for binary masks.
    `"pixel_cosine"` and `"pixel_euclidean"` compare the masked image with the image; they are exact although
    no image is formed, because squares and products of pixels add up over superpixels.

    Args:
        name: One of `DISTANCES`.
        masks: float32 [samples, S].
        present: float32 [S].
        sums: Sums of this image, if pixels are compared.
    """
    masks = masks * present[None]
    if name == "mask_cosine":
        return 1 - _cosine(masks.sum(-1), jnp.square(masks).sum(-1), present.sum())
    if sums is None:
        raise TypeError(f"{name} compares pixels: it needs their `moments`")
    hidden = (1 - masks) * present[None]
    if name == "pixel_euclidean":
        apart = sums.image - 2 * sums.mixed + sums.background
        return jnp.sqrt(jnp.maximum(jnp.dot(hidden**2, apart, precision=_EXACT), 0))
    dot = jnp.dot(masks, sums.image, precision=_EXACT) + jnp.dot(hidden, sums.mixed, precision=_EXACT)
    square = (
        jnp.dot(masks**2, sums.image, precision=_EXACT)
        + 2 * jnp.dot(masks * hidden, sums.mixed, precision=_EXACT)
        + jnp.dot(hidden**2, sums.background, precision=_EXACT)
    )
    return 1 - _cosine(dot, square, sums.image.sum())


def _cosine(dot, square, other):
    """Return the cosine from a scalar product and squared norms; 0 if one of them is zero."""
    norm = jnp.sqrt(jnp.maximum(square, 0) * other)
    return jnp.where(norm > 0, dot / jnp.where(norm > 0, norm, 1), 0)


def of_counts(present: jax.Array, width: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Return the probability that fair coins show j superpixels, and LIME's weight of such masks.

    Args:
        present: float32 [S].
        width: Width of the kernel on the cosine distance.

    Returns:
        Two arrays float32 [S + 1], for j = 0 ... S; the probability is 0 beyond the superpixels present.
    """
    players = present.sum()
    shown = jnp.arange(present.shape[0] + 1, dtype=jnp.float32)
    logs = jax.scipy.special.gammaln
    inside = shown <= players
    rest = jnp.maximum(players - shown, 0)
    choose = logs(players + 1) - logs(shown + 1) - logs(rest + 1)
    probability = jnp.where(inside, jnp.exp(choose - players * jnp.log(2.0)), 0)
    distance = 1 - jnp.sqrt(jnp.minimum(shown / players, 1))
    return probability, exponential(distance, width)
