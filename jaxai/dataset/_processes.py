"""Several workers on this machine, each a process.

All see all cores: XLA divides sums among as many threads as there are cores, so a worker with fewer cores
would get different last bits.
"""

import builtins
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _layout, _leases, _status
from ._plan import Plan

_PAUSE = 1.0
# So many workers, for each that was asked for, may die one after the other without a shard being finished.
DEATHS = 3
# The exceptions for callers' mistakes, the most specific first; system errors keep their own kind.
_KINDS = (FileNotFoundError, PermissionError, ChildProcessError, OSError, ImportError, MemoryError, TypeError)


def run(store: Path, plan: Plan, workers: int, expiry: float, told: Callable[[Any], None] | None) -> None:
    """Start workers, replace those that die, and wait until all shards are done.

    Raises:
        ChildProcessError: If workers die again and again, and no shard is finished.
        Exception: What a worker raised when it gave up: no space, a folder that cannot be written.
    """
    # A forked process would share JAX's threads without their locks.
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()

    def start(number: int) -> Any:
        process = context.Process(
            target=_work, args=(str(store), plan.root, number, workers, expiry, said), daemon=True
        )
        process.start()
        return process

    processes = {number: start(number) for number in range(workers)}
    deaths, done, watch = 0, _done(store), _status.Watch(store, plan)
    try:
        while processes:
            time.sleep(_PAUSE)
            if (now := _done(store)) != done:
                deaths, done = 0, now
            for number, process in list(processes.items()):
                if process.is_alive():
                    continue
                del processes[number]
                if not said.empty():
                    raise unpacked(*said.get())
                if process.exitcode:
                    # Drop the lease of a dead process at once, so that nobody waits for it to expire.
                    _leases.drop(store, socket.gethostname(), process.pid)
                    deaths += 1
                    if deaths > DEATHS * workers:
                        code = process.exitcode
                        how = "signal 9, as when memory runs out" if code == -9 else f"exit code {code}"
                        raise ChildProcessError(f"workers die again and again, {deaths} in a row ({how})")
                    processes[number] = start(number)
            if told is not None:
                told(watch.status())
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.join()


def packed(error: Exception, line: str) -> tuple[str, tuple[Any, ...]]:
    """Return a caller's mistake as another process can raise it: a kind of error and its arguments.

    Args:
        error: What was raised.
        line: Its message.
    """
    if isinstance(error, OSError) and error.errno:
        return "OSError", (error.errno, error.strerror, error.filename)
    if "RESOURCE_EXHAUSTED" in str(error):
        return "MemoryError", (line,)
    return next((kind.__name__ for kind in _KINDS if isinstance(error, kind)), "ValueError"), (line,)


def unpacked(kind: str, arguments: tuple[Any, ...]) -> Exception:
    """Return the error of another process."""
    return getattr(builtins, kind)(*arguments)


def _done(store: Path) -> int:
    try:
        return len(os.listdir(_layout.done_folder(store)))
    except FileNotFoundError:
        return 0


def _work(store: str, root: str, number: int, workers: int, expiry: float, said: Any) -> None:
    from ..report import _errors
    from . import _run

    try:
        _run.run(store, root=root, worker=(number, workers), expiry=expiry)
    except KeyboardInterrupt:
        return
    except Exception as error:
        line = _errors.explain(error)
        if line is None:
            raise
        said.put(packed(error, line))
