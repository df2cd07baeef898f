"""Leases: the worker that explains a shard now. They only save work; correctness does not depend on them.

A lease is a file that only one worker can create, and whose time it renews. One that has not been renewed for
a while belongs to a worker that died, and may be taken. If two workers still process the same shard (network
file systems, a paused worker that resumes), both write the same bytes, and each file atomically.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import _layout

EXPIRY = 60.0
"""Seconds after which a lease that was not renewed may be taken."""


@contextmanager
def lease(store: Path, shard: int, *, expiry: float = EXPIRY) -> Iterator[bool]:
    """Hold a shard in the body unless another worker does; yields whether it is held.

    Args:
        store: The store.
        shard: The shard's number.
        expiry: Seconds after which a lease that was not renewed may be taken.
    """
    path = _layout.lease_file(store, shard)
    token = secrets.token_hex(8)
    if not _taken(path, token, expiry):
        yield False
        return
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, token, expiry / 4, stop), daemon=True)
    renewing.start()
    try:
        yield True
    finally:
        stop.set()
        renewing.join()
        if _owner(path) == token:
            path.unlink(missing_ok=True)


def held(store: Path, shard: int, *, expiry: float = EXPIRY) -> bool:
    """Return whether a live worker explains a shard, by this machine's clock; nothing is written."""
    try:
        renewed = _layout.lease_file(store, shard).stat().st_mtime
    except FileNotFoundError:
        return False
    return time.time() - renewed <= expiry


def drop(store: Path, host: str, process: int) -> None:
    """Remove the leases of a process that is known to be dead."""
    for path in _layout.lease_file(store, 0).parent.glob("*.json"):
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            if (found.get("host"), found.get("process")) == (host, process):
                path.unlink(missing_ok=True)


def sweep(store: Path, *, expiry: float = EXPIRY) -> None:
    """Remove old files that killed workers have left among the leases."""
    folder = _layout.lease_file(store, 0).parent
    with suppress(OSError):
        now = _now(folder)
        for entry in list(os.scandir(folder)):
            done = _layout.done_folder(store) / entry.name
            with suppress(OSError):
                if (entry.name.startswith(".") or done.exists()) and now - entry.stat().st_mtime > expiry:
                    os.unlink(entry.path)


def _taken(path: Path, token: str, expiry: float) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    age = _age(path)
    if age is not None:
        if age <= expiry:
            return False
        # Of all workers that find it expired, only one succeeds in renaming it.
        old = path.with_name(f".{path.name}.{token}")
        try:
            path.rename(old)
        except FileNotFoundError:
            return False
        old.unlink(missing_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"token": token, "host": socket.gethostname(), "process": os.getpid()}, file)
    except FileExistsError:
        return False
    return True


def _age(path: Path) -> float | None:
    """Return the seconds since a lease was renewed, by its file system's clock; None if there is none."""
    try:
        renewed = path.stat().st_mtime
    except FileNotFoundError:
        return None
    return _now(path.parent) - renewed


def _now(folder: Path) -> float:
    """Return the time by the clock of a folder's file system."""
    clock = folder / f".{secrets.token_hex(4)}.clock"
    clock.touch()
    try:
        return clock.stat().st_mtime
    finally:
        clock.unlink(missing_ok=True)


def _owner(path: Path) -> str | None:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("token")
    except (OSError, ValueError):
        return None


def _renew(path: Path, token: str, every: float, stop: threading.Event) -> None:
    while not stop.wait(every):
        # Another may have taken it while this process was stopped.
        if _owner(path) != token:
            return
        with suppress(OSError):
            os.utime(path)
