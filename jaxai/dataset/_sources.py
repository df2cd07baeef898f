"""The images of a data set: a folder tree, a table, a list of files, or tars."""

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._files import shown
from . import _tars

_PATHS = ("path", "file_name", "image")
_LABELS = ("label", "class")
_TABLES = (".csv", ".parquet", ".jsonl")
# Folders above those of the classes.
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
# Tables that lie beside the images, as Hugging Face's `imagefolder` has them.
_BESIDE = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class Listed(NamedTuple):
    """Images and what they are called.

    Attributes:
        root: The folder that paths start from.
        paths: Relative to it, sorted.
        labels: The class of each as the data set calls it; None where it says nothing.
        tars: Archives that hold the images, relative to `root`; none if they are files.
        places: Of each image, the number of its tar and where its bytes begin there.
        sizes: Bytes of each image in a tar.
    """

    root: Path
    paths: list[str]
    labels: list[str | None]
    tars: list[str] = []
    places: list[tuple[int, int]] = []
    sizes: list[int] = []


def listed(images: Any) -> Listed:
    """Return the images of a data set.

    Args:
        images: A folder (all photos in it and in folders below; those directly below are the classes, or
            those below `train`, `validation`, `test`; a `metadata.csv`, `.jsonl` or `.parquet` in it is its
            table); a table .csv, .jsonl or .parquet with the columns `path` (or `file_name`, `image`;
            relative to the table) and, if there are labels, `label` (or `class`); a tar as WebDataset has it,
            several as `train-{000..009}.tar`, or a folder of tars; a mapping from paths to labels; or paths.

    Raises:
        FileNotFoundError: If there is no such folder, table or image.
        ValueError: If there is no image, or one twice.
        OSError: If a folder cannot be read.
    """
    if isinstance(images, Mapping):
        found = _of_rows([(os.fspath(path), str(label)) for path, label in images.items()], Path.cwd())
    elif not isinstance(images, (str, os.PathLike)):
        names = [os.fspath(path) for path in images]
        if names and all(name.lower().endswith(".tar") for name in names):
            found = _in_tars([Path(name) for name in names])
        else:
            found = _of_rows([(name, None) for name in names], Path.cwd())
    elif Path(images).is_dir():
        found = _folder(Path(images).absolute())
    elif str(images).lower().endswith(".tar"):
        found = _in_tars([Path(name) for name in _tars.expanded(str(images))])
    elif Path(images).suffix.lower() in _TABLES and Path(images).exists():
        found = _table(Path(images).absolute())
    elif Path(images).exists():
        raise ValueError(
            f"{shown(images, 200)} must be a folder, a .tar, or a table .csv, .jsonl or .parquet"
        )
    else:
        raise FileNotFoundError(f"no such folder or table: {shown(images, 200)}")
    if not found.paths:
        raise ValueError(f"{shown(images, 200)} holds no image")
    return found


def _folder(root: Path) -> Listed:
    """Return the images of a folder: those of its table, its tars, or its tree."""
    for name in _BESIDE:
        if (root / name).is_file():
            return _table(root / name)
    found = _tree(root)
    tars = [] if found.paths else sorted(p for p in root.iterdir() if p.suffix.lower() == ".tar")
    return _in_tars(tars) if tars else found


def _in_tars(tars: Sequence[Path]) -> Listed:
    for tar in tars:
        if not tar.exists():
            raise FileNotFoundError(f"no such tar: {shown(tar, 200)}")
    absolute = sorted(tar.absolute() for tar in tars)
    root = Path(os.path.commonpath([tar.parent for tar in absolute]))
    names = [tar.relative_to(root).as_posix() for tar in absolute]
    _once(names)
    rows = [
        (f"{name}/{one.name}", one.label, (number, one.offset), one.size)
        for number, (name, tar) in enumerate(zip(names, absolute, strict=True))
        for one in _tars.members(tar)
    ]
    rows.sort(key=lambda row: row[0])
    _once(path for path, *_ in rows)
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return Listed(root, list(columns[0]), list(columns[1]), names, list(columns[2]), list(columns[3]))


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
    folders = [path.split("/")[:-1] for path in paths]
    # Where all are in splits, the classes are below those.
    depth = int(bool(folders) and all(parts and parts[0].lower() in _SPLITS for parts in folders))
    return Listed(root, paths, [parts[depth] if len(parts) > depth else None for parts in folders])


def _table(path: Path) -> Listed:
    if path.suffix.lower() == ".parquet":
        from . import _needs

        table = _needs.parquet().read_table(path)
        rows, columns = table.to_pylist(), table.column_names
    elif path.suffix.lower() == ".jsonl":
        rows, columns = _json_lines(path)
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


def _json_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise ValueError(f"{shown(path, 200)} is not a table of JSON lines in UTF-8") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{shown(path, 200)} must hold a JSON object in each line")
    columns = sorted({name for row in rows for name in row})
    return [{**dict.fromkeys(columns), **row} for row in rows], columns


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
