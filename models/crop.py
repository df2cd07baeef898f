"""Conversion of photographs of any kind to the arrays that networks take."""

import io
import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from . import photo_files, rasters
from .photo_files import Reading, positive
from .rasters import Raster

_FILTER = Image.Resampling.BICUBIC
_SUPPORT = 2  # of the bicubic kernel, in pixels of the smaller image
# Of a photo's width and height: the size to bring it to, and the part (left, top, right, bottom) to keep.
_Frame: TypeAlias = Callable[[int, int], tuple[tuple[int, int], tuple[int, int, int, int]]]


class PhotoNote(UserWarning):
    """A note in one line on a photo that may have been read differently than intended.

    It read one page of several; the pixels use a small part of their range; it took a fourth channel as
    opacity, or left it out. The keywords of `fit` say what is meant. Or images lie far from what a network
    takes (`jaxai.check_model`, `jaxai.explain`): `Pretrained.normalize` was left out or applied twice.
    """


# Ways to fit a photo to a square.
FITS = ("crop", "pad", "squash")


class Placement(NamedTuple):
    """Where a part of a photo lies in a square, in pixels of each: left, top, right, bottom."""

    box: tuple[int, int, int, int]
    """The part of the photo."""
    place: tuple[int, int, int, int]
    """Where it lies in the square."""


def placement(width: int, height: int, *, size: int, fit: str) -> Placement:
    """Return the part of a photo that `crop` takes, and its place in the square."""
    if fit not in FITS:
        raise ValueError(f"`fit` must be one of {', '.join(FITS)}; got {fit!r}")
    whole, square = (0, 0, width, height), (0, 0, size, size)
    if fit == "squash":
        return Placement(whole, square)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return Placement((left, top, left + side, top + side), square)
    scale = size / max(width, height)
    across, down = (max(1, round(length * scale)) for length in (width, height))
    left, top = (size - across) // 2, (size - down) // 2
    return Placement(whole, (left, top, left + across, top + down))


def crop(
    photo: Any,
    *,
    size: int,
    fit: str = "crop",
    page: int | None = None,
    white: float | None = None,
    alpha: bool | None = None,
    max_pixels: int | None = None,
) -> Float[Array, "batch size size 3"]:
    """Fit photos to squares: by default their centre squares, resized, without margin.

    Photos are read and converted as by `jaxai.models.fit`; one of `size` x `size` keeps its values exactly.

    Args:
        photo: A path, a file's bytes, a PIL image or an array as in `jaxai.models.fit`, or a list of those.
        size: Side of the squares in pixels.
        fit: `"crop"` takes the centre square; `"pad"` the whole photo, with margins of its mean colour;
            `"squash"` the whole photo, stretched to a square.
        page: As in `fit`.
        white: As in `fit`.
        alpha: As in `fit`.
        max_pixels: As in `fit`.

    Returns:
        float32 in [0, 1].

    Raises:
        ValueError: If a photo cannot be read, is truncated, damaged, too large, empty, or not what `fit`
            takes; if a number is not positive.
        FileNotFoundError: If a path does not exist.

    Warns:
        PhotoNote: As `fit`.

    Example:
        >>> import numpy as np
        >>> crop(np.zeros((30, 40, 3), np.uint8), size=16).shape
        (1, 16, 16, 3)
    """
    reading = Reading(page, white, alpha, max_pixels)
    frame = partial(_square, size=positive(size, "size"), fit=fit)
    placement(1, 1, size=size, fit=fit)
    if isinstance(photo, Sequence) and not isinstance(photo, (str, bytes)):
        if not photo:
            raise ValueError("expected at least one photo; got an empty list")
        results = [_pixels(item, frame, reading, f"photo {i} of the list") for i, item in enumerate(photo)]
    else:
        results = [_pixels(photo, frame, reading, "photo")]
    for _, notes in results:
        for note in notes:
            warnings.warn(note, PhotoNote, stacklevel=2)
    return jnp.asarray(np.stack([_padded(pixels, size) for pixels, _ in results]))


def dimensions(
    photo: Any,
    *,
    page: int | None = None,
    white: float | None = None,
    alpha: bool | None = None,
    max_pixels: int | None = None,
) -> tuple[int, int]:
    """Return the width and the height of an upright photo, which is read as by `jaxai.models.fit`."""
    return _raster(photo, Reading(page, white, alpha, max_pixels), "photo", [])[1].size


def fit(
    photo: Any,
    *,
    longest: int,
    page: int | None = None,
    white: float | None = None,
    alpha: bool | None = None,
    max_pixels: int | None = None,
) -> Float[Array, "1 height width 3"]:
    """Return a whole photo, reduced so that no side is longer than `longest` pixels.

    Files are PNG, JPEG, GIF, WebP, TIFF, BMP, PPM, JPEG 2000 or AVIF, whatever their name; other formats can
    be opened by the caller and given as PIL images. Grey, palette, CMYK, CIELAB and 16-bit photos become RGB
    (colours of 16 bits are read from files with 8), transparency is blended with white, and the orientation
    in the metadata (EXIF, XMP) is applied, or ignored if it cannot be read. Colour profiles are ignored.
    Resizing is bicubic with antialiasing (Pillow's), clipped to [0, 1]; a photo that is small enough keeps
    its values exactly.

    Args:
        photo: A path, the bytes of a file, a PIL image or an array: [height, width] or [height, width, 1]
            (grey), [height, width, 3] (RGB) or [height, width, 4] (RGBA: the fourth channel is opacity, not a
            fourth colour), of bool, uint8, uint16, or float in [0, 1].
        longest: Number of pixels.
        page: Number of the page or frame in files of several, from 1 on. None reads the first and says so.
        white: The number in the file or array that is white, such as 4095 for 12 bits stored in 16, or 1 for
            a mask of 0 and 1; with it, arrays of any integers and other floats are taken too. None is the
            largest that the type can hold, 1 for floats.
        alpha: True if a fourth channel is opacity, False to leave opacity out. None is True, with a note
            where the channel may be something else: in arrays, and in TIFF files, which often err.
        max_pixels: The largest number of pixels that a file may declare; larger ones are rejected before they
            are decoded. None is the environment's `JAXAI_MAX_PIXELS`, else Pillow's limit, 178,956,970.

    Returns:
        float32 in [0, 1].

    Raises:
        ValueError: If the photo cannot be read, is truncated, damaged, too large, empty, or not what is said
            above; if a number is not positive.
        FileNotFoundError: If a path does not exist.

    Warns:
        PhotoNote: If the photo is ambiguous: several pages, unused bits, or a fourth channel.

    Example:
        >>> import numpy as np
        >>> fit(np.zeros((30, 40, 3), np.uint8), longest=20).shape
        (1, 15, 20, 3)
    """
    reading = Reading(page, white, alpha, max_pixels)
    frame = partial(_whole, longest=positive(longest, "longest"))
    pixels, notes = _pixels(photo, frame, reading, "photo")
    for note in notes:
        warnings.warn(note, PhotoNote, stacklevel=2)
    return jnp.asarray(pixels[None])


def _square(width: int, height: int, *, size: int, fit: str):
    box, (left, top, right, bottom) = placement(width, height, size=size, fit=fit)
    return (right - left, bottom - top), box


def _padded(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return pixels in the middle of a square, with margins of their mean colour."""
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    square = np.broadcast_to(pixels.mean((0, 1), np.float64).astype(np.float32), (size, size, 3)).copy()
    left, top = (size - width) // 2, (size - height) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _whole(width: int, height: int, *, longest: int):
    scale = min(1, longest / max(width, height))
    return (max(1, round(width * scale)), max(1, round(height * scale))), (0, 0, width, height)


def _pixels(photo: Any, frame: _Frame, reading: Reading, name: str) -> tuple[np.ndarray, list[str]]:
    """Return float32 [height, width, 3] and the notes on a photo."""
    notes: list[str] = []
    name, raster = _raster(photo, reading, name, notes)
    try:
        pixels = _resized(raster, frame)
    except Exception as error:
        if isinstance(photo, (np.ndarray, jax.Array)):
            raise
        # Some palettes and colours are damaged in ways that show when they are converted.
        raise photo_files.unreadable(name, error) from error
    return pixels, [f"{name}: {note}" for note in notes]


def _raster(photo: Any, reading: Reading, name: str, notes: list[str]) -> tuple[str, Raster]:
    """Return what messages call a photo, and its pixels; add to the notes."""
    if isinstance(photo, (np.ndarray, jax.Array)):
        return name, rasters.from_array(np.asarray(photo), reading, name, notes)
    if isinstance(photo, (str, os.PathLike)):
        opened = photo_files.open_file(os.fsdecode(photo), reading)
    elif isinstance(photo, bytes):
        opened = photo_files.open_stream(io.BytesIO(photo), name, reading)
    elif isinstance(photo, Image.Image):
        opened = photo_files.loaded(photo, reading, name)
    else:
        raise ValueError(
            "a photo must be a path, a file's bytes, a PIL image or an array [height, width, 3];"
            f" got {type(photo).__name__}"
        )
    raster = rasters.from_opened(opened, reading)
    notes += opened.notes
    return opened.name, raster


def _resized(raster: Raster, frame: _Frame) -> np.ndarray:
    """Return the part to keep in its size, float32 [height, width, 3]; a large photo goes piece by piece."""
    (width, height), (left, top, right, bottom) = frame(raster.width, raster.height)
    if raster.width * raster.height <= raster.piece:
        result = _scaled(raster.rows(0, raster.height), (width, height), (left, top, right, bottom))
        return np.broadcast_to(result, (height, width, 3))
    step = (bottom - top) / height
    reach = math.ceil(_SUPPORT * max(step, 1)) + 1
    lines = max(1, int(raster.piece / raster.width / step))
    result = np.empty((height, width, 3), np.float32)
    for first in range(0, height, lines):
        last = min(first + lines, height)
        start = top + first * step
        end = bottom if last == height else top + last * step
        low, high = max(0, math.floor(start) - reach), min(raster.height, math.ceil(end) + reach)
        rows = raster.rows(low, high)
        result[first:last] = _scaled(rows, (width, last - first), (left, start - low, right, end - low), True)
    return result


def _scaled(
    rows: Image.Image | np.ndarray,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    across_first: bool = False,
) -> np.ndarray:
    """Return float32 [height, width, 1 or 3] in [0, 1]."""

    def scaled(image: Image.Image) -> np.ndarray:
        left, top, right, bottom = box
        if across_first:
            # Pillow takes the cheaper order, which may differ from piece to piece; and with bytes it counts.
            image = image.resize((size[0], image.height), _FILTER, box=(left, 0, right, image.height))
            left, right = 0, size[0]
        return np.asarray(image.resize(size, _FILTER, box=(left, top, right, bottom)), np.float32)

    if isinstance(rows, Image.Image):
        pixels = scaled(rows) / 255
        return pixels if pixels.ndim == 3 else pixels[..., None]
    return np.clip(np.stack([scaled(Image.fromarray(plane)) for plane in np.moveaxis(rows, -1, 0)], -1), 0, 1)
