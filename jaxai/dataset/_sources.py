"""The images of a data set: a folder tree, a table, or a list of files."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._files import shown

_PATHS = ("path", "file_name", "image")
_LABELS = ("label", "class")


class Listed(NamedTuple):
    """Images and what they are called.

    Attributes:
        root: The folder that paths start from.
        paths: Relative to it, sorted.
        labels: The class of each as the data set calls it; None where it says nothing.
    """

    root: Path
    paths: list[str]
    labels: list[str | None]


def listed(images: Any) -> Listed:
    """Return the images of a data set.

    Args:
        images: A folder (all photos in it and in folders below; those directly below are the classes), a
            table .csv or .parquet with the columns `path` (or `file_name`, `image`; relative to the table)
            and, if there are labels, `label` (or `class`); a mapping from paths to labels; or paths.

    Raises:
        FileNotFoundError: If there is no such folder, table or image.
        ValueError: If there is no image, or one twice.
        OSError: If a folder cannot be read.
    """
    if isinstance(images, Mapping):
        found = _of_rows([(os.fspath(path), str(label)) for path, label in images.items()], Path.cwd())
    elif not isinstance(images, (str, os.PathLike)):
        found = _of_rows([(os.fspath(path), None) for path in images], Path.cwd())
    elif Path(images).is_dir():
        found = _tree(Path(images).absolute())
    elif Path(images).suffix.lower() in (".csv", ".parquet"):
        found = _table(Path(images).absolute())
    elif Path(images).exists():
        raise ValueError(f"{shown(images, 200)} must be a folder, or a table .csv or .parquet")
    else:
        raise FileNotFoundError(f"no such folder or table: {shown(images, 200)}")
    if not found.paths:
        raise ValueError(f"{shown(images, 200)} holds no image")
    return found


def _tree(root: Path) -> Listed:
    from ..models.photo_files import EXTENSIONS

    def refuse(error: OSError) -> None:
        raise error

    paths = [
        os.path.relpath(os.path.join(folder, name), root)
        for folder, below, names in os.walk(root, onerror=refuse)
        if not below.sort()  # The order in which folders are looked at.
        for name in names
        if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")
    ]
    paths = sorted(Path(path).as_posix() for path in paths)
    return Listed(root, paths, [path.split("/")[0] if "/" in path else None for path in paths])


def _table(path: Path) -> Listed:
    if path.suffix.lower() == ".parquet":
        from . import _needs

        table = _needs.parquet().read_table(path)
        rows, columns = table.to_pylist(), table.column_names
    else:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                rows, columns = list(reader), list(reader.fieldnames or ())
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{shown(path, 200)} is not a CSV table in UTF-8") from error
    where = next((name for name in _PATHS if name in columns), None)
    if where is None:
        raise ValueError(
            f"{shown(path, 200)} must have a column `path`; it has {shown(', '.join(map(str, columns)))}"
        )
    label = next((name for name in _LABELS if name in columns), None)
    found = []
    for number, row in enumerate(rows, 1):
        if not row[where]:
            raise ValueError(f"{shown(path, 200)}: row {number} has no path")
        found.append(
            (str(row[where]), None if label is None or row[label] in (None, "") else str(row[label]))
        )
    return _of_rows(found, path.parent)


def _of_rows(rows: Sequence[tuple[str, str | None]], root: Path) -> Listed:
    pairs = sorted((Path(os.path.normpath(path)).as_posix(), label) for path, label in rows)
    _once(path for path, _ in pairs)
    for path, _ in pairs:
        if not (root / path).exists():
            raise FileNotFoundError(f"no such image: {shown(root / path, 200)}")
    return Listed(root, [path for path, _ in pairs], [label for _, label in pairs])


def _once(paths: Iterable[str]) -> None:
    last = None
    for path in paths:
        if path == last:
            raise ValueError(f"the image {shown(path, 200)} is named twice")
        last = path
