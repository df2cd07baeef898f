"""Reference maps, as methods: maps that explain nothing, and the best order found by a search."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from . import _greedy

NAMES = ("random", "centre", "edges", "image")
# The search for an attainable order is expensive and only runs on request.
ALL = (*NAMES, "greedy")


def method(name: str, key: jax.Array) -> Any:
    """Return a reference as `method(model, images, targets) -> maps`.

    - `"random"`: uniform numbers, which depend only on the key and the image's pixels;
    - `"centre"`: a Gaussian in the middle, with a deviation of a quarter of each side;
    - `"edges"`: the magnitude of the Sobel gradient of the mean over channels;
    - `"image"`: the mean over channels;
    - `"greedy"`: the order of 7 x 7 cells that a greedy search finds best for relevance gain, in about 1,400
      forward passes per image.
    """
    return Partial(_random, key) if name == "random" else _PLAIN[name]


@jax.jit
def _drawn(key, images):
    def one(image):
        bits = jax.lax.bitcast_convert_type(image.astype(jnp.float32), jnp.uint32)
        # Weighted, so that two images with the same pixels at different places differ.
        number = (bits.reshape(-1) * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1)).sum()
        return jax.random.uniform(jax.random.fold_in(key, number), image.shape[:2])

    return jax.vmap(one)(images)


def _random(key, model, images, targets):
    return _drawn(key, images)


def _centre(model, images, targets):
    def bell(length):
        return jnp.exp(-0.5 * ((jnp.arange(length) - (length - 1) / 2) / (length / 4)) ** 2)

    height, width = images.shape[1:3]
    return jnp.broadcast_to(bell(height)[:, None] * bell(width), images.shape[:3])


@jax.jit
def _sobel(images):
    grey = jnp.pad(images.astype(jnp.float32).mean(-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    across = smooth[:, :, 2:] - smooth[:, :, :-2]
    smooth = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    down = smooth[:, 2:] - smooth[:, :-2]
    return jnp.hypot(down, across)


def _edges(model, images, targets):
    return _sobel(images)


def _image(model, images, targets):
    return images.astype(jnp.float32).mean(-1)


_PLAIN = {"centre": _centre, "edges": _edges, "image": _image, "greedy": _greedy.search}
