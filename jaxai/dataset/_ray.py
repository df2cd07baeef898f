"""Workers as actors of Ray, on this machine or a cluster: each loads the network once and explains shards.

Ray starts and places them; as for all workers, the store records what is done and prevents duplicate work.
"""

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._files import shown
from . import _leases, _needs, _processes, _status
from ._plan import Plan, moved

_PAUSE = 1.0
_REACH = 10.0  # seconds
_FREE, _HELD = "free", "held"


class Worker:
    """The work of an actor.

    Args:
        store: The store, on a file system that all machines share.
        root: The folder of the images.
        expiry: Seconds after which a lease that was not renewed expires.
        place: Where the caller was: models of its packages are found there.
    """

    def __init__(self, store: str, root: str, expiry: float, place: str):
        if place not in sys.path:
            sys.path.insert(0, place)
        self._store, self._root, self._expiry = Path(store), root, expiry
        self._explainer: Any = None

    def who(self) -> tuple[str, int]:
        """Return the host and the process."""
        return socket.gethostname(), os.getpid()

    def explain(self, shard: int) -> Any:
        """Explain a shard unless another worker does; return that, or what went wrong (`packed`)."""
        from ..report import _errors
        from . import _run, _shards

        try:
            if self._explainer is None:
                plan = moved(Plan.read(self._store), self._root)
                net = _run.network_of(plan, None)
                self._explainer = _shards.Explainer(plan, net, ThreadPoolExecutor(_run.THREADS))
            if _run.is_done(self._store, self._explainer.plan, shard, whole=False):
                return _FREE
            with _leases.lease(self._store, shard, expiry=self._expiry) as mine:
                if mine:
                    _run.explain(self._store, self._explainer, shard, None)
            return _FREE if mine else _HELD
        except Exception as error:
            line = _errors.explain(error)
            if line is None:
                raise
            return _processes.packed(error, line)


def run(
    store: Path,
    plan: Plan,
    workers: int | None,
    expiry: float,
    address: str | None,
    told: Callable[[Any], None] | None,
) -> None:
    """Explain what is missing with actors, replace those that die, and wait until all shards are done.

    Raises:
        ChildProcessError: If actors die again and again, and no shard is finished.
        ConnectionError: If there is no such cluster, or it is gone.
        Exception: What an actor raised when it gave up: no space, a folder that cannot be written.
    """
    ray = _needs.ray()
    # Left to itself Ray looks for the cluster that was here last, and waits for minutes if that is gone.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _reach(address)
    begun = not ray.is_initialized()
    try:
        if begun:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        _work(ray, store.absolute(), plan, workers, expiry, told)
    except (ray.exceptions.RaySystemError, ray.exceptions.RayChannelError, ConnectionError) as error:
        line = shown(" ".join(str(error).split()), 200)
        raise ConnectionError(
            f"Ray's cluster at {shown(address)} cannot be reached; run again to go on: {line}"
        ) from error
    finally:
        if begun:
            with suppress(Exception):
                ray.shutdown()


def _work(ray: Any, store: Path, plan: Plan, workers: int | None, expiry: float, told: Any) -> None:
    from . import _run

    nodes = [node for node in ray.nodes() if node["Alive"]]
    gpus = int(ray.cluster_resources().get("GPU", 0))
    # Of CPUs one process uses all that a machine has.
    count = workers or gpus or len(nodes)
    options = {
        "num_cpus": 0,
        "num_gpus": 1 if gpus >= count else gpus / count,
        "scheduling_strategy": "SPREAD",
        # The flags of this process, so that all find the same bits; Ray would give each one thread.
        "runtime_env": {"env_vars": _environment()},
    }
    actor = ray.remote(Worker).options(**options)

    def start() -> Any:
        return actor.remote(str(store), plan.root, expiry, os.getcwd())

    left = deque(
        shard for shard in range(plan.num_shards) if not _run.is_done(store, plan, shard, whole=True)
    )
    idle = [start() for _ in range(min(count, max(1, len(left))))]
    who: dict[Any, tuple[str, int]] = {}
    busy: dict[Any, tuple[Any, int]] = {}
    deaths, pause, watch = 0, 0.0, _status.Watch(store, plan)
    try:
        while left or busy:
            while idle and left and time.monotonic() >= pause:
                one, shard = idle.pop(), left.popleft()
                who.setdefault(one, one.who.remote())
                busy[one.explain.remote(shard)] = one, shard
            ready, _ = ray.wait(list(busy), timeout=_PAUSE) if busy else ([], time.sleep(_PAUSE))
            for task in ready:
                one, shard = busy.pop(task)
                try:
                    found = ray.get(task)
                except ray.exceptions.RayActorError as error:
                    deaths += 1
                    if deaths > _processes.DEATHS * count:
                        line = shown(" ".join(str(error).split()), 200)
                        raise ChildProcessError(
                            f"Ray's actors die again and again, {deaths} in a row: {line}"
                        ) from error
                    with suppress(Exception):
                        _leases.drop(store, *ray.get(who.pop(one), timeout=1))
                    left.appendleft(shard)
                    idle.append(start())
                    continue
                if found == _HELD:
                    left.append(shard)
                    pause = time.monotonic() + _PAUSE
                elif found != _FREE:
                    raise _processes.unpacked(*found)
                else:
                    deaths = 0
                idle.append(one)
            if told is not None:
                told(watch.status())
    finally:
        for one in [*idle, *(one for one, _ in busy.values())]:
            with suppress(Exception):
                ray.kill(one)
        for one in who:
            with suppress(Exception):
                _leases.drop(store, *ray.get(who[one], timeout=1))


def _reach(address: str) -> None:
    """Try to connect, for some seconds: Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ConnectionError(f"Ray's cluster at {shown(address)} cannot be reached: {why}") from error


def _environment() -> dict[str, str]:
    """Return what decides how XLA divides work among threads."""
    cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    found = {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_PLATFORMS") if name in os.environ}
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", cores), **found}
