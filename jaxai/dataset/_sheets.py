"""Tiles of photos and maps, many per picture, so that a page needs no file per image."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import plots
from ..report import _methods as methods_
from . import _compared, _layout, _thumbnails

ACROSS, PER_SHEET = 16, 256
_SIDE = 64


class Tiles:
    """Tiles of a store's images.

    Attributes:
        store: The store.
        side: Side of a tile in pixels.
    """

    def __init__(self, store: Any):
        self.store = store
        self.side = store.plan.thumbnails or _SIDE
        self._shard = lru_cache(4)(self._cut)

    def photo(self, number: int) -> np.ndarray | None:
        """Return an image's tile; None where the store has none."""
        shard, place = divmod(number, self.store.plan.shard_size)
        tiles = self._shard(shard)
        return tiles[place] if tiles else None

    def map(self, name: str, values: np.ndarray, number: int | None) -> np.ndarray | None:
        """Return a map on its photo; None where there is none.

        Args:
            name: The method.
            values: The map, [height, width].
            number: The image; None leaves the photo out.
        """
        if not np.isfinite(values).all():
            return None
        method = _chosen(self.store, name)
        # Gradients may be too small for 32 bits once they are squared.
        scaled = values / (np.abs(values).max() or 1)
        wide = Image.fromarray(scaled.astype(np.float32)).resize(
            (self.side, self.side), Image.Resampling.BILINEAR
        )
        if method.result == "pixels":
            return plots.signed_pixels(np.asarray(wide))
        photo = None if number is None else self.photo(number)
        under = np.full((self.side, self.side, 3), 0.5) if photo is None else photo / 255
        signed = method.signed or method.result == "segments"
        return plots.heatmap_overlay(under, np.asarray(wide), signed=signed)

    def photos(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield sheets of images."""
        for some in _parts(numbers):
            yield _thumbnails.sheet([self.photo(number) for number in some], self.side, across=ACROSS)

    def maps(self, name: str, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield sheets of the maps of images."""
        stored = self.store.maps[name]
        for some in _parts(numbers):
            found = _compared.first(stored[np.asarray(some)])
            tiles = [self.map(name, one, number) for one, number in zip(found, some, strict=True)]
            yield _thumbnails.sheet(tiles, self.side, across=ACROSS)

    def given(self, name: str, maps: Sequence[np.ndarray]) -> Iterator[bytes]:
        """Yield sheets of maps that belong to no image."""
        for some in _parts(maps):
            yield _thumbnails.sheet([self.map(name, one, None) for one in some], self.side, across=ACROSS)

    def _cut(self, shard: int) -> list[np.ndarray]:
        plan = self.store.plan
        path = Path(self.store.path, _layout.thumbnails_file(shard))
        if not plan.thumbnails or not path.exists():
            return []
        return _thumbnails.cut(path.read_bytes(), len(plan.images_of(shard)), plan.thumbnails)


def title_of(store: Any, name: str) -> str:
    """Return what a method is called."""
    return _chosen(store, name).description.title


def _chosen(store: Any, name: str) -> methods_.Chosen:
    return methods_.Chosen(methods_.find(name), dict(dict(store.plan.methods)[name]))


def _parts(items: Sequence[Any]) -> Iterator[Any]:
    for at in range(0, len(items), PER_SHEET):
        yield items[at : at + PER_SHEET]
