"""Small pictures of a shard's images, side by side in one JPEG: what a page shows without the photos."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

_QUALITY = 88
# Tiles begin at multiples of a JPEG's blocks, so that none bleeds into the next.
_BLOCK = 8


def pitch(side: int) -> int:
    """Return how far apart tiles begin."""
    return -(-side // _BLOCK) * _BLOCK


def columns(count: int) -> int:
    """Return how many tiles of a sheet lie side by side."""
    return max(1, math.isqrt(count - 1) + 1) if count else 1


def tile(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return an image [size, size, 3] in [0, 1] as a tile, uint8 [side, side, 3]."""
    levels = np.round(255 * np.clip(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), 0, 1)).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).resize((side, side), Image.Resampling.BOX))


def sheet(tiles: Sequence[np.ndarray | None], side: int, *, across: int | None = None) -> bytes:
    """Return tiles, uint8 [side, side, 3], as a JPEG; what is None stays grey.

    Args:
        tiles: At least one.
        side: Side of a tile in pixels.
        across: Tiles side by side; None makes a square, as `cut` expects it.
    """
    step, across = pitch(side), across or columns(len(tiles))
    whole = np.full((-(-len(tiles) // across) * step, across * step, 3), 128, np.uint8)
    for number, one in enumerate(tiles):
        if one is not None:
            y, x = (step * place for place in divmod(number, across))
            whole[y : y + side, x : x + side] = one
    stream = io.BytesIO()
    Image.fromarray(whole).save(stream, "jpeg", quality=_QUALITY, subsampling=0)
    return stream.getvalue()


def cut(content: bytes, count: int, side: int) -> list[np.ndarray]:
    """Return the tiles of a sheet, uint8 [side, side, 3]."""
    whole = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    step, across = pitch(side), columns(count)
    corners = [(step * (number // across), step * (number % across)) for number in range(count)]
    return [whole[y : y + side, x : x + side] for y, x in corners]
