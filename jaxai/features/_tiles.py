"""Gradients of large images in tiles: memory bounded by the tile, not by the photograph."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def starts(length: int, tile: int) -> tuple[int, list[int]]:
    """Return the tiles' length and where they start, so that tiles of one shape cover an axis.

    The tiles are as equal as whole pixels allow; neighbours overlap by a pixel or so where `length` is no
    multiple.
    """
    count = math.ceil(length / tile)
    size = math.ceil(length / count)
    return size, [round(i * (length - size) / max(1, count - 1)) for i in range(count)]


def gradient(objective: Callable[[jax.Array], jax.Array], images: jax.Array, tile: int) -> jax.Array:
    """Return the gradient of `objective`, summed over tiles of the images, each evaluated separately.

    Args:
        objective: images [batch, rows, columns, channels] -> values [batch].
        images: Images [batch, height, width, channels].
        tile: At most this many pixels per side.

    Returns:
        An array like `images`; where two tiles overlap, the later one's gradient.
    """
    height, rows = starts(images.shape[1], tile)
    width, columns = starts(images.shape[2], tile)
    corners = jnp.asarray([(0, i, j, 0) for i in rows for j in columns])
    shape = (images.shape[0], height, width, images.shape[3])

    def one(total, corner):
        piece = lax.dynamic_slice(images, corner, shape)
        part = jax.grad(lambda x: objective(x).sum())(piece)
        return lax.dynamic_update_slice(total, part, corner), None

    return lax.scan(one, jnp.zeros_like(images), corners)[0]
