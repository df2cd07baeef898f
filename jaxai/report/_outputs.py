"""Output paths: checked before any work, never overwriting inputs, never mixed with other runs."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Sources:
    """Files that a command reads, which it must not change."""

    def __init__(self, paths: Iterable[str | os.PathLike | None]) -> None:
        self._known: dict[tuple[int, int], str] = {}
        for path in paths:
            if path is not None:
                with suppress(OSError):
                    status = os.stat(path)
                    self._known.setdefault((status.st_dev, status.st_ino), os.fspath(path))

    def find(self, path: Path) -> str | None:
        """Return the source file to which a path resolves, whatever their names."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return self._known.get((status.st_dev, status.st_ino))


def check_folder(folder: Path, names: Iterable[str], sources: Sources) -> None:
    """Check that files of these names can be written into a folder, and remove what killed runs left there.

    Raises:
        OSError: If they cannot.
        ValueError: If one of them is a source.
    """
    _check_place(folder)
    if _exists(folder):
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file; expected a folder to write to")
        _files.sweep(folder)
        for name in names:
            _check_target(folder / name, sources)
    _files.sweep(folder.absolute().parent)


def check_file(path: Path, sources: Sources) -> None:
    """Check that a file can be written, and remove what killed runs left beside it.

    Raises:
        OSError: If it cannot.
        ValueError: If it is a source.
    """
    _check_place(path)
    _check_target(path, sources)
    _files.sweep(path.absolute().parent)


def _check_place(path: Path) -> None:
    """Check that a path can be made, or changed if there is one."""
    for part in (path, *path.parents):
        if _exists(part):
            if part != path and not part.is_dir():
                raise NotADirectoryError(f"{part} is a file; expected a folder to write to")
            place = part if part.is_dir() else part.absolute().parent
            if not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(f"{place} cannot be written to")
            return


def _check_target(path: Path, sources: Sources) -> None:
    if not _exists(path):
        return
    if not path.is_file():
        raise OSError(f"{path} is not a regular file; expected the name of a file to write")
    if source := sources.find(path):
        raise ValueError(f"the output {path} would replace {source}, which is read; choose another --out")


def _exists(path: Path) -> bool:
    """Return whether something of this name exists.

    Raises:
        OSError: If it cannot be told, or it is a link to nothing.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise FileNotFoundError(f"{path} is a link to something that does not exist") from None
        return False
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs from writing into a folder meanwhile, if the file system has locks."""
    descriptor = None
    if fcntl is not None:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def record(path: Path) -> dict[str, Any]:
    """Return a record that an earlier run has written; an empty one if there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def remove(folder: Path, names: Sequence[Any], sources: Sources) -> None:
    """Remove pictures that the record of an earlier run lists; nothing outside the folder, and no source.

    Raises:
        OSError: If one of them cannot be removed.
    """
    for name in names:
        if isinstance(name, str) and name == os.path.basename(name) and name.endswith(".png"):
            path = folder / name
            if path.is_file() and not sources.find(path):
                path.unlink(missing_ok=True)


def numbers(value: Any) -> Any:
    """Return arrays as nested lists, with None for values that are not finite, which JSON lacks."""
    if isinstance(value, (np.ndarray, np.generic)):
        return numbers(value.tolist())
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
