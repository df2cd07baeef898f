"""Explaining one shard: images are read ahead, processed in batches of one size, and written as files."""

import io
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .. import _files
from .._frame import model as _model
from ..report import _classes as classes
from ..report import _errors as messages
from ..report import _methods as methods
from ..report import _photos as photos_
from ..report import _session as session
from ..report._supplies import Run
from . import _content, _devices, _layout, _maps, _metrics, _needs, _thumbnails
from ._plan import Plan, key_of

_LISTED = 5
_AHEAD = 2  # batches


class Photo(NamedTuple):
    """An image that was read: pixels [size, size, 3] and its digest, or the error."""

    pixels: np.ndarray | None
    digest: str
    error: str | None
    missing: bool = False


@dataclass
class Times:
    """Seconds that a shard took and in which the device waited for images, and the images that failed."""

    seconds: float = 0.0
    waited: float = 0.0
    failed: int = 0


@dataclass(frozen=True)
class Explainer:
    """The state of a worker: the plan, the network, the methods, and threads that read ahead.

    Attributes:
        plan: The plan.
        net: The network, `Pretrained`.
        pool: Threads.
    """

    plan: Plan
    net: Any
    pool: ThreadPoolExecutor

    @cached_property
    def chosen(self) -> list[methods.Chosen]:
        """The methods with their options."""
        return methods.pick(self.plan.methods)

    def read(self, number: int) -> Photo:
        """Read an image; an error with it becomes text."""
        plan = self.plan
        # Read once: what is decoded is what was digested.
        try:
            content = _content.read(plan, number)
        except FileNotFoundError:
            return Photo(None, "", f"{plan.paths[number]}: no such file", missing=True)
        except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
            return Photo(None, "", f"{plan.paths[number]}: {(error.strerror or str(error)).lower()}")
        # Any other failure to read passes, such as that of a network file system: it stops the run.
        except ValueError as error:
            return Photo(None, "", f"{plan.paths[number]}: {error}")
        digest = _layout.digest(content)
        if (plan.digests[number] or digest) != digest or len(content) != plan.sizes[number]:
            return Photo(None, digest, "the image has changed since it was planned")
        try:
            photo = photos_.Photo("photo", "", _content.photo(self.net, content))
            return Photo(photo.crop(self.net, photos_.reading(None, None, None, plan.fit)), digest, None)
        except MemoryError:
            raise
        except Exception as error:
            return Photo(None, digest, messages.explain(error) or f"{type(error).__name__}: {error}")

    def batches(self, numbers: range, times: Times) -> Iterator[tuple[range, list[Photo]]]:
        """Yield the images of a shard, batch by batch; the next ones are being read meanwhile."""
        size = self.plan.batch_size
        parts = [numbers[at : at + size] for at in range(0, len(numbers), size)]
        ahead: deque[list[Future[Photo]]] = deque()
        for at, part in enumerate(parts):
            while len(ahead) <= _AHEAD and at + len(ahead) < len(parts):
                ahead.append([self.pool.submit(self.read, number) for number in parts[at + len(ahead)]])
            begin = time.perf_counter()
            read = [future.result() for future in ahead.popleft()]
            times.waited += time.perf_counter() - begin
            yield part, read

    def explain(self, shard: int, times: Times) -> dict[str, bytes]:
        """Return the files of a shard by their names within the store, and fill in the times.

        The content of files that must not be there is empty.
        """
        begin = time.perf_counter()
        found: dict[str, list[np.ndarray]] = {method.name: [] for method in self.chosen}
        rows: list[dict[str, Any]] = []
        tiles: list[np.ndarray | None] = []
        missing = 0
        for numbers, read in self.batches(self.plan.images_of(shard), times):
            missing += sum(photo.missing for photo in read)
            with session.exact():
                maps, told = self._batch(numbers, read)
            rows += told
            if side := self.plan.thumbnails:
                tiles += [None if one.pixels is None else _thumbnails.tile(one.pixels, side) for one in read]
            for name, values in maps.items():
                found[name].append(values)
        if missing == len(rows):
            root = _files.shown(self.plan.root, 200)
            raise FileNotFoundError(f"none of the images of shard {shard} is in {root}")
        files = {_layout.rows_file(shard): _written(rows)}
        if tiles:
            files[_layout.thumbnails_file(shard)] = _thumbnails.sheet(tiles, self.plan.thumbnails)
        for name, parts in found.items():
            dtype = self.plan.maps[name][1]
            whole = np.concatenate(parts)
            inner, content = _layout.encoded(whole, len(self.plan), dtype, self.plan.shard_size, shard)
            # Of maps that are all missing there is no file.
            files[f"maps/{name}/{inner}"] = content
        times.failed = sum(row["error"] is not None for row in rows)
        times.seconds = time.perf_counter() - begin
        return files

    def _batch(self, numbers: range, read: list[Photo]) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        plan, net, size = self.plan, self.net, self.plan.batch_size
        blank = np.zeros((net.input_size, net.input_size, 3), np.float32)
        pixels = np.stack([blank if photo.pixels is None else photo.pixels for photo in read])
        # The last batch is filled up, so that there is one program.
        pixels = _devices.spread(
            np.concatenate([pixels, np.zeros((size - len(read), *blank.shape), np.float32)])
        )
        images = net.normalize(pixels)
        logits = np.asarray(_model.call(_model.as_model(net.model), images), np.float32)
        normalized = classes.are_probabilities(net, images)
        errors = [self._error(n, photo, row) for n, photo, row in zip(numbers, read, logits, strict=False)]
        targets = self._targets(numbers, logits)
        segments = None
        if any(method.needs("segments") for method in self.chosen):
            segments = methods.superpixels(jnp.asarray(pixels), plan.segments)
        about = Run(
            net=net,
            images=images,
            targets=jnp.asarray(targets[:, 0]),
            key=key_of(plan, numbers[0]),
            layer=plan.layer,
            segments=None if segments is None else jnp.asarray(segments.labels),
            num_segments=None if segments is None else methods.padded(max(segments.counts)),
            batch_size=None,
        )
        found, columns = {}, {}
        broken = np.array([error is not None for error in errors])
        for method in self.chosen:
            maps = self._maps(method, about, targets)
            rated = _metrics.rate(plan.metrics, maps, net, images, targets, about.key)
            columns |= {f"{name}:{method.name}": values for name, values in rated.items()}
            maps = maps[: len(read)]
            if maps.shape[1:] != (planned := plan.maps[method.name][0]):
                size, expected = list(maps.shape[1:]), list(planned)
                raise ValueError(f"{method.name} has maps {size}; the plan has {expected}")
            maps[broken] = np.nan
            found[method.name], scale = _maps.scaled(maps, plan.maps[method.name][1])
            columns[f"scale:{method.name}"] = scale
        rows = [
            self._row(
                number, photo, error, logits[i], normalized, targets[i], {n: v[i] for n, v in columns.items()}
            )
            for i, (number, photo, error) in enumerate(zip(numbers, read, errors, strict=True))
        ]
        return found, rows

    def _maps(self, method: methods.Chosen, about: Run, targets: np.ndarray) -> np.ndarray:
        """Return the maps of a batch for classes [batch, k], float32 [batch, (k,) height, width]."""
        if self.plan.targets == "both":
            # The label may be the most probable class; methods take k different ones.
            both = [_maps.maps_of(method, replace(about, targets=jnp.asarray(t))) for t in targets.T]
            return np.stack(both, axis=1).astype(np.float32)
        if targets.shape[1] > 1:
            about = replace(about, targets=jnp.asarray(targets))
        return np.array(_maps.maps_of(method, about), np.float32)

    def _error(self, number: int, photo: Photo, logits: np.ndarray) -> str | None:
        if photo.error is not None:
            return photo.error
        if not np.isfinite(logits).all():
            return f"{self.net.name} returns scores that are not finite"
        if self.plan.classes is not None and self.plan.labels[number] is None:
            return "the image has no label"
        return None

    def _targets(self, numbers: range, logits: np.ndarray) -> np.ndarray:
        """Return the classes that are explained, int32 [batch, k]."""
        wanted = self.plan.targets
        top = classes.parse(wanted if self.plan.classes is None else "top", self.plan.names)
        best = top.of(np.nan_to_num(logits))
        if self.plan.classes is None:
            return best
        told = np.zeros((len(logits), 1), np.int32)
        for place, number in enumerate(numbers):
            told[place] = self.plan.classes.get(self.plan.labels[number] or "", 0)
        return told if wanted == "label" else np.concatenate([best, told], axis=1)

    def _row(
        self, number, photo: Photo, error: str | None, logits, normalized, targets, columns
    ) -> dict[str, Any]:
        plan = self.plan
        label = plan.labels[number]
        fine = error is None
        best = classes.Wanted(_LISTED).of(logits[None])[0] if fine else []
        odds = classes.probabilities(logits[None], normalized=normalized)[0] if fine else []
        return {
            "index": number,
            "path": plan.paths[number],
            "sha256": photo.digest,
            "label": label,
            "label_index": None if plan.classes is None or label is None else plan.classes[label],
            "top": [int(c) for c in best],
            "top_probability": [float(odds[c]) for c in best],
            "target": [int(c) for c in targets] if fine else [],
            "score": [float(logits[c]) for c in targets] if fine else [],
            "error": error,
            **{name: _plain(value) if fine else None for name, value in columns.items()},
        }


def _plain(value: np.ndarray | np.generic) -> Any:
    """Return a number, or numbers of which those that are not finite are missing."""
    return [one if np.isfinite(one) else None for one in value.tolist()] if value.ndim else float(value)


def _written(rows: list[dict[str, Any]]) -> bytes:
    pa = _needs.arrow()
    types = {
        "index": pa.int64(),
        "label_index": pa.int32(),
        "top": pa.list_(pa.int32()),
        "top_probability": pa.list_(pa.float32()),
        "target": pa.list_(pa.int32()),
        "score": pa.list_(pa.float32()),
    }
    for name in rows[0]:
        if ":" in name:
            types[name] = pa.float32() if name.startswith("scale:") else pa.list_(pa.float32())
    kinds = {name: types.get(name, pa.string()) for name in rows[0]}
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items())))
    stream = io.BytesIO()
    _needs.parquet().write_table(table, stream, compression="zstd")
    return stream.getvalue()
