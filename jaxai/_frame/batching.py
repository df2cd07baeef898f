"""Mapping in chunks, and how many images are in flight at once."""

import math
import os
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp

from . import checks

_PIXELS = 224 * 224
_MOST = 128
_BYTES_AN_IMAGE = 64 * 2**20
_CHUNK_IN_IMAGES = 1 / 3


def chunk_size(batch_size: int | None, model: Any, images: Any, *, count: int | None = None) -> int:
    """Return how many images, or changed copies of them, to run at once.

    `batch_size=None` means 128 on an accelerator. On the CPU a network runs fastest while its activations
    stay in the caches: four images of 224 x 224 pixels, one per core, or one per 64 MiB of parameters, which
    every chunk reads again (eight for VGG16's dense layers), whichever is largest; fewer images if they are
    larger, more if they are smaller, and at most 128.

    Args:
        batch_size: The caller's choice, or None.
        model: The callable pytree; only the sizes of its arrays count.
        images: An array [batch, height, width, channels], or activations; only the shape counts.
        count: The number of elements, if it limits the result.

    Raises:
        ValueError: If `batch_size` is not a positive integer.
    """
    batch_size = checks.batch_size(batch_size)
    if batch_size is None:
        batch_size = _suited(model, images) if jax.default_backend() == "cpu" else _MOST
    return max(1, batch_size if count is None else min(count, batch_size))


def _suited(model, images):
    arrays = (leaf for leaf in jax.tree.leaves(model) if hasattr(leaf, "dtype"))
    parameters = sum(array.size * array.dtype.itemsize for array in arrays)
    at_224 = max(4, os.cpu_count() or 1, parameters / _BYTES_AN_IMAGE)
    return min(_MOST, round(at_224 * _PIXELS / max(1, math.prod(images.shape[1:-1]))))


@overload
def groups(batch_size: int, size: int) -> int: ...


@overload
def groups(batch_size: None, size: int) -> None: ...


@overload
def groups(batch_size: int | None, size: int) -> int | None: ...


def groups(batch_size: int | None, size: int) -> int | None:
    """Return how many groups of `size` images may be in flight, at least one; None gives None."""
    return None if batch_size is None else max(1, batch_size // size)


def even_chunks(count: int, batch_size: int) -> tuple[int, int]:
    """Return the number of chunks and their size that process `count` elements with the least work.

    The last chunk is padded, and each chunk has a fixed cost (measured on the CPU: a third of an image), so
    50 elements in chunks of at most eight become ten chunks of five rather than seven of eight.

    Args:
        count: Number of elements.
        batch_size: The largest chunk size. The result is at least half of it, or half of `count` if that is
            smaller.
    """
    batch_size = min(batch_size, count)
    sizes = range(batch_size, (batch_size - 1) // 2, -1)
    pairs = ((math.ceil(count / size), size) for size in sizes)
    return min(pairs, key=lambda pair: pair[0] * (pair[1] + _CHUNK_IN_IMAGES))


def _fold(xs: Any, count: int, batch_size: int) -> tuple[Any, jax.Array]:
    """Return `xs` as [chunks, size, ...], padded with its last element, and a mask without the padding."""
    chunks, size = even_chunks(count, batch_size)
    padding = chunks * size - count

    def fold(x):
        if padding:
            x = jnp.concatenate([x, jnp.repeat(x[-1:], padding, axis=0)])
        return x.reshape(chunks, size, *x.shape[1:])

    valid = (jnp.arange(chunks * size) < count).astype(jnp.float32).reshape(chunks, size)
    return jax.tree.map(fold, xs), valid


def map_chunks(fn: Callable[[Any], Any], xs: Any, *, batch_size: int | None, count: int | None = None) -> Any:
    """Apply `fn`, which takes and returns batches, to `xs` in chunks along the first axis.

    The chunks are of equal size (the last is padded with copies of the last element, whose results are
    dropped), so the program holds one copy of `fn`. One chunk runs without a loop. Nothing in a result may
    depend on the chunk it was computed in.

    Args:
        fn: Maps a pytree of arrays [chunk, ...] to a pytree of arrays [chunk, ...].
        xs: Pytree of arrays [count, ...].
        batch_size: At most this many elements at once; None means all.
        count: The length of the first axis, needed if `xs` has no leaves.

    Returns:
        The pytree of `fn`'s results, with first axis `count`.
    """
    size: int = jax.tree.leaves(xs)[0].shape[0] if count is None else count
    if batch_size is None or batch_size >= size:
        return fn(xs)
    ys = jax.lax.map(fn, _fold(xs, size, batch_size)[0])
    return jax.tree.map(lambda y: y.reshape(y.shape[0] * y.shape[1], *y.shape[2:])[:size], ys)


def map_images(
    fn: Callable[..., Any], images: jax.Array, target: Any, *others: Any, batch_size: int | None
) -> Any:
    """Apply `fn(images, target, *others)` in chunks to images, their targets and further arrays per image.

    Args:
        fn: Returns a pytree of arrays [chunk, ...].
        images: [batch, ...].
        target: A `targets.Target`.
        *others: Pytrees of arrays [batch, ...].
        batch_size: At most this many images at once; None means all.
    """

    def chunk(arguments):
        x, classes, rest = arguments
        return fn(x, target.of_classes(classes), *rest)

    return map_chunks(chunk, (images, target.classes, others), batch_size=batch_size)


def _add(a, b):
    return jax.tree.map(jnp.add, a, b)


def sum_chunks(
    fn: Callable[[Any, jax.Array], Any],
    xs: Any,
    *,
    batch_size: int | None,
    merge: Callable[[Any, Any], Any] = _add,
) -> Any:
    """Sum `fn` over chunks of `xs` without keeping the terms.

    Args:
        fn: `fn(chunk, valid)` returns the chunk's sum; `valid` is float[chunk], 0 for padding, and 1 at least
            once.
        xs: Pytree of arrays [count, ...].
        batch_size: At most this many elements at once; None means all.
        merge: Combines two sums; its first call gets zeros as the first sum, which must be neutral.

    Returns:
        The sum over all chunks, a pytree like `fn`'s result.
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    if batch_size is None or batch_size >= count:
        return fn(xs, jnp.ones(count, jnp.float32))
    folded, valid = _fold(xs, count, batch_size)
    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(fn, jax.tree.map(lambda x: x[0], folded), valid[0]),
    )

    def step(total, chunk):
        return merge(total, fn(*chunk)), None

    return jax.lax.scan(step, zeros, (folded, valid))[0]
