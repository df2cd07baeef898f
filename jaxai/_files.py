"""Atomic writing: files and folders appear complete or not at all.

Output is written under a short hidden name in the destination's folder and renamed when it is complete and on
disk. The writing process locks it, so that `sweep` can recognise what killed processes have left behind.
`shown` makes file names, and text from foreign files, safe to print in a message.
"""

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = re.compile(r"\.jaxai-[0-9a-f]{8}\.part")
# Without locks, only files older than this many seconds count as left behind.
_STALE = 24 * 3600
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def shown(text: object, limit: int = 80) -> str:
    """Return text fit for one line of a message: no control characters, at most `limit` characters."""
    text = str(text)
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() else "?" for c in cut)


@contextmanager
def parents(path: Path) -> Iterator[None]:
    """Make the folders above `path`; if the body fails, remove those that were made here and are empty.

    Raises:
        NotADirectoryError: If one of them is a file.
    """
    for above in path.parents:
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(f"{shown(above, 200)} is a file; expected a folder to write to")
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
def file(path: Path) -> Iterator[Path]:
    """Yield the name of a new empty file that becomes `path` when the body succeeds.

    Raises:
        OSError: If nothing can be written there, or `path` is not an ordinary file.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{shown(path, 200)} is not a regular file; expected the name of a file to write")
    path = path.absolute()
    with parents(path), temporary(path.parent) as new:
        yield new
        _flush(new)
        os.replace(new, path)
        _flush(path.parent)


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder whose files become those of `path` when the body succeeds.

    Files in `path` with other names are kept.

    Raises:
        NotADirectoryError: If `path` is a file.
        OSError: If nothing can be written there.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{shown(path, 200)} is a file; expected a folder to write to")
    path = path.absolute()
    # Use a folder that exists, because the one above it may not be writable.
    with parents(path), temporary(path if path.exists() else path.parent, directory=True) as new:
        yield new
        for inner, _, names in os.walk(new):
            for name in names:
                _flush(Path(inner, name))
            _flush(Path(inner))
        try:
            os.rename(new, path)
        except OSError:
            # It may have existed before, or since a moment ago.
            if not path.is_dir():
                raise
            for part in list(new.iterdir()):
                os.replace(part, path / part.name)
            _flush(path)
        _flush(path.parent)


def write(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file completely or not at all.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    with file(path) as new, new.open("wb") as stream:
        stream.writelines(chunks)


@contextmanager
def temporary(folder: Path, *, directory: bool = False) -> Iterator[Path]:
    """Yield a new hidden file or directory in a folder; it is removed at the end unless it was renamed.

    Raises:
        OSError: If nothing can be written there.
    """
    path, lock = _claim(folder, directory)
    try:
        yield path
    finally:
        _remove(path)
        if lock is not None:
            os.close(lock)


def sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder, but nothing that is in use."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if _NAME.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_left(Path(entry.path))


def _claim(folder: Path, directory: bool) -> tuple[Path, int | None]:
    """Make a hidden file or directory and lock it if the file system has locks."""
    while True:
        path = folder / f".jaxai-{secrets.token_hex(4)}.part"
        try:
            path.mkdir() if directory else path.touch(exist_ok=False)
        except FileExistsError:
            continue
        if fcntl is None:
            return path, None
        try:
            lock = os.open(path, (os.O_RDONLY if directory else os.O_RDWR) | _FLAGS)
        except FileNotFoundError:
            continue  # Until it is locked, another process's `sweep` may remove it as left behind.
        except OSError:
            _remove(path)
            raise
        if _locked(lock) is not False and _is_open(path, lock):
            return path, lock
        os.close(lock)


def _locked(descriptor: int) -> bool | None:
    """Lock an open file; False if another holds the lock, None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_open(path: Path, descriptor: int) -> bool:
    """Return whether a path still names the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_left(path: Path) -> None:
    status = os.stat(path, follow_symlinks=False)
    directory = stat.S_ISDIR(status.st_mode)
    if not directory and not stat.S_ISREG(status.st_mode):
        return
    old = time.time() - status.st_mtime > _STALE
    if fcntl is None:
        if old:
            _remove(path)
        return
    lock = os.open(path, (os.O_RDONLY if directory else os.O_RDWR) | _FLAGS)
    try:
        dead = _locked(lock)
        if (old if dead is None else dead) and _is_open(path, lock):
            _remove(path)
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file or a folder's list of names is on disk."""
    directory, windows = path.is_dir(), os.name == "nt"
    if directory and windows:
        return
    descriptor = os.open(path, (os.O_RDWR if windows else os.O_RDONLY) | _FLAGS)
    try:
        os.fsync(descriptor)
    except OSError:
        # Not every file system supports this for folders.
        if not directory:
            raise
    finally:
        os.close(descriptor)
