"""Fills: the values of hidden pixels, in the space of the model's input."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._frame import checks
from . import _segments

NAMES = ("mean", "image_mean", "blur", "noise", "neighbours")


def background(
    fill: Any, images: jax.Array, segments: jax.Array | None, count: int, *, key: Any = None
) -> jax.Array:
    """Return the images whose pixels replace hidden superpixels.

    Args:
        fill: `"mean"`, each superpixel's mean colour; `"image_mean"`, the image's; `"blur"`, the image after
            a Gaussian blur of a twentieth of its shorter side; `"noise"`, Gaussian noise with the image's
            mean and deviation per channel; `"neighbours"`, the mean colour of the surrounding superpixels; or
            a number, a colour [channels], or anything that broadcasts to the images.
        images: Float [batch, height, width, channels], as the model takes them.
        segments: Labels [batch, height, width]; None without superpixels.
        count: Static number of labels.
        key: Randomness of `"noise"`.

    Returns:
        Images like `images`.

    Raises:
        ValueError: If the name is unknown, or the value does not broadcast to the images.
    """
    if isinstance(fill, str):
        if fill not in NAMES:
            raise ValueError(f"`fill` must be a value or one of {', '.join(NAMES)}; got {fill!r}")
        if fill in ("mean", "neighbours") and segments is None:
            raise ValueError(f"`fill={fill!r}` needs superpixels")
        if fill in ("blur", "neighbours") and images.ndim != 4:
            raise ValueError(f"`fill={fill!r}` needs images [batch, height, width, channels]")
        return _named(images, segments, key, fill=fill, count=count)
    return checks.like_images(fill, images, "fill")


@partial(jax.jit, static_argnames=("fill", "count"))
def _named(images, segments, key, *, fill, count):
    return _float_background(fill, images, segments, count, key).astype(images.dtype)


def _float_background(fill, images, segments, count, key):
    if fill == "mean":
        return _paint_colours(_means(images, segments, count), segments)
    if fill == "neighbours":
        return _paint_colours(_neighbour_means(images, segments, count), segments)
    places = tuple(range(1, images.ndim - 1))
    if fill == "image_mean":
        return jnp.broadcast_to(images.astype(jnp.float32).mean(places, keepdims=True), images.shape)
    if fill == "blur":
        return blur(images, 0.05 * min(images.shape[1:3]))
    if key is None:
        raise TypeError("`fill='noise'` needs a `key`")
    pixels = images.astype(jnp.float32)
    noise = jax.random.normal(jax.random.fold_in(key, 0x6E6F6973), images.shape[1:], jnp.float32)
    return pixels.mean(places, keepdims=True) + pixels.std(places, keepdims=True) * noise[None]


def _paint_colours(colours, segments):
    return jax.vmap(lambda colour, labels: colour[labels])(colours, segments)


def _means(images, segments, count):
    total = _segments.sums(images, segments, count)
    size = _segments.sums(jnp.ones(segments.shape, jnp.float32), segments, count)
    return total / jnp.maximum(size, 1)[..., None]


def _neighbour_means(images, segments, count):
    """Average the mean colours of the adjacent superpixels, weighted by the length of the common border."""
    means = _means(images, segments, count)

    def borders(labels):
        pairs = [
            (labels[1:].reshape(-1), labels[:-1].reshape(-1)),
            (labels[:, 1:].reshape(-1), labels[:, :-1].reshape(-1)),
        ]
        a = jnp.concatenate([pair[0] for pair in pairs])
        b = jnp.concatenate([pair[1] for pair in pairs])
        length = jnp.zeros((count, count), jnp.float32).at[a, b].add(1.0)
        return (length + length.T) * (1 - jnp.eye(count, dtype=jnp.float32))

    length = jax.vmap(borders)(segments)
    total = jnp.einsum("nst,ntc->nsc", length, means, precision="highest")
    return total / jnp.maximum(length.sum(-1, keepdims=True), 1)


def blur(images: jax.Array, sigma: float) -> jax.Array:
    """Blur images [batch, height, width, channels] by a Gaussian of `sigma` pixels; borders are repeated."""
    return filtered(images, _gauss(images.shape[1], sigma), _gauss(images.shape[2], sigma))


def filtered(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Filter images by a matrix [height, height] down and one [width, width] across.

    Each axis is one matrix product, which is fast at any width on every platform.
    """
    blurred = jnp.einsum("ih,bhwc->biwc", rows, images.astype(jnp.float32), precision="highest")
    blurred = jnp.einsum("jw,biwc->bijc", columns, blurred, precision="highest")
    return blurred.astype(images.dtype)


def _gauss(length: int, sigma: float) -> jax.Array:
    radius = max(1, int(4 * sigma + 0.5))
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (offsets.astype(jnp.float32) / sigma) ** 2)
    sources = jnp.clip(jnp.arange(length)[:, None] + offsets[None, :], 0, length - 1)
    rows = jnp.broadcast_to(jnp.arange(length)[:, None], sources.shape)
    matrix = (
        jnp.zeros((length, length), jnp.float32)
        .at[rows, sources]
        .add(jnp.broadcast_to(weights, sources.shape))
    )
    return matrix / weights.sum()
