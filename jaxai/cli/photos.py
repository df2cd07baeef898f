"""The photographs that a command is given: paths, folders and sample names."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Photographs that come with scikit-image, by what they show.
SAMPLES = {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket", "astronaut": "astronaut"}
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Photo:
    """A photograph on disk or a sample.

    Attributes:
        source: As the user named it.
        stem: Name of its output folder, unique within a run.
    """

    source: str
    stem: str

    def read(self) -> Any:
        """Return what `Pretrained.crop` takes: a path, or pixels uint8 [height, width, 3]."""
        if self.source not in SAMPLES:
            return self.source
        from skimage import data

        return np.asarray(getattr(data, SAMPLES[self.source])())

    def digest(self) -> str:
        """Return the SHA-256 of the file, or of a sample's pixels."""
        content = self.read()
        data = Path(content).read_bytes() if isinstance(content, str) else content.tobytes()
        return hashlib.sha256(data).hexdigest()


def find(names: Sequence[str]) -> tuple[list[Photo], bool]:
    """Return the photos that names stand for, and whether each needs an output folder of its own.

    Args:
        names: Sample names, paths, and folders (their images, in order of name; not folders in them). A
            file that is called like a sample is written `./cat`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a folder holds no image.
    """
    sources: list[str] = []
    for name in names:
        if name in SAMPLES:
            sources.append(name)
        elif Path(name).is_dir():
            sources.extend(_inside(Path(name)))
        elif Path(name).exists():
            sources.append(name)
        else:
            raise FileNotFoundError(f"no such image: {name} (the samples are {', '.join(SAMPLES)})")
    several = len(names) > 1 or Path(names[0]).is_dir() and names[0] not in SAMPLES
    return _unique(sources), several


def _inside(folder: Path) -> list[str]:
    found = sorted(
        str(path)
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return found


def _unique(sources: list[str]) -> list[Photo]:
    taken: Counter[str] = Counter()
    photos = []
    for source in sources:
        stem = Path(source).stem
        while taken[stem]:
            taken[stem] += 1
            stem = f"{stem}_{taken[stem]}"
        taken[stem] += 1
        photos.append(Photo(source, stem))
    return photos
