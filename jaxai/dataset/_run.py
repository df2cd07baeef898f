"""Workers, which take unfinished shards until none is left."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import _files
from .._frame import checks
from ..report import _networks as networks
from ..report._waiting import patiently
from . import _layout, _leases, _plan, _processes, _ray, _status
from ._shards import Explainer, Times
from ._status import Status

_PAUSE = 1.0  # seconds between two checks of other workers
THREADS = 4
_SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")


def run(
    store: str | os.PathLike[str],
    *,
    net: Any = None,
    root: str | os.PathLike[str] | None = None,
    engine: str = "local",
    workers: int | None = None,
    worker: tuple[int, int] | None = None,
    address: str | None = None,
    expiry: float = _leases.EXPIRY,
    told: Callable[[Status], None] | None = None,
) -> Status:
    """Explain what is missing in a store; start it again after a crash, or in many places at once.

    Finished shards are left alone if their files have their sizes and, in this worker's share of the shards,
    their checksums. An image that cannot be explained becomes a row with its error. After Ctrl-C the current
    shard is dropped; finished shards are kept.

    Args:
        store: The folder that `plan` wrote.
        net: The network, if the plan was made for a model without a name.
        root: The folder of the images, if they have moved.
        engine: "local", processes of this machine; "ray", actors of a Ray cluster (extra `ray`), which
            load the network once and are replaced when they die. All machines must see the store and the
            images under the same paths.
        workers: Processes on this machine, for CPUs; one process uses all accelerators that it sees. With 1
            or None, this process does it. Of Ray's actors, None is one for each GPU, or else each machine.
        worker: Number of this worker and of all workers, (0, 4), where something else starts them: it says
            where to begin looking, so that they meet seldom. Read from Slurm's variables in a job array.
        address: Address of a Ray cluster, "host:port", or "auto" for one on this machine; None takes that of
            the environment's `RAY_ADDRESS`, or else a new one on this machine.
        expiry: Seconds after which the shard of a worker that has died is taken over.
        told: Called with the progress about every second, and at the end.

    Returns:
        The progress of the store.

    Raises:
        FileNotFoundError: If the folder is not a store.
        ValueError: If the plan is damaged, or for another network; if arguments exclude each other.
        OSError: If nothing can be written, workers die again and again, or a cluster is gone; what is
            finished is kept.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxai
        >>> from skimage import data, io
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> io.imsave(folder / "coffee.png", data.coffee()[::8, ::8])
        >>> colours = lambda x: x.mean((1, 2))
        >>> plan = jaxai.dataset.plan(colours, folder, folder / "store", methods="saliency", input_size=16)
        >>> print(jaxai.dataset.run(folder / "store", net=colours).explained)
        1
    """
    folder = Path(store)
    plan = _plan.moved(_plan.Plan.read(folder), root)
    if not Path(plan.root).is_dir():
        raise FileNotFoundError(
            f"the images' folder {_files.shown(plan.root, 200)} is gone; `root` names another"
        )
    checks.choice(engine, "engine", ("local", "ray"))
    if address is not None and engine != "ray":
        raise ValueError('`address` is for `engine="ray"`')
    several = workers is not None and checks.at_least(workers, "workers", 1) > 1
    if several or engine == "ray":
        if worker is not None:
            raise ValueError(
                "`workers` and Ray start processes, `worker` is one that something else starts: give one"
            )
        if net is not None:
            raise ValueError(
                "`workers` and Ray need a network that has a name; start several processes with `worker`"
            )
        if engine == "ray":
            _ray.run(folder, plan, workers, expiry, address, told)
        else:
            _processes.run(folder, plan, workers or 1, expiry, told)
        return _status.of_plan(folder, plan)
    known = network_of(plan, net)
    for below in ("rows", "done", "thumbnails", *(f"maps/{name}/c" for name in plan.maps)):
        for inner, _, _ in os.walk(folder / below):
            _files.sweep(Path(inner))
    _leases.sweep(folder, expiry=expiry)
    with ThreadPoolExecutor(THREADS) as pool:
        _work(folder, Explainer(plan, known, pool), _place(worker), expiry, told)
    return _status.of_plan(folder, plan)


def network_of(plan: _plan.Plan, net: Any, *, batch_size: int | None = None) -> Any:
    """Return the network of a plan, `Pretrained`.

    Args:
        plan: The plan.
        net: The network, if it has no name.
        batch_size: Images at a time; None takes the plan's.

    Raises:
        ValueError: If it is needed and missing, or is another network.
    """
    from ..models.zoo import ZOO

    if net is None:
        if networks.is_named(plan.model) and plan.model not in ZOO:
            raise ValueError(
                f"the plan is for {_files.shown(plan.model)}, which has no name: give it as `net`"
            )
        net = plan.model
    around = {} if hasattr(net, "crop") else dict(plan.around)
    if around.pop("labels", False):
        around["labels"] = plan.names
    found = _plan.network(net, **around)
    _plan.check_network(plan, found, batch_size or plan.batch_size)
    return found


def _place(worker: tuple[int, int] | None) -> tuple[int, int]:
    if worker is None:
        number, first, count = (os.environ.get(name, "") for name in _SLURM)
        worker = (0, 1)
        if number.isdigit() and count.isdigit() and int(count):
            # Arrays may have gaps: 3,7 or 0-15:2.
            worker = (int(number) - int(first or 0)) % int(count), int(count)
    if len(worker) != 2 or not 0 <= worker[0] < worker[1]:
        raise ValueError(f"`worker` must be (number, count) with 0 <= number < count; got {worker}")
    return worker


def _work(folder: Path, explainer: Explainer, place: tuple[int, int], expiry: float, told) -> None:
    plan = explainer.plan
    count = plan.num_shards
    # One share of the shards is where this worker begins, and what it checks; others check the others.
    first, mine = place[0] * count // place[1], (place[0] + 1) * count // place[1]
    left = [shard % count for shard in range(first, first + count)]
    watch = _status.Watch(folder, plan)
    follow = None if told is None else lambda: told(watch.status())
    while left:
        waiting = []
        for shard in left:
            if is_done(folder, plan, shard, whole=first <= shard < mine):
                continue
            with _leases.lease(folder, shard, expiry=expiry) as held:
                if held:
                    explain(folder, explainer, shard, follow)
                else:
                    waiting.append(shard)
        left = waiting
        if left:
            time.sleep(_PAUSE)
        if follow is not None:
            follow()


def is_done(folder: Path, plan: _plan.Plan, shard: int, *, whole: bool) -> bool:
    """Return whether a shard is finished: its files have their sizes and, if `whole`, their checksums."""
    found = _status.record(folder, plan, shard)
    return found is not None and (not whole or _status.intact(folder, found))


def explain(folder: Path, explainer: Explainer, shard: int, tick: Callable[[], None] | None) -> None:
    """Explain a shard and write its files, that which says that it is done last.

    Args:
        folder: The store.
        explainer: What explains.
        shard: Its number.
        tick: Called about every second.
    """
    times = Times()
    last = time.monotonic()

    def pause() -> None:
        nonlocal last
        if tick is not None and time.monotonic() - last > _PAUSE:
            tick()
            last = time.monotonic()

    files = patiently(lambda: explainer.explain(shard, times), tick=pause)
    for name, content in files.items():
        if content:
            _files.write(folder / name, [content])
        else:
            (folder / name).unlink(missing_ok=True)
    files = {name: content for name, content in files.items() if content}
    done = {
        "plan": explainer.plan.hash,
        "files": {name: [len(content), _layout.digest(content)] for name, content in files.items()},
        "failed": times.failed,
        "seconds": round(times.seconds, 3),
        "waited": round(times.waited, 3),
    }
    _files.write(_layout.done_file(folder, shard), [_layout.compact(done).encode()])
