"""Photographs of any kind to the arrays that networks take."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image, ImageOps

_FILTER = Image.Resampling.BICUBIC
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_WHITE = (255, 255, 255, 255)
# Of a photo's width and height: the size to bring it to, and the part (left, top, right, bottom) to keep.
_Frame: TypeAlias = Callable[[int, int], tuple[tuple[int, int], tuple[int, int, int, int]]]
_RANGES = {np.dtype("?"): 1, np.dtype("u1"): 255, np.dtype("u2"): 65535}


def crop(photo: Any, *, size: int) -> Float[Array, "batch size size 3"]:
    """Cut out the centre square of photos and resize it, without margin.

    Grey, palette, CMYK and 16-bit photos become RGB, transparency is put on white, and a camera's note on
    how a photo was turned (EXIF) is obeyed. Resizing is bicubic with antialiasing (Pillow's), clipped to
    [0, 1]; a photo of `size` x `size` keeps its values exactly.

    Args:
        photo: A path, a PIL image, an array [height, width, 3] (uint8, uint16, or float in [0, 1]; also
            [height, width], and 1 or 4 channels), or a list of those.
        size: Side of the squares in pixels.

    Returns:
        float32 in [0, 1].

    Raises:
        ValueError: If a photo cannot be read, is truncated, empty, or not what is said above.
        FileNotFoundError: If a path does not exist.

    Example:
        >>> import numpy as np
        >>> crop(np.zeros((30, 40, 3), np.uint8), size=16).shape
        (1, 16, 16, 3)
    """
    frame = partial(_centre_square, size=size)
    if isinstance(photo, Sequence) and not isinstance(photo, str):
        if not photo:
            raise ValueError("expected at least one photo; got an empty list")
        return jnp.asarray(np.stack([_pixels(item, frame) for item in photo]))
    return jnp.asarray(_pixels(photo, frame)[None])


def fit(photo: Any, *, longest: int) -> Float[Array, "1 height width 3"]:
    """Return a whole photo, reduced so that no side is longer than `longest` pixels.

    It is read and converted as by `crop`; a photo that is small enough keeps its values.

    Args:
        photo: A path, a PIL image or an array.
        longest: Number of pixels.

    Returns:
        float32 in [0, 1].

    Raises:
        ValueError: If the photo cannot be read, is truncated, empty, or not what `crop` takes.
        FileNotFoundError: If a path does not exist.

    Example:
        >>> import numpy as np
        >>> fit(np.zeros((30, 40, 3), np.uint8), longest=20).shape
        (1, 15, 20, 3)
    """
    return jnp.asarray(_pixels(photo, partial(_whole, longest=longest))[None])


def _centre_square(width: int, height: int, *, size: int):
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return (size, size), (left, top, left + side, top + side)


def _whole(width: int, height: int, *, longest: int):
    scale = min(1, longest / max(width, height))
    return (max(1, round(width * scale)), max(1, round(height * scale))), (0, 0, width, height)


def _pixels(photo: Any, frame: _Frame) -> np.ndarray:
    if isinstance(photo, (str, os.PathLike)):
        return _read(os.fspath(photo), frame)
    if isinstance(photo, Image.Image):
        return _from_image(photo, frame, "photo")
    if isinstance(photo, (np.ndarray, jax.Array)):
        return _from_array(np.asarray(photo), frame, "photo")
    raise ValueError(
        f"a photo must be a path, a PIL image or an array [height, width, 3]; got {type(photo).__name__}"
    )


def _read(path: str, frame: _Frame) -> np.ndarray:
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such photo: {path}")
    try:
        image = Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(_reason(path, error)) from error
    with image:
        return _from_image(image, frame, path)


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{name} is not an image"
    if isinstance(error, IsADirectoryError):
        return f"{name} is a folder, not an image"
    return f"{name} cannot be read as an image: {error}"


def _from_image(image: Image.Image, frame: _Frame, name: str) -> np.ndarray:
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels: its size is {image.size[0]}x{image.size[1]}")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        deep = image.mode in _DEEP_MODES
        if image.has_transparency_data and not deep:
            layers = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layers.size, _WHITE), layers)
        image = image if deep else image.convert("RGB")
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(_reason(name, error)) from error
    if deep:
        return _from_array(_deep(image, name), frame, name)
    return np.asarray(_resized(image, frame), np.float32) / 255


def _deep(image: Image.Image, name: str) -> np.ndarray:
    """Return a grey image of more than eight bits as floats in [0, 1]."""
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f":
        return pixels
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(
            f"{name} must have 8 or 16 bits a pixel; got values from {pixels.min()} to {pixels.max()}"
        )
    return pixels.astype(np.uint16)


def _from_array(array: np.ndarray, frame: _Frame, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(f"{name} must be [height, width, 3] (or a list of such); got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name} has no pixels: its shape is {array.shape}")
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return np.asarray(_resized(Image.fromarray(array), frame), np.float32) / 255
    pixels = _unit_range(array, name)
    if pixels.shape[2] == 4:
        colour, alpha = pixels[..., :3], pixels[..., 3:]
        pixels = colour * alpha + (1 - alpha)
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, 2)
    height, width = pixels.shape[:2]
    if frame(width, height)[0] == (width, height):
        return pixels
    planes = [_resized(Image.fromarray(pixels[..., channel]), frame) for channel in range(3)]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 1)


def _unit_range(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype in _RANGES:
        return array.astype(np.float32) / np.float32(_RANGES[array.dtype])
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must be uint8, uint16 or float; got {array.dtype}")
    pixels = array.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(pixels))} NaN or infinite values")
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(
            f"{name} must lie in [0, 1] where it is float; got {pixels.min():g} to {pixels.max():g}"
        )
    return pixels


def _resized(image: Image.Image, frame: _Frame) -> Image.Image:
    """Return the part to keep in its size; the box spares a copy of the whole photo."""
    size, box = frame(*image.size)
    return image.resize(size, _FILTER, box=box)
