"""Sliding windows over images, signals and volumes: where they lie, and means of those that cover a pixel."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._frame import checks


@dataclass(frozen=True)
class Windows:
    """Windows at regular strides, in row-major order; the last of a row or column may be cut off.

    Attributes:
        size: Height and width of the image; the length of a signal; depth, height and width of a volume.
        window: Rows and columns of a window.
        strides: Distance between neighbouring windows.
        counts: Number of windows down and across.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of windows."""
        return math.prod(self.counts)

    def cover(self, indices: jax.Array) -> jax.Array:
        """Return boolean masks [chunk, height, width] of the pixels inside each window."""
        inside, axes = jnp.ones((1,) * (len(self.size) + 1), bool), len(self.size)
        for axis in reversed(range(axes)):
            along = self._cover(axis)[indices % self.counts[axis]]
            indices = indices // self.counts[axis]
            inside = inside & jnp.expand_dims(along, [a + 1 for a in range(axes) if a != axis])
        return inside

    def _cover(self, axis: int) -> jax.Array:
        offset = (
            jnp.arange(self.size[axis])[None] - self.strides[axis] * jnp.arange(self.counts[axis])[:, None]
        )
        return (offset >= 0) & (offset < self.window[axis])

    def average(self, values: jax.Array) -> jax.Array:
        """Give each pixel the mean value of the windows that cover it, 0 where there is none.

        Args:
            values: float32 [batch, total, *k].

        Returns:
            float32 [batch, ..., height, width].
        """
        total = values.reshape(values.shape[0], *self.counts, *values.shape[2:])
        count = jnp.ones((), jnp.float32)
        for axis in range(len(self.size)):
            covers = self._cover(axis).astype(jnp.float32)
            # The windows' axis in front goes, that of the pixels comes at the end.
            total = jnp.tensordot(total, covers, axes=([1], [0]), precision="highest")
            count = jnp.tensordot(count, covers.sum(0), axes=0)
        return total / jnp.expand_dims(jnp.maximum(count, 1), range(total.ndim - count.ndim))


def sliding(size: tuple[int, ...], window: Any, strides: Any) -> Windows:
    """Place windows from the upper left corner until the last ones reach or pass the border.

    Raises:
        ValueError: If a window is larger than the image or numbers are not positive.
    """
    window = checks.lengths(window, "window", len(size))
    strides = checks.lengths(strides, "strides", len(size))
    if any(inner > outer for inner, outer in zip(window, size, strict=True)):
        what = " x ".join(map(str, size))
        raise ValueError(f"`window` must not exceed the image, {what}; got {window}")
    counts = (math.ceil((s - w) / step) + 1 for s, w, step in zip(size, window, strides, strict=True))
    return Windows(tuple(size), window, strides, tuple(counts))
