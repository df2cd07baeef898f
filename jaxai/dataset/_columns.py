"""The rows of a store as NumPy arrays: fifty thousand dictionaries would take seconds."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np


class Columns:
    """The rows without an error.

    Attributes:
        table: The rows, a `pyarrow.Table`.
    """

    def __init__(self, table: Any):
        # Before a shard is done there are no columns at all.
        self.table = table.filter(_is_null(table["error"])) if len(table) else table

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def index(self) -> np.ndarray:
        """Numbers of the images, [rows]."""
        return self.numbers("index", np.int64)

    @cached_property
    def top(self) -> np.ndarray:
        """The most probable classes, [rows, up to 5]."""
        return self.lists("top")

    @cached_property
    def probability(self) -> np.ndarray:
        """Their probabilities."""
        return self.lists("top_probability")

    @cached_property
    def target(self) -> np.ndarray:
        """The classes that were explained, [rows, k]."""
        return self.lists("target")

    @cached_property
    def margin(self) -> np.ndarray:
        """Difference between the probabilities of the first and the second class, [rows]."""
        return self.probability[:, 0] - self.probability[:, 1:2].sum(1)

    @cached_property
    def label_index(self) -> np.ndarray:
        """The classes of the labels, [rows]; -1 where there is none."""
        if not len(self):
            return np.zeros(0, np.int64)
        return self.table["label_index"].fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def labels(self) -> list[str | None]:
        """Return the data set's label of each row."""
        return self.table["label"].to_pylist() if len(self) else []

    def numbers(self, name: str, dtype: Any = np.float64) -> np.ndarray:
        """Return a column of numbers, NaN where they are missing."""
        if not len(self):
            return np.zeros(0, dtype)
        return self.table[name].to_numpy(zero_copy_only=False).astype(dtype)

    def lists(self, name: str) -> np.ndarray:
        """Return a column of lists of one length, [rows, length]."""
        if not len(self):
            return np.zeros((0, 1))
        flat = self.table[name].combine_chunks().flatten()
        return flat.to_numpy(zero_copy_only=False).reshape(len(self), -1)

    def rows(self, places: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return some of the rows."""
        return self.table.take(np.asarray(places, np.int64)).to_pylist() if len(places) else []


def _is_null(column: Any) -> Any:
    return column.is_null()
