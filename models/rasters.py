"""Images and arrays of every kind as rows of pixels in [0, 1], converted piece by piece.

A large photo is never converted as a whole, only as many rows as are resized at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from PIL import Image

from . import orientation
from .photo_files import Opened, Reading

_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_WHITE = (255, 255, 255, 255)
_RANGES = {np.dtype("?"): 1, np.dtype("u1"): 255, np.dtype("u2"): 65535}
# Number of pixels that are converted at a time, to floats and to RGB.
_FLOATS, _BYTES = 1 << 22, 1 << 24


@dataclass(frozen=True)
class Raster:
    """An upright photo without transparency.

    Attributes:
        width: Number of pixels.
        height: Number of pixels.
        rows: From the first row and the one after the last to their pixels: a Pillow image (L or RGB), or
            float32 [rows, width, 1 or 3] in [0, 1].
        piece: Number of pixels to ask for at a time.
    """

    width: int
    height: int
    rows: Callable[[int, int], Image.Image | np.ndarray]
    piece: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def from_array(array: np.ndarray, reading: Reading, name: str, notes: list[str]) -> Raster:
    """Return the raster of an array, and add to the notes."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(f"{name} must be [height, width, 3] (or a list of such); got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name} has no pixels: its shape is {array.shape}")
    if reading.page not in (None, 1):
        raise ValueError(f"{name} is an array, which has 1 page; got page={reading.page}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    height, width, channels = array.shape
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    counted = reading.white is not None and array.dtype.kind in "iu"
    if not (array.dtype in _RANGES or floating or counted):
        raise ValueError(f"{name} must be uint8, uint16 or float, or white= be given; got {array.dtype}")
    most = _RANGES.get(array.dtype, 1)
    full = most if reading.white is None or array.dtype == bool else reading.white
    colours, opacity = array[..., :3], array[..., 3:]
    extent = float(colours.min()), float(colours.max())
    if not np.isfinite(extent).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(colours))} NaN or infinite values")
    if floating and reading.white is None and not 0 <= extent[0] <= extent[1] <= 1:
        raise ValueError(
            f"{name} must lie in [0, 1] where it is float; got {extent[0]:g} to {extent[1]:g}"
            f"{_advice(extent[0]) or '; photos are given as they are, not normalized'}"
        )
    _check_extent(extent, full, reading, name, notes)
    if channels == 4 and reading.alpha is not False:
        covered = float(opacity.min()), float(opacity.max())
        if not 0 <= covered[0] <= covered[1] <= most:
            raise ValueError(
                f"the fourth channel of {name} must be opacity from 0 to {most} (alpha=False leaves it out);"
                f" got {covered[0]:g} to {covered[1]:g}"
            )
        _note_opacity(covered, most, True, reading, notes)
    else:
        opacity = None
    if array.dtype == np.uint8 and opacity is None and channels > 1 and reading.white is None:
        plain = np.ascontiguousarray(colours)
        return Raster(width, height, lambda low, high: Image.fromarray(plain[low:high]), _BYTES)

    def rows(low: int, high: int) -> np.ndarray:
        pixels = colours[low:high].astype(np.float32) / np.float32(full)
        if opacity is None:
            return pixels
        return _on_white(pixels, opacity[low:high].astype(np.float32) / np.float32(most))

    return Raster(width, height, rows, _FLOATS)


def from_opened(opened: Opened, reading: Reading) -> Raster:
    """Return the raster of a decoded image, and add to its notes."""
    image, name = opened.image, opened.name
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels: its size is {image.size[0]}x{image.size[1]}")
    if opened.extra:
        if reading.alpha:
            raise ValueError(f"{name} says that its extra channels are not opacity; got alpha=True")
        opened.notes.append("its channels of unspecified meaning are left out")
    width, height = image.size[::-1] if opened.turn in orientation.SIDEWAYS else image.size
    if image.mode in _DEEP_MODES:
        return Raster(width, height, _deep_rows(opened, reading), _FLOATS)
    if reading.white is None or image.mode == "1":
        return Raster(width, height, _shallow_rows(opened, reading), _BYTES)
    return Raster(width, height, _scaled_rows(opened, reading, reading.white), _FLOATS)


def _deep_rows(opened: Opened, reading: Reading) -> Callable[[int, int], np.ndarray]:
    """Grey of more than eight bits, or float."""
    image, name = opened.image, opened.name
    if image.mode.startswith("I;16") and image.mode != "I;16":
        order = {"I;16B": ">u2", "I;16N": "=u2"}.get(image.mode, "<u2")
        values = np.frombuffer(image.tobytes(), order).reshape(image.size[::-1])
        image = Image.fromarray(values.astype("<u2"))
    most = 1 if image.mode == "F" else opened.full
    full = most if reading.white is None else reading.white
    infinite, extents = 0, []
    for piece in _pieces(image, _FLOATS):
        infinite += np.count_nonzero(~np.isfinite(piece))
        extents.append((float(piece.min()), float(piece.max())))
    if infinite:
        raise ValueError(f"{name} has {infinite} NaN or infinite values")
    low, high = min(low for low, _ in extents), max(high for _, high in extents)
    if reading.white is None and not 0 <= low <= high <= most:
        what = "lie in [0, 1] where it is float" if image.mode == "F" else "have 8 or 16 bits per pixel"
        raise ValueError(f"{name} must {what}; got values from {low:g} to {high:g}{_advice(low)}")
    if opened.wide and reading.white is None:
        opened.notes.append(f"65535 is taken as white in its 32-bit integers, up to {high:g}; white= sets it")
    else:
        _check_extent((low, high), full, reading, name, opened.notes)
    clear = image.info.get("transparency") if reading.alpha is not False else None
    clear = clear if isinstance(clear, int) else None

    def rows(low: int, high: int) -> np.ndarray:
        stored = np.asarray(orientation.rows(image, opened.turn, low, high))
        pixels = stored.astype(np.float32) / np.float32(full)
        if opened.inverted:
            pixels = 1 - pixels
        if clear is not None:
            pixels = np.where(stored == clear, np.float32(1), pixels)
        return pixels[..., None]

    return rows


def _shallow_rows(opened: Opened, reading: Reading) -> Callable[[int, int], Image.Image]:
    """Eight bits, as all but `_deep_rows`."""
    image = opened.image
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        bands = np.reshape(image.getextrema(), (-1, 2))
        number = 1 if image.mode.startswith("L") else 3
        _note_extent(float(bands[:number, 1].max()), 255, opened.reduced, opened.notes)
        if len(bands) > number and reading.alpha is not False:
            _note_opacity(tuple(map(float, bands[-1])), 255, opened.doubtful, reading, opened.notes)

    def rows(low: int, high: int) -> Image.Image:
        layers = _layers(orientation.rows(image, opened.turn, low, high), reading)
        if layers.mode != "RGBA":
            return layers
        return Image.alpha_composite(Image.new("RGBA", layers.size, _WHITE), layers).convert("RGB")

    return rows


def _scaled_rows(opened: Opened, reading: Reading, white: float) -> Callable[[int, int], np.ndarray]:
    """Eight bits with a white level."""
    image, name = opened.image, opened.name
    if opened.reduced:
        raise ValueError(
            f"{name} has colours of 16 bits, which are read with 8; pass an array of them to set white="
        )
    high = max(int(np.asarray(_layers(piece, reading))[..., :3].max()) for piece in _parts(image, _BYTES))
    _check_extent((0, high), white, reading, name, opened.notes)

    def rows(low: int, high: int) -> np.ndarray:
        pixels = np.asarray(_layers(orientation.rows(image, opened.turn, low, high), reading), np.float32)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        colours = pixels[..., :3] / np.float32(white)
        return _on_white(colours, pixels[..., 3:] / 255) if pixels.shape[2] == 4 else colours

    return rows


def _layers(image: Image.Image, reading: Reading) -> Image.Image:
    """Return eight-bit grey (L), RGB, or RGBA where something is transparent and that is to be seen."""
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return image.convert("RGB") if reading.alpha is False else image
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _parts(image: Image.Image, pixels: int) -> Iterator[Image.Image]:
    step = max(1, pixels // image.width)
    for low in range(0, image.height, step):
        yield orientation.rows(image, None, low, min(low + step, image.height))


def _pieces(image: Image.Image, pixels: int) -> Iterator[np.ndarray]:
    return map(np.asarray, _parts(image, pixels))


def _on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return colours * opacity + (1 - opacity)


def _advice(low: float) -> str:
    return " (white= sets another white)" if low >= 0 else ""


def _check_extent(
    extent: tuple[float, float], full: float, reading: Reading, name: str, notes: list[str]
) -> None:
    low, high = extent
    if reading.white is None:
        _note_extent(high, full, False, notes)
    elif low < 0 or high > full:
        raise ValueError(f"{name} must lie in 0 to white={full:g}; got {low:g} to {high:g}")


def _note_extent(high: float, full: float, reduced: bool, notes: list[str]) -> None:
    """Note pixels that use a small part of their range, as 12 or 14 bits in 16 and masks of 0 and 1 do."""
    if not 0 < high < full / (4 if full > 255 else 10):
        return
    used = f" ({int(high).bit_length()} of {int(full).bit_length()} bits)" if full > 1 else ""
    advice = "pass an array of its 16 bits to set white=" if reduced else "white= sets what is white"
    notes.append(f"its largest value is {high:g} of {full:g}{used}; {advice}")


def _note_opacity(
    covered: tuple[float, float], opaque: float, doubtful: bool, reading: Reading, notes: list[str]
) -> None:
    if reading.alpha is None and covered[1] == 0:
        notes.append("it is wholly transparent, so white; alpha=False shows its colours")
    elif reading.alpha is None and doubtful and covered[0] < opaque:
        notes.append("its fourth channel is taken as opacity; alpha=False leaves it out, alpha=True agrees")
