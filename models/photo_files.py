"""Photo files: one regular file, one raster format, one page, opened without surprises.

Only the formats of `EXTENSIONS` are opened. Pillow decodes all of them itself, so that no file can start a
program. Sizes are checked as they are declared, before anything is decoded, and so are checksums. What Pillow
and libtiff would print on the standard error is kept quiet: a photo is read, or a `ValueError` says why not.
"""

import importlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BufferedIOBase
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from .._files import shown
from . import orientation
from .quiet_pillow import quiet

# Usual extensions of the formats below; the contents decide, not the name.
EXTENSIONS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".gif", ".webp", ".tif", ".tiff", ".bmp"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".avif"),
)
# By the first bytes of a file: the name of a format, and Pillow's class for it.
_FORMATS = (
    (rb"\x89PNG\r\n\x1a\n", "PNG", "PngImagePlugin.PngImageFile"),
    (rb"\xff\xd8\xff", "JPEG", "JpegImagePlugin.JpegImageFile"),
    (rb"GIF8[79]a", "GIF", "GifImagePlugin.GifImageFile"),
    (rb"RIFF....WEBP", "WebP", "WebPImagePlugin.WebPImageFile"),
    (rb"II(\*\0|\0\*|\+\0)|MM(\0\*|\*\0|\0\+)", "TIFF", "TiffImagePlugin.TiffImageFile"),
    (rb"BM", "BMP", "BmpImagePlugin.BmpImageFile"),
    (rb"P[1-6][\s#]", "PPM", "PpmImagePlugin.PpmImageFile"),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "Jpeg2KImagePlugin.Jpeg2KImageFile"),
    (rb"....ftyp(avif|avis|mif1|msf1)", "AVIF", "AvifImagePlugin.AvifImageFile"),
)
# TIFF tags.
_SUBFILE, _BITS, _PHOTOMETRIC, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 254, 258, 262, 338, 339
_SIGNED = 2
_WHITE_IS_ZERO = 0
_PAGES_COUNTED = 100_000
_BLOCK = 1 << 20
_LIMIT = "JAXAI_MAX_PIXELS"


def positive(value: Any, name: str) -> int:
    """Return a positive integer as an int, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer; got {value!r}")
    return int(value)


@dataclass(frozen=True)
class Reading:
    """How photos are to be read; see `crop`."""

    page: int | None = None
    white: float | None = None
    alpha: bool | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        for name in ("page", "max_pixels"):
            value = getattr(self, name)
            if value is not None:
                positive(value, name)
        if self.white is not None and not (isinstance(self.white, Real) and 0 < self.white < float("inf")):
            raise ValueError(f"`white` must be a positive number; got {self.white!r}")
        if not (self.alpha is None or isinstance(self.alpha, (bool, np.bool_))):
            raise ValueError(f"`alpha` must be True, False or None; got {self.alpha!r}")

    def limit(self) -> float:
        """Return the largest number of pixels that a file may declare."""
        if self.max_pixels is not None:
            return self.max_pixels
        if text := os.environ.get(_LIMIT):
            if not text.isdecimal() or int(text) < 1:
                raise ValueError(f"the environment's {_LIMIT} must be a positive integer; got {text!r}")
            return int(text)
        # Pillow refuses images of more than twice this number.
        return float("inf") if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


@dataclass
class Opened:
    """A decoded image and what its file says about it.

    Attributes:
        image: Its pixels as they are stored.
        name: What messages call it.
        turn: What brings it upright.
        full: The number that is white, in images of more than eight bits.
        wide: Integers of 32 bits, of which nothing says what is white.
        inverted: Zero is white, which Pillow obeys up to eight bits only.
        reduced: Colours of 16 bits, of which Pillow read the upper eight.
        doubtful: The fourth channel may be something other than opacity.
        extra: The file has channels of unspecified meaning, which were not read.
        notes: Notes for the user.
    """

    image: Image.Image
    name: str
    turn: Image.Transpose | None = None
    full: float = 65535
    wide: bool = False
    inverted: bool = False
    reduced: bool = False
    doubtful: bool = False
    extra: bool = False
    notes: list[str] = field(default_factory=list)


def unreadable(name: str, error: object) -> ValueError:
    """Return the error for a photo that cannot be read."""
    if isinstance(error, MemoryError):
        error = "it needs more memory than there is"
    text = shown(" ".join(str(error).split()), 200) or type(error).__name__
    return ValueError(f"{name} cannot be read as an image: {text}")


def open_file(path: str, reading: Reading) -> Opened:
    """Decode a photo file.

    Raises:
        ValueError: If it is no regular file, of another format, damaged, truncated or too large, or has no
            such page.
        FileNotFoundError: If there is no such file.
    """
    name = shown(path, 200)
    try:
        file = open(path, "rb", opener=_regular)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such photo: {name}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{name} is a folder, not an image") from error
    except (OSError, ValueError) as error:
        raise unreadable(name, getattr(error, "strerror", None) or error) from error
    with file:
        return open_stream(file, name, reading)


def open_stream(file: BufferedIOBase, name: str, reading: Reading) -> Opened:
    """Decode what a photo file holds, from an open file or `io.BytesIO`.

    Raises:
        ValueError: If it is of another format, damaged, truncated or too large, or has no such page.
    """
    start = file.read(16)
    for pattern, kind, pillow in _FORMATS:
        if re.match(pattern, start, re.DOTALL):
            return _decoded(file, name, kind, _pillow_class(name, kind, pillow), reading)
    kinds = ", ".join(kind for _, kind, _ in _FORMATS)
    raise ValueError(f"{name} is not an image that can be read ({kinds})")


def content(path: str | os.PathLike[str], offset: int = 0, size: int = -1) -> bytes:
    """Return the bytes of a regular file, or `size` of them; a pipe or a device is refused, not waited for.

    Raises:
        ValueError: If it is no regular file.
        OSError: If it cannot be read.
    """
    with open(path, "rb", opener=_regular) as file:
        file.seek(offset)
        return file.read(size)


def loaded(image: Image.Image, reading: Reading, name: str) -> Opened:
    """Return a Pillow image with its pixels, which `Image.open` leaves in the file."""
    opened = Opened(image, name)
    limit = reading.limit()
    with quiet(limit):
        try:
            if isinstance(image, ImageFile.StubImageFile) or image.format == "EPS" and _is_waiting(image):
                raise ValueError(f"a program would draw this {image.format}; load it before")
            pages = range(1) if image.format == "MPO" else _frames(image, lambda: image)[0]
            if reading.page is not None:
                _seek(image, pages, reading.page)
            elif len(pages) > 1 and image.tell() == 0:
                opened.notes.append(_page_note(len(pages)))
            if _is_waiting(image):
                _check_size(image, limit)
                _load_from_stream(image)
            _read_tags(image, opened)
            opened.turn = orientation.of_pillow(image)
        except Exception as error:
            raise _refusal(name, error) from error
    return opened


def _is_waiting(image: Any) -> bool:
    # Most formats list what is to be decoded; WebP and AVIF have no pixels yet.
    return bool(getattr(image, "tile", None)) or getattr(image, "_im", image) is None


def _regular(path: str, flags: int) -> int:
    # A pipe or a device would wait for ever, or never end.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise IsADirectoryError if stat.S_ISDIR(mode) else ValueError("it is not a regular file")
    return descriptor


def _pillow_class(name: str, kind: str, pillow: str) -> Callable[[BufferedIOBase], ImageFile.ImageFile]:
    module, _, attribute = pillow.partition(".")
    try:
        return getattr(importlib.import_module(f"PIL.{module}"), attribute)
    except ImportError as error:
        raise unreadable(name, f"this installation of Pillow has no {kind}") from error


def _decoded(file: BufferedIOBase, name: str, kind: str, pillow: Callable, reading: Reading) -> Opened:
    limit = reading.limit()
    with quiet(limit):
        try:
            depth, colours = _check_png(file) if kind == "PNG" else (8, False)
            pages = range(1) if kind == "JPEG" else _tiff_pages(file) if kind == "TIFF" else None
            file.seek(0)
            # Not by name: of named files Pillow maps some into memory, and gets turned ones wrong.
            image = pillow(file)
            _check_size(image, limit)
            if pages is None:
                pages, image = _frames(image, partial(_again, file, pillow))
            opened = Opened(image, name)
            if reading.page is not None or pages[0]:
                _seek(image, pages, reading.page or 1)
                _check_size(image, limit)
            if reading.page is None and len(pages) > 1:
                opened.notes.append(_page_note(len(pages)))
            if kind == "TIFF":
                _read_tags(image, opened)
                opened.turn = orientation.of_file(image)
                # Pillow's own rotation rewrites the EXIF block, which fails if that is damaged.
                image.load_end = lambda: None
                image.load()
                opened.image = image._new(image.im)
            else:
                image.load()
                opened.turn = orientation.of_file(image)
            if kind == "PNG":
                opened.reduced = colours and depth == 16
                _scale_transparency(image, depth, colours)
        except Exception as error:
            raise _refusal(name, error) from error
    return opened


def _again(file: BufferedIOBase, pillow: Callable) -> ImageFile.ImageFile:
    file.seek(0)
    return pillow(file)


def _refusal(name: str, error: Exception) -> ValueError:
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", str(error))
        error = _too_large(f"{pixels[0]} pixels" if pixels else "too many pixels")
    return unreadable(name, error)


def _check_size(image: Image.Image, limit: float) -> None:
    width, height = image.size
    if width * height > limit:
        raise _too_large(f"{width}x{height} pixels, more than {limit:.0f}")


def _too_large(what: str) -> ValueError:
    return ValueError(
        f"it declares {what}, which may be a decompression bomb; max_pixels= or the environment's"
        f" {_LIMIT} allows it"
    )


def _check_png(file: BufferedIOBase) -> tuple[int, bool]:
    """Check a PNG's checksums, which Pillow skips in the pixels; return its depth and if it has colours."""
    file.seek(8)
    depth, colours = 8, False
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it is truncated")
        left, kind = struct.unpack(">I4s", head)
        total = zlib.crc32(kind)
        while left:
            piece = file.read(min(left, _BLOCK))
            if not piece:
                raise ValueError("it is truncated")
            if kind == b"IHDR" and len(piece) >= 10:
                depth, colours = piece[8], piece[9] in (2, 4, 6)
            total = zlib.crc32(piece, total)
            left -= len(piece)
        if file.read(4) != total.to_bytes(4, "big"):
            raise ValueError(f"it is damaged: the checksum of its {kind!r} block is wrong")
    return depth, colours


def _scale_transparency(image: Image.Image, depth: int, colours: bool) -> None:
    """Bring the colour that a PNG declares transparent to the depth in which Pillow returns pixels."""
    value = image.info.get("transparency")
    if image.mode == "L" and depth < 8 and isinstance(value, int):
        image.info["transparency"] = value * 255 // (2**depth - 1)
    elif colours and depth == 16 and isinstance(value, tuple):
        image.info["transparency"] = tuple(part >> 8 for part in value)


def _tiff_pages(file: BufferedIOBase) -> list[int]:
    """Return the indices of a TIFF's full pages: neither thumbnails and pyramid levels nor masks."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    # Number of entries, one entry (tag, type, count, value), and the offset of the next page.
    number, entry, offset = (order + ("QHHQQ" if big else "HHHII")[i:j] for i, j in ((0, 1), (1, 5), (4, 5)))
    place = struct.unpack(offset, head[8:16] if big else head[4:8])[0]
    full, seen = [], set()
    while place and place not in seen and len(seen) < _PAGES_COUNTED:
        seen.add(place)
        try:
            file.seek(place)
            (entries,) = struct.unpack(number, file.read(struct.calcsize(number)))
            # Tags are in order, so that this one comes first.
            first = file.read(struct.calcsize(entry)) if entries else b""
            tag, kind, _, value = struct.unpack(entry, first) if first else (0, 0, 0, 0)
            file.seek(place + struct.calcsize(number) + entries * struct.calcsize(entry))
            (following,) = struct.unpack(offset, file.read(struct.calcsize(offset)))
        except (struct.error, OSError, OverflowError, ValueError):
            break
        if kind == 3 and order == ">":
            value >>= 48 if big else 16
        if tag != _SUBFILE or not value & 0b101:
            full.append(len(seen) - 1)
        place = following
    return full or [0]


def _frames(image: Any, again: Callable[[], Any]) -> tuple[range, Any]:
    """Count the frames of an image; if that fails (a damaged file), there is only the first."""
    try:
        return range(max(1, getattr(image, "n_frames", 1))), image
    except Exception:
        return range(1), again()


def _seek(image: Any, pages: Any, page: int) -> None:
    if page > len(pages):
        raise ValueError(f"it has {len(pages)} page{'s' * (len(pages) > 1)}; got page={page}")
    image.seek(pages[page - 1])


def _page_note(pages: int) -> str:
    return f"page 1 of {pages} is read; page= chooses another"


def _load_from_stream(image: Any) -> None:
    """Load an image, never through Pillow's memory maps of named files, which get turned TIFFs wrong."""
    name, image.filename = image.filename, ""
    try:
        image.load()
    finally:
        image.filename = name


def _read_tags(image: Any, opened: Opened) -> None:
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return
    bits = max(_numbers(tags.get(_BITS)), default=8)
    extra = _numbers(tags.get(_EXTRA_SAMPLES))
    signed = _SIGNED in _numbers(tags.get(_SAMPLE_FORMAT))
    if signed and bits <= 8:
        # Pillow takes them for numbers from 0 on.
        raise ValueError("its numbers of 8 bits have a sign")
    opened.full = 2 ** (bits - signed) - 1 if 8 < bits <= 16 else 65535
    opened.wide = bits == 32 and image.mode == "I"
    opened.inverted = tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO
    opened.reduced = bits == 16 and image.mode in ("RGB", "RGBA", "CMYK")
    opened.doubtful = image.mode in ("RGBA", "LA", "La", "PA")
    opened.extra = 0 in extra


def _numbers(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(number for number in values if isinstance(number, int))
