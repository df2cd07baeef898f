"""Sliding windows over an image: where they lie, and averages over the windows that cover a pixel."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from .._frame import checks


@dataclass(frozen=True)
class Windows:
    """Windows at regular strides, in row-major order; the last of a row or column may be cut off.

    Attributes:
        size: Height and width of the image.
        window: Rows and columns of a window.
        strides: Distance of neighbouring windows.
        counts: Number of windows down and across.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    strides: tuple[int, int]
    counts: tuple[int, int]

    @property
    def total(self) -> int:
        """Number of windows."""
        return self.counts[0] * self.counts[1]

    def starts(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the first row and column of each window."""
        return (indices // self.counts[1]) * self.strides[0], (indices % self.counts[1]) * self.strides[1]

    def cover(self, indices: jax.Array) -> jax.Array:
        """Return boolean masks [chunk, height, width] of the pixels inside each window."""
        down, across = self._cover(0), self._cover(1)
        rows, columns = indices // self.counts[1], indices % self.counts[1]
        return down[rows][:, :, None] & across[columns][:, None, :]

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
        down, across = self._cover(0).astype(jnp.float32), self._cover(1).astype(jnp.float32)
        grid = values.reshape(values.shape[0], *self.counts, *values.shape[2:])
        total = jnp.einsum("nij...,ih,jw->n...hw", grid, down, across, precision="highest")
        count = down.sum(0)[:, None] * across.sum(0)[None, :]
        return total / jnp.maximum(count, 1).reshape((1,) * (total.ndim - 2) + count.shape)


def sliding(size: tuple[int, ...], window: object, strides: object) -> Windows:
    """Place windows from the upper left corner until the last ones reach or pass the border.

    Raises:
        ValueError: If a window is larger than the image or numbers are not positive.
    """
    window, strides = checks.pair(window, "window"), checks.pair(strides, "strides")
    if window[0] > size[0] or window[1] > size[1]:
        raise ValueError(f"`window` must not exceed the image, {size[0]} x {size[1]}; got {window}")
    counts = [math.ceil((size[axis] - window[axis]) / strides[axis]) + 1 for axis in (0, 1)]
    return Windows((size[0], size[1]), window, strides, (counts[0], counts[1]))
