"""Arrays of a foreign file: described at once, read when asked for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from ml_dtypes import bfloat16

# What becomes a weight. Integers may be quantised, and float8 needs a scale that stands elsewhere.
FLOATS = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(bfloat16),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}
_MOST_AXES = 8


class Refused(ValueError):
    """What is wrong with a file, in words that are fit for a message."""


@dataclass(frozen=True, eq=False)
class Stored:
    """An array of a file.

    Attributes:
        dtype: Its type, by NumPy's name.
        shape: Its shape.
        read: Returns its numbers; only for the types in `FLOATS`. Raises `Refused` if they are damaged.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def stored(array: np.ndarray | np.generic) -> Stored:
    """Describe an array that is in memory."""
    return Stored(array.dtype.name, array.shape, lambda: array)


def as_shape(lengths: Any) -> tuple[int, ...] | None:
    """Return the shape that a file states as a sequence of integers; None if it is not one."""
    if not isinstance(lengths, Sequence) or len(lengths) > _MOST_AXES:
        return None
    # A bool is an integer in Python.
    if not all(type(length) is int and 0 <= length < 1 << 63 for length in lengths):
        return None
    return tuple(lengths)


def read_numbers(file: BinaryIO, position: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Read an array that lies in a file as it does in memory.

    Raises:
        Refused: If the file ends before.
    """
    if dtype not in FLOATS:
        raise TypeError(f"`dtype` must be one of {', '.join(FLOATS)}; got {dtype!r}")
    size = math.prod(shape) * FLOATS[dtype].itemsize
    file.seek(position)
    data = np.fromfile(file, np.uint8, size)
    if data.size < size:
        raise Refused(f"truncated: it ends {size - data.size} bytes before the end of an array")
    return data.view(FLOATS[dtype]).reshape(shape)
