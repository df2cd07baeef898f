"""Layouts of a layer's values on the image: channels last, channels first, tokens of a grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

NHWC, NCHW = "NHWC", "NCHW"


@dataclass(frozen=True)
class Tokens:
    """Layout of values [batch, tokens, channels]: a grid on the images, row by row, after other tokens.

    Attributes:
        grid: Rows and columns of the grid.
        prefix: Number of tokens before those of the grid: class tokens, registers.
        axis: The axis of the tokens: 1, or 0 for values [tokens, batch, channels].
    """

    grid: tuple[int, int]
    prefix: int = 0
    axis: int = 1

    def __post_init__(self):
        numbers = (*self.grid, self.prefix)
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
        if len(self.grid) != 2 or not whole or min(self.grid) < 1 or self.prefix < 0:
            raise ValueError(
                "`Tokens` must have a grid of (rows, columns) and a prefix of at least 0; got"
                f" grid={self.grid}, prefix={self.prefix}"
            )
        if self.axis not in (0, 1):
            raise ValueError(f"`Tokens` must have its tokens along axis 0 or 1; got axis={self.axis}")
        object.__setattr__(self, "grid", tuple(self.grid))


# "NHWC", "NCHW" or `Tokens`.
Layout = str | Tokens


@dataclass(frozen=True)
class ByLayer:
    """Layouts of some layers."""

    layouts: tuple[tuple[str, Layout], ...]

    def get(self, layer: str) -> Layout | None:
        """Return the layout of a layer, or None."""
        return dict(self.layouts).get(layer)

    def names(self) -> tuple[str, ...]:
        """Return the layers."""
        return tuple(name for name, _ in self.layouts)


def checked(data_format: Any) -> Layout | ByLayer | None:
    """Return a user's layouts of layers, checked and in a comparable form.

    Raises:
        ValueError: If it is not a layout.
    """
    if isinstance(data_format, Mapping):
        return ByLayer(tuple((name, _checked(given)) for name, given in data_format.items()))
    return None if data_format is None else _checked(data_format)


def _checked(given):
    if isinstance(given, Tokens) or given in (NHWC, NCHW):
        return given
    raise ValueError(
        "`data_format` must be 'NHWC', 'NCHW', jaxai.layers.Tokens(grid=(rows, columns), prefix=n), or a dict"
        f" of these by layer; got {given!r}"
    )


def fits(given: Layout, shape: Sequence[int]) -> bool:
    """Return whether values [batch, ...] of this shape can have this layout."""
    if isinstance(given, Tokens):
        return len(shape) == 3 and given.prefix + given.grid[0] * given.grid[1] <= shape[given.axis]
    return len(shape) == 4


def grid(found: Layout, shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of values of this shape."""
    if isinstance(found, Tokens):
        return found.grid
    return (shape[1], shape[2]) if found == NHWC else (shape[2], shape[3])


def channels_last(found: Layout | None, acts: jax.Array) -> jax.Array:
    """Return values as [batch, height, width, channels]; values without a layout are unchanged."""
    if found == NCHW:
        return jnp.moveaxis(acts, 1, -1)
    if isinstance(found, Tokens):
        rows, columns = found.grid
        acts = acts if found.axis else acts.swapaxes(0, 1)
        inside = acts[:, found.prefix : found.prefix + rows * columns]
        return inside.reshape(acts.shape[0], rows, columns, acts.shape[2])
    return acts


class Back(NamedTuple):
    """A head that takes values [batch, height, width, channels] of a layer with another layout."""

    found: Layout

    def __call__(self, head: Any, others: Any, acts: jax.Array) -> Any:
        """Return the head's result for these values; tokens outside the grid are those of the images."""
        if not isinstance(self.found, Tokens):
            return head(jnp.moveaxis(acts, -1, 1))
        batch, prefix, count = acts.shape[0], self.found.prefix, acts.shape[1] * acts.shape[2]
        before, after = (
            jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in (others[:, :prefix], others[:, prefix:])
        )
        inside = acts.reshape(batch, count, acts.shape[-1])
        tokens = jnp.concatenate([before, inside, after], axis=1) if others.shape[1] else inside
        if self.found.axis:
            return head(tokens)
        if others.shape[0] == batch:
            return head(tokens.swapaxes(0, 1))
        # The head of a single image, for as many copies of it.
        scores = jax.vmap(head)(tokens[:, :, None])
        return jax.tree.map(lambda s: s.reshape(-1, *s.shape[2:]), scores)


def others(found: Layout, acts: jax.Array) -> jax.Array | None:
    """Return the tokens outside the grid, those before it first; None for other layouts."""
    if not isinstance(found, Tokens):
        return None
    acts = acts if found.axis else acts.swapaxes(0, 1)
    end = found.prefix + found.grid[0] * found.grid[1]
    return jnp.concatenate([acts[:, : found.prefix], acts[:, end:]], axis=1)
