"""Masks: pictures beside the photos in which the user marked the evidence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import _names as names
from ._photos import Photo

_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".npy")


def beside(folder: Path, photos: Sequence[Photo]) -> dict[Photo, Path]:
    """Return the mask of each photo: the file in a folder with the same name except for the extension.

    Raises:
        ValueError: If the folder has none, or several, for a photo.
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"`--masks`: there is no folder {names.shortened(str(folder))}")
    found = {}
    for photo in photos:
        stem = photo.source if photo.path is None else photo.path.stem
        files = [folder / f"{stem}{suffix}" for suffix in _SUFFIXES]
        there = [file for file in files if file.is_file()]
        if len(there) != 1:
            said = " and ".join(file.name for file in there) or "none"
            raise ValueError(
                f"`--masks`: expected one mask for {names.shortened(photo.name)} in"
                f" {names.shortened(str(folder))}, such as {files[0].name}; found {said}"
            )
        found[photo] = there[0]
    return found


def read(file: Path, photo: Photo, net: Any, reading: dict[str, Any]) -> np.ndarray:
    """Return the marked pixels of a mask in the network's square input, bool [size, size].

    Args:
        file: A picture, in which all but black (of a palette: but its first colour) is marked, whatever its
            opacity; or an array [height, width] as an `.npy`, in which all but zero is.
        photo: Of the same size.
        net: The network, `Pretrained`, which crops as `jaxai.models.crop` does.
        reading: As for `Photo.crop`.

    Raises:
        ValueError: If the mask cannot be read, is of another size, or marks nothing of what the network sees,
            or if the network has its own way to crop.
    """
    shown, marked = names.shortened(str(file)), _marked(file)
    frame = photo.framed(net, reading)
    if not frame:
        raise ValueError(
            f"`--masks` needs a network that crops as jaxai.models.crop does; {net.name} does not"
        )
    width, height = frame["original_size"]
    if marked.shape != (height, width):
        raise ValueError(
            f"{shown} is {marked.shape[1]} x {marked.shape[0]} pixels; expected those of"
            f" {names.shortened(photo.name)}, {width} x {height}"
        )
    left, top, right, bottom = frame["place"]
    part = Image.fromarray(255 * marked.astype(np.uint8)).crop(tuple(frame["box"]))
    part = part.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    seen = np.zeros((net.input_size, net.input_size), bool)
    seen[top:bottom, left:right] = np.asarray(part) > 127
    if not seen.any():
        raise ValueError(f"{shown} marks nothing of what {net.name} sees of {names.shortened(photo.name)}")
    return seen


def _marked(file):
    """Return the marked pixels of a file, bool [height, width]."""
    try:
        if file.suffix == ".npy":
            values = np.load(file, allow_pickle=False)
        else:
            with Image.open(file) as image:
                opaque = image if image.mode in ("P", "1", "L", "I", "I;16", "F") else image.convert("RGB")
                values = np.asarray(opaque)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ValueError(f"{names.shortened(str(file))} cannot be read as a mask: {error}") from None
    marked = values.reshape(*values.shape[:2], -1).any(-1) if values.ndim == 3 else values != 0
    if marked.ndim != 2:
        raise ValueError(
            f"{names.shortened(str(file))} has shape {values.shape}; expected [height, width] for a mask"
        )
    return marked
