"""Output that is there whole or not at all: written beside its place under a hidden name, then renamed."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def parents(path: Path) -> Iterator[None]:
    """Make the folders above `path`; if the body fails, remove those that were made and are empty.

    Raises:
        NotADirectoryError: If one of them is a file.
    """
    for above in path.parents:
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(f"{above} is a file; expected a folder to write to")
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            try:
                folder.rmdir()
            except OSError:
                break
        raise


@contextmanager
def existing(path: Path) -> Iterator[None]:
    """Make a folder that others are written into; if the body fails, remove it again where it is empty.

    Raises:
        OSError: If it cannot be made or written to.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; expected a folder to write to")
    with parents(path.absolute() / "_"):
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} cannot be written to")
        yield


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder whose files become those of `path` when the body succeeds.

    Files of `path` with other names stay.

    Raises:
        NotADirectoryError: If `path` is a file.
        OSError: If nothing can be written there.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; expected a folder to write to")
    path = path.absolute()
    # Inside a folder that exists, since the one above it may not be ours to write to.
    temporary = _temporary(path / "_" if path.exists() else path)
    with parents(path):
        try:
            temporary.mkdir()
            yield temporary
            if path.exists():
                for file in temporary.iterdir():
                    os.replace(file, path / file.name)
            else:
                os.rename(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """Yield the name of a new file that becomes `path` when the body succeeds.

    Raises:
        OSError: If nothing can be written there, or `path` is no ordinary file.
    """
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no ordinary file; expected the name of a file to write")
    path = path.absolute()
    temporary = _temporary(path)
    with parents(path):
        try:
            temporary.touch()
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def optional_file(path: Path | None) -> Iterator[Path | None]:
    """Do as `file` does; None stays None."""
    if path is None:
        yield None
        return
    with file(path) as temporary:
        yield temporary


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
