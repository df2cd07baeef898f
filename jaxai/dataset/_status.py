"""The progress of a data set."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _layout, _leases
from ._plan import Plan


@dataclass(frozen=True)
class Status:
    """The progress of a store.

    Attributes:
        images: Of the data set.
        shards: Units of work.
        done: Those that are finished, by number.
        running: Those that a living worker explains.
        failed: Images with an error in the finished shards.
        seconds: Of work in the finished shards, over all workers.
        waited: Of these, those in which the device waited for images.
        explained: Images of the finished shards.
    """

    images: int
    shards: int
    done: tuple[int, ...]
    running: tuple[int, ...]
    failed: int
    seconds: float
    waited: float
    explained: int

    @property
    def missing(self) -> tuple[int, ...]:
        """The shards that are not finished."""
        return tuple(sorted(set(range(self.shards)) - set(self.done)))

    def __str__(self) -> str:
        lines = [f"{self.explained} of {self.images} images in {len(self.done)} of {self.shards} shards"]
        lines += [f"{len(self.running)} shards are being explained"] if self.running else []
        lines += [f"{self.failed} images could not be explained (column `error`)"] if self.failed else []
        if self.seconds:
            rate, share = self.explained / self.seconds, self.waited / self.seconds
            lines.append(
                f"{rate:.1f} images per second and worker; {share:.0%} of the time waiting for images"
            )
        return "\n".join(lines)


def status(store: str | os.PathLike[str]) -> Status:
    """Return the progress of a store; other processes may be filling it.

    Raises:
        FileNotFoundError: If the folder is not a store.
        ValueError: If the plan is damaged.
    """
    return of_plan(Path(store), Plan.read(Path(store)))


def of_plan(folder: Path, plan: Plan) -> Status:
    """Return the progress of the store of a plan."""
    return Watch(folder, plan).status()


class Watch:
    """Looks at a store again and again: what is finished is read once.

    Args:
        store: The store.
        plan: Its plan.
    """

    def __init__(self, store: Path, plan: Plan):
        self._store, self._plan = store, plan
        self._records: dict[int, dict[str, Any]] = {}

    def status(self) -> Status:
        """Return the progress now."""
        plan = self._plan
        there = _numbers(_layout.done_folder(self._store))
        # Shards that are explained again are no longer done.
        self._records = {shard: found for shard, found in self._records.items() if shard in there}
        for shard in there - self._records.keys():
            if shard < plan.num_shards and (found := record(self._store, plan, shard)):
                self._records[shard] = found
        leased = _numbers(_layout.lease_file(self._store, 0).parent) - self._records.keys()
        running = [shard for shard in leased if shard < plan.num_shards and _leases.held(self._store, shard)]
        records = self._records.values()
        return Status(
            images=len(plan),
            shards=plan.num_shards,
            done=tuple(sorted(self._records)),
            running=tuple(sorted(running)),
            failed=sum(found["failed"] for found in records),
            seconds=sum(found["seconds"] for found in records),
            waited=sum(found["waited"] for found in records),
            explained=sum(len(plan.images_of(shard)) for shard in self._records),
        )


def _numbers(folder: Path) -> set[int]:
    """Return the shards that have a file in a folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {int(name[: -len(".json")]) for name in names if name[: -len(".json")].isdigit()}


def record(store: Path, plan: Plan, shard: int) -> dict[str, Any] | None:
    """Return what is known of a finished shard; None if it is not finished, or belongs to another plan."""
    try:
        found = json.loads(_layout.done_file(store, shard).read_text(encoding="utf-8"))
        if found["plan"] != plan.hash:
            return None
        sizes = all((store / name).stat().st_size == size for name, (size, _) in found["files"].items())
        return found if sizes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def intact(store: Path, found: dict[str, Any]) -> bool:
    """Return whether the files of a finished shard are those that were written."""
    try:
        return all(
            _layout.digest((store / name).read_bytes()) == digest
            for name, (_, digest) in found["files"].items()
        )
    except OSError:
        return False
