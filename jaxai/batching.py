"""The one chunked map: how many images are in flight at once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CPU_CHUNK = 16
ACCELERATOR_CHUNK = 128


def chunk_size(count: int, batch_size: int | None) -> int:
    """Return how many of `count` samples to run at once.

    `batch_size=None` means 16 on the CPU and 128 on an accelerator, for methods that run the model
    on many changed copies of an image.
    """
    if batch_size is None:
        batch_size = CPU_CHUNK if jax.default_backend() == "cpu" else ACCELERATOR_CHUNK
    return max(1, min(count, batch_size))


def _fold(xs: Any, count: int, batch_size: int) -> tuple[Any, jax.Array]:
    """Return `xs` as [chunks, size, ...], padded with its last element, and which elements are real."""
    chunks = math.ceil(count / batch_size)
    size = math.ceil(count / chunks)
    padding = chunks * size - count

    def fold(x):
        if padding:
            x = jnp.concatenate([x, jnp.repeat(x[-1:], padding, axis=0)])
        return x.reshape(chunks, size, *x.shape[1:])

    valid = (jnp.arange(chunks * size) < count).astype(jnp.float32).reshape(chunks, size)
    return jax.tree.map(fold, xs), valid


def map_chunks(fn: Callable[[Any], Any], xs: Any, *, batch_size: int | None, count: int | None = None) -> Any:
    """Apply `fn`, which takes and returns batches, to `xs` in chunks along the first axis.

    The chunks are of equal size (the last is padded with repetitions of the last element, which are
    dropped again), so the program holds one copy of `fn`. One chunk runs without a loop. Nothing in a
    result may depend on the chunk it was computed in.

    Args:
        fn: Maps a pytree of arrays [chunk, ...] to a pytree of arrays [chunk, ...].
        xs: Pytree of arrays [count, ...].
        batch_size: At most so many elements at once; None means all.
        count: The length of the first axis, where `xs` has no leaf to tell.

    Returns:
        The pytree of `fn`'s results, with first axis `count`.
    """
    if count is None:
        count = jax.tree.leaves(xs)[0].shape[0]
    if batch_size is None or batch_size >= count:
        return fn(xs)
    ys = jax.lax.map(fn, _fold(xs, count, batch_size)[0])
    return jax.tree.map(lambda y: y.reshape(y.shape[0] * y.shape[1], *y.shape[2:])[:count], ys)


def sum_chunks(fn: Callable[[Any, jax.Array], Any], xs: Any, *, batch_size: int | None) -> Any:
    """Sum `fn` over chunks of `xs` without keeping the terms.

    Args:
        fn: `fn(chunk, valid)` returns the chunk's sum; `valid` is float[chunk], 0 for padding.
        xs: Pytree of arrays [count, ...].
        batch_size: At most so many elements at once; None means all.

    Returns:
        The sum over all chunks, a pytree like `fn`'s result.
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    if batch_size is None or batch_size >= count:
        return fn(xs, jnp.ones(count))
    folded, valid = _fold(xs, count, batch_size)
    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(fn, jax.tree.map(lambda x: x[0], folded), valid[0]),
    )

    def step(total, chunk):
        return jax.tree.map(jnp.add, total, fn(*chunk)), None

    return jax.lax.scan(step, zeros, (folded, valid))[0]
