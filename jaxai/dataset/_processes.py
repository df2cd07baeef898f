"""Several workers on this machine, each a process.

All see all cores: XLA divides sums among as many threads as there are cores, so that a worker with fewer
would find other last bits.
"""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _status
from ._plan import Plan

_PAUSE = 1.0
# A worker that dies more often than this for each of its shards is not started again.
_DEATHS = 3


def run(store: Path, plan: Plan, workers: int, expiry: float, told: Callable[[Any], None] | None) -> None:
    """Start workers, replace those that die, and wait until all shards are done.

    Raises:
        RuntimeError: If workers keep dying.
        OSError: What a worker said when it gave up: no space, a folder that cannot be written.
    """
    # A process that is forked would share JAX's threads without their locks.
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()

    def start(number: int) -> Any:
        process = context.Process(
            target=_work, args=(str(store), plan.root, number, workers, expiry, said), daemon=True
        )
        process.start()
        return process

    processes = {number: start(number) for number in range(workers)}
    deaths = 0
    try:
        while processes:
            time.sleep(_PAUSE)
            for number, process in list(processes.items()):
                if process.is_alive():
                    continue
                del processes[number]
                if not said.empty():
                    raise OSError(said.get())
                if process.exitcode:
                    deaths += 1
                    if deaths > _DEATHS * workers:
                        raise RuntimeError(f"workers die again and again (exit code {process.exitcode})")
                    processes[number] = start(number)
            if told is not None:
                told(_status.of_plan(store, plan))
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.join()


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
        said.put(line)
