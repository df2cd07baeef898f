"""Images in tars as WebDataset has them: files whose names differ after the first dot are one sample."""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._files import shown

_LABELS = ("label", "class", "cls")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Member(NamedTuple):
    """An image in a tar.

    Attributes:
        name: Its path in the tar.
        label: What the sample's `.cls` or `.json` says; None if there is none.
        offset: Where its bytes begin in the tar.
        size: How many they are.
    """

    name: str
    label: str | None
    offset: int
    size: int


def expanded(pattern: str) -> list[str]:
    """Return the names that `train-{0000..0009}.tar` stands for; a name without braces is itself."""
    found = _RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    names = [f"{pattern[: found.start()]}{n:0{len(first)}d}{pattern[found.end() :]}" for n in numbers]
    return [one for name in names for one in expanded(name)]


def members(path: Path) -> list[Member]:
    """Return the images of a tar, one for each sample.

    Raises:
        ValueError: If it is not a tar, is compressed or cut short, or if a sample has several images.
        OSError: If it cannot be read.
    """
    found = []
    with path.open("rb") as file:
        try:
            # Compressed ones have no places that one could jump to.
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for key, files in _samples(tar):
                    image = _image(path, key, [one.name for one in files])
                    if image is not None:
                        one = next(one for one in files if one.name == image)
                        found.append(
                            Member(one.name, _label(path, tar, key, files), one.offset_data, one.size)
                        )
        except tarfile.TarError as error:
            raise ValueError(
                f"{shown(path, 200)} is not a tar, or is compressed or damaged: {error}"
            ) from error
    size = os.stat(path).st_size
    if found and max(one.offset + one.size for one in found) > size:
        raise ValueError(f"{shown(path, 200)} is cut short")
    return found


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Yield samples, whose files follow each other."""
    key, files = None, []
    for member in tar:
        if not member.isfile() or os.path.basename(member.name).startswith("."):
            continue
        mine = _split(member.name)[0]
        if mine != key and files:
            yield str(key), files
            files = []
        key = mine
        files.append(member)
    if files:
        yield str(key), files


def _split(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, kind.lower()


def _image(path: Path, key: str, names: Sequence[str]) -> str | None:
    from ..models.photo_files import EXTENSIONS

    images = [name for name in names if os.path.splitext(name)[1].lower() in EXTENSIONS]
    # A mask beside the photo has two dots, as in `1.seg.png`.
    plain = [name for name in images if f".{_split(name)[1]}" in EXTENSIONS] or images
    if len(plain) > 1:
        raise ValueError(
            f"{shown(path, 200)}: the sample {shown(key)} has {len(plain)} images; expected one each"
        )
    return plain[0] if plain else None


def _label(path: Path, tar: tarfile.TarFile, key: str, files: Sequence[tarfile.TarInfo]) -> str | None:
    kinds = {_split(one.name)[1]: one for one in files}
    if "cls" in kinds:
        return _text(path, tar, kinds["cls"]).strip() or None
    if "json" not in kinds:
        return None
    try:
        content: Any = json.loads(_text(path, tar, kinds["json"]))
    except ValueError as error:
        raise ValueError(f"{shown(path, 200)}: the JSON of the sample {shown(key)} is damaged") from error
    values = [content[name] for name in _LABELS if name in content] if isinstance(content, dict) else []
    return next((str(value) for value in values if isinstance(value, (str, int)) and value != ""), None)


def _text(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = tar.extractfile(member)
    assert stream is not None
    try:
        return stream.read().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path, 200)}: {shown(member.name)} is not text in UTF-8") from error
