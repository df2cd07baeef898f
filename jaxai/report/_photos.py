"""The photographs of a command: paths, folders and sample names."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from . import _names as names
from ._samples import SAMPLES as SAMPLES

# Ways to fit a photo to the network's square, as in `jaxai.models.crop`.
FITS = ("crop", "pad", "squash")
# Not brought to a square, but explained in tiles of its size (`_tiles`).
TILE = "tile"


@dataclass(frozen=True)
class Photo:
    """A photograph on disk, a sample, or one that is in memory.

    Attributes:
        source: As the user named it.
        folder: Name of its output folder, unique within a run.
        given: A PIL image or an array in place of a file.
    """

    source: str
    folder: str
    given: Any = None

    @property
    def path(self) -> Path | None:
        """The file; None for a sample, and for what is in memory."""
        return None if self.given is not None or self.source in SAMPLES else Path(self.source)

    @property
    def name(self) -> str:
        """Its name in figures."""
        return self.source if self.path is None else self.path.name

    def read(self) -> Any:
        """Return what `Pretrained.crop` takes: a path, a PIL image, or pixels."""
        if self.given is not None:
            return self.given
        if self.path is not None:
            return self.source
        from skimage import data

        return np.asarray(getattr(data, SAMPLES[self.source])())

    def crop(self, net: Any, reading: dict[str, Any]) -> np.ndarray:
        """Return the photo as a network takes it, float32 [size, size, 3] in [0, 1].

        Args:
            net: The network, `Pretrained`.
            reading: Keywords of `jaxai.models.fit`: page, white, alpha.

        Raises:
            ValueError: If it cannot be read.
            OSError: If it is gone.
        """
        return np.asarray(net.crop(self.read(), **reading))[0]

    def framed(self, net: Any, reading: dict[str, Any]) -> dict[str, Any]:
        """Return the photo's own size, the part that the network sees, and its place in the square.

        Empty for networks that crop in a way of their own.
        """
        from ..models import crop

        if getattr(net.crop, "func", None) is not crop.crop:
            return {}
        others = {name: value for name, value in reading.items() if name != "fit"}
        width, height = crop.dimensions(self.read(), **others)
        fit = reading.get("fit", "crop")
        box, place = crop.placement(width, height, size=net.input_size, fit=fit)
        return {"original_size": [width, height], "fit": fit, "box": list(box), "place": list(place)}

    def digest(self) -> str:
        """Return the SHA-256 of the file, or of the pixels of a sample or of what is in memory."""
        if self.path is None:
            return hashlib.sha256(np.asarray(self.read()).tobytes()).hexdigest()
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def reading(
    page: int | None, white: float | None, alpha: bool | None, fit: str = "crop", *, tiles: bool = False
) -> dict[str, Any]:
    """Return the keywords for `Photo.crop`; with `tiles`, `fit` may be `TILE`, which is none of those.

    Raises:
        ValueError: If there is no such way to fit.
    """
    known = (*FITS, TILE) if tiles else FITS
    if fit not in known:
        raise ValueError(f"`fit` must be one of {', '.join(known)}; got {names.shortened(str(fit))!r}")
    # Networks of others may crop without knowing of it.
    return {"page": page, "white": white, "alpha": alpha, **({"fit": fit} if fit != FITS[0] else {})}


class Found(NamedTuple):
    """The photos that a command's words stand for."""

    photos: list[Photo]
    several: bool
    """Each needs an output folder of its own."""
    notes: list[str]
    """What folders hold that was left out."""


def find(words: Sequence[str], *, others: Sequence[str] = ()) -> Found:
    """Return the photos denoted by words, each once.

    Args:
        words: Sample names, paths, and folders (their photos, in order of name; not folders in them). A file
            that is called like a sample is written `./cat`.
        others: What else the user may have meant.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a folder holds no photo, or a path is neither a folder nor an ordinary file.
    """
    sources: dict[str, str] = {}
    notes: list[str] = []
    several = len(words) > 1
    for word in words:
        if word in SAMPLES:
            found = [word]
        elif word and os.path.isdir(word):
            several = True
            found = _inside(word, notes)
        else:
            _check_file(word, [*SAMPLES, *others])
            found = [word]
        for source in found:
            sources.setdefault(source if source in SAMPLES else os.path.abspath(source), source)
    chosen = list(sources.values())
    photos = [Photo(source, folder) for source, folder in zip(chosen, names.folders(chosen), strict=True)]
    return Found(photos, several, notes)


def given(photos: Any) -> Found:
    """Return the photos that a Python caller chose.

    Args:
        photos: A path, a folder, a sample's name, a PIL image, an array [height, width, channels] (or grey,
            [height, width]) or [batch, height, width, channels], or a list of those.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is none of those.
        ValueError: If there is no photo, or what is named is none.
    """
    items = list(photos) if isinstance(photos, (list, tuple)) else [photos]
    found: list[Photo] = []
    notes: list[str] = []
    for item in items:
        if isinstance(item, (str, os.PathLike)):
            named = find([os.fsdecode(item)])
            found += named.photos
            notes += named.notes
        elif isinstance(item, Image.Image):
            name = os.path.basename(str(getattr(item, "filename", "") or "")) or "image"
            found.append(Photo(name, "", item))
        elif hasattr(item, "shape") and hasattr(item, "dtype"):
            pixels = np.asarray(item)
            found += [Photo("array", "", one) for one in (pixels if pixels.ndim == 4 else [pixels])]
        else:
            kinds = "a path, a sample, a PIL image or an array [height, width, channels]"
            raise TypeError(f"a photo must be {kinds}; got {type(item).__name__}")
    if not found:
        raise ValueError("`photos` is empty; expected at least one photo")
    numbered = [
        replace(
            photo,
            source=f"{photo.source} {i + 1}" if photo.given is not None and len(found) > 1 else photo.source,
        )
        for i, photo in enumerate(found)
    ]
    folders = names.folders([photo.source for photo in numbered])
    return Found(
        [replace(photo, folder=folder) for photo, folder in zip(numbered, folders, strict=True)],
        len(numbered) > 1,
        notes,
    )


def _check_file(word: str, meant: Sequence[str]) -> None:
    if not word:
        raise ValueError("an image is named by an empty word; expected a path, a folder or a sample")
    if not os.path.lexists(word):
        close = names.near(word, meant) if os.sep not in word else []
        hint = f"did you mean {names.either(close)}?" if close else f"the samples are {', '.join(SAMPLES)}"
        raise FileNotFoundError(f"no such image: {word} ({hint})")
    if not os.path.exists(word):
        raise FileNotFoundError(f"{word} is a link to a file that does not exist")
    # A pipe would be waited for, and a device has no end.
    if not os.path.isfile(word):
        raise ValueError(f"{word} is not a regular file; expected a photo")


def _inside(folder: str, notes: list[str]) -> list[str]:
    """Return the photos of a folder by their names' extensions, and note what else it holds."""
    from ..models.photo_files import EXTENSIONS

    found, others = [], Counter()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            others["folders"] += 1
        elif not entry.is_file():
            others["devices" if os.path.exists(entry.path) else "dead links"] += 1
        elif suffix in EXTENSIONS:
            found.append(entry.path)
        else:
            others[suffix or "without an extension"] += 1
    if not found:
        raise ValueError(f"{folder} holds no image ({', '.join(EXTENSIONS)})")
    if others:
        listed = ", ".join(f"{what} ({count})" for what, count in others.most_common())
        notes.append(f"{folder}: left out {listed}")
    return found
