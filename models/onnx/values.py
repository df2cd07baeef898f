"""Values of an ONNX graph: arrays that may be stored with their channels last.

ONNX counts the axes of images as [batch, channels, *sizes]. A `Value` has axes in that order for whoever
reads the graph, and stores them in another: convolutions, pools and what lies between them run on
[batch, *sizes, channels], and nothing is transposed where a graph stays convolutional. Values that do not
depend on the images are NumPy arrays, so that arithmetic on shapes is done while the graph is traced.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

# A file that asks for larger constants is damaged, or made to fill the memory.
MOST_ELEMENTS = 1 << 27


def channels_last(rank: int) -> tuple[int, ...]:
    """Return which of the axes [batch, channels, *sizes] lies where in [batch, *sizes, channels]."""
    return (0, *range(2, rank), 1)


def is_static(array: Any) -> TypeGuard[np.ndarray]:
    """Return whether an array is known while the graph is traced."""
    return isinstance(array, np.ndarray)


@dataclass(frozen=True, eq=False)
class Value:
    """An array and the order in which its axes are stored.

    Attributes:
        array: NumPy's if it is known while the graph is traced, else JAX's.
        order: The axis of the graph that lies at each place of the array.
    """

    array: Any
    order: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as the graph counts it."""
        return tuple(self.array.shape[self.order.index(axis)] for axis in range(self.rank))

    @property
    def dtype(self) -> Any:
        """The type of the numbers."""
        return self.array.dtype

    @property
    def static(self) -> bool:
        """Whether it is known while the graph is traced."""
        return is_static(self.array)

    @property
    def is_plain(self) -> bool:
        """Whether the axes are stored in the graph's order."""
        return self.order == tuple(range(self.rank))

    def ordered(self, order: Sequence[int]) -> Any:
        """Return the array with its axes in this order."""
        order = tuple(order)
        if order == self.order:
            return self.array
        moves = tuple(self.order.index(axis) for axis in order)
        return self.array.transpose(moves) if self.static else jnp.transpose(self.array, moves)

    @property
    def plain(self) -> Any:
        """The array with its axes in the graph's order."""
        return self.ordered(range(self.rank))

    @property
    def last(self) -> Any:
        """The array as [batch, *sizes, channels]."""
        return self.ordered(channels_last(self.rank))

    def axis(self, axis: int) -> int:
        """Return where an axis of the graph is stored; negative numbers count from the end."""
        if not -self.rank <= axis < self.rank:
            raise ValueError(f"axis {axis} of an array of {self.rank} axes")
        return self.order.index(axis % self.rank)

    def axes(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Return where some axes of the graph are stored."""
        return tuple(self.axis(int(axis)) for axis in axes)

    def like(self, array: Any) -> "Value":
        """Return an array of the same rank that is stored in the same order."""
        return Value(array, self.order)


def plain(array: Any) -> Value:
    """Return an array whose axes are stored in the graph's order."""
    array = array if isinstance(array, (np.ndarray, jax.Array)) else np.asarray(array)
    return Value(array, tuple(range(array.ndim)))


def last(array: Any) -> Value:
    """Return an array that is stored as [batch, *sizes, channels]."""
    return Value(array, channels_last(array.ndim))


def numpy_of(value: Value | None, what: str) -> np.ndarray:
    """Return the numbers of a value that must not depend on the images."""
    if value is None:
        raise ValueError(f"{what} is missing")
    if not value.static:
        raise ValueError(f"{what} depends on the images, which is not supported")
    return value.plain


def integers(value: Value | None, what: str) -> list[int]:
    """Return integers that must not depend on the images."""
    return [int(number) for number in np.ravel(numpy_of(value, what))]


def bounded(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape, refused if it is negative or of a constant too large to be made."""
    shape = tuple(int(size) for size in shape)
    if any(size < 0 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"a constant of shape {list(shape)}")
    return shape


def space(*arrays: Any) -> Any:
    """Return NumPy if all arrays are known while the graph is traced, else JAX's."""
    return np if all(is_static(array) for array in arrays) else jnp


def aligned(values: Sequence[Value]) -> tuple[list[Any], tuple[int, ...]]:
    """Return arrays of equal rank that broadcast against each other, and the order that they are stored in.

    It is that of the largest value that depends on the images.
    """
    rank = max(value.rank for value in values)
    moving = [value for value in values if value.rank == rank and not value.static]
    orders = [max(moving, key=lambda value: value.array.size).order] if moving else []
    order = orders[0] if orders else tuple(range(rank))
    arrays = []
    for value in values:
        if value.rank and value.rank < rank:
            widened = value.plain.reshape((1,) * (rank - value.rank) + value.shape)
            value = plain(widened)
        arrays.append(value.ordered(order) if value.rank else value.array)
    return arrays, order


def along(parameter: Value, value: Value, axis: int = 1) -> Any:
    """Return a vector of one axis's parameters in the shape that broadcasts against a stored value."""
    shape = [1] * value.rank
    shape[value.axis(axis)] = -1
    return parameter.plain.reshape(shape)
