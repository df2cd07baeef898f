"""The photographs that a command is given: paths, folders and sample names."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from . import errors, names, terminal

# Photographs that come with scikit-image, by what they show.
SAMPLES = {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket", "astronaut": "astronaut"}
ImagesArgument = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help=f"Photos, folders of photos, or samples: {', '.join(SAMPLES)}."),
]


@dataclass(frozen=True)
class Photo:
    """A photograph on disk or a sample.

    Attributes:
        source: As the user named it.
        folder: Name of its output folder, unique within a run.
    """

    source: str
    folder: str

    @property
    def path(self) -> Path | None:
        """The file; None for a sample."""
        return None if self.source in SAMPLES else Path(self.source)

    @property
    def name(self) -> str:
        """What it is called in figures."""
        return self.source if self.path is None else self.path.name

    def read(self) -> Any:
        """Return what `Pretrained.crop` takes: a path, or pixels uint8 [height, width, 3]."""
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

    def digest(self) -> str:
        """Return the SHA-256 of the file, or of a sample's pixels."""
        if self.path is None:
            return hashlib.sha256(self.read().tobytes()).hexdigest()
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class Found(NamedTuple):
    """The photos that a command's words stand for."""

    photos: list[Photo]
    several: bool
    """Each needs an output folder of its own."""
    notes: list[str]
    """What folders hold that was left out."""


def find(words: Sequence[str]) -> Found:
    """Return the photos that words stand for, each once.

    Args:
        words: Sample names, paths, and folders (their photos, in order of name; not folders in them). A file
            that is called like a sample is written `./cat`.

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
            _check_file(word)
            found = [word]
        for source in found:
            sources.setdefault(source if source in SAMPLES else os.path.abspath(source), source)
    chosen = list(sources.values())
    photos = [Photo(source, folder) for source, folder in zip(chosen, names.folders(chosen), strict=True)]
    return Found(photos, several, notes)


def _check_file(word: str) -> None:
    if not word:
        raise ValueError("an image is named by an empty word; expected a path, a folder or a sample")
    if not os.path.lexists(word):
        close = names.near(word, list(SAMPLES)) if os.sep not in word else []
        hint = f"did you mean {names.either(close)}?" if close else f"the samples are {', '.join(SAMPLES)}"
        raise FileNotFoundError(f"no such image: {word} ({hint})")
    if not os.path.exists(word):
        raise FileNotFoundError(f"{word} is a link to a file that does not exist")
    # A pipe would be waited for, and a device has no end.
    if not os.path.isfile(word):
        raise ValueError(f"{word} is no ordinary file; expected a photo")


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


def read_all(net: Any, photos: Sequence[Photo], reading: dict[str, Any]) -> tuple[list[Photo], np.ndarray]:
    """Read photos as a network takes them; one that cannot be read gives a line and is left out.

    Args:
        net: The network, `Pretrained`.
        photos: At least one.
        reading: As for `Photo.crop`.

    Returns:
        The photos that were read, and their pixels float32 [photos, size, size, 3] in [0, 1].

    Raises:
        ValueError: If there is none.
    """
    good, pixels = [], []
    for photo in photos:
        try:
            pixels.append(photo.crop(net, reading))
            good.append(photo)
        except Exception as error:
            if len(photos) == 1:
                raise
            terminal.note(f"error: {errors.described(error)}")
    if not good:
        raise ValueError("none of the photos can be read")
    return good, np.stack(pixels)
