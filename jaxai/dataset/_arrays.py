"""Maps of a store, read from disk where they are indexed."""

from pathlib import Path
from typing import Any

import numpy as np

from . import _layout


class Maps:
    """The maps of a method, [images, (k,) height, width]; read from disk where they are indexed.

    Maps that are missing, or failed, are NaN.

    Attributes:
        shape: Of all maps.
    """

    def __init__(self, store: Path, name: str, scales: np.ndarray):
        self._array = _layout.opened(store / "maps" / name)
        self._scales = scales
        self.name = name
        self.shape = tuple(self._array.shape)

    def __repr__(self) -> str:
        return f"Maps({self.name}, {list(self.shape)}, {self._array.dtype.name})"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return maps, float32: the first index is of images, the others are of their maps.

        Raises:
            ValueError: If the file of one is damaged.
        """
        first, *rest = index if isinstance(index, tuple) else (index,)
        if first is None or first is ... and rest:
            raise IndexError("the first index is of images: a number, a slice, numbers or a mask")
        numbers = np.arange(len(self))[first]
        # TensorStore reads the chunks that are asked for, and no others.
        try:
            values = self._array[numbers].read().result().astype(np.float32)
        except ValueError as error:
            raise ValueError(f"maps of {self.name} are damaged; `Store.verify` says which") from error
        scales = self._scales[numbers]
        values = values * scales.reshape(*np.shape(scales), *[1] * (values.ndim - np.ndim(scales)))
        return values[(slice(None),) * np.ndim(numbers) + tuple(rest)] if rest else values
