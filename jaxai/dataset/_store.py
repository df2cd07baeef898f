"""A store as one reads it: maps that load when they are asked for, and a table of the images."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files
from . import _content, _layout, _needs, _plan, _status


class Maps:
    """The maps of a method, [images, (k,) height, width]; read from disk where they are indexed.

    What is not explained yet, or could not be, is NaN.

    Attributes:
        shape: Of all maps.
    """

    def __init__(self, store: Path, name: str, scales: np.ndarray):
        self._array = _layout.opened(store / "maps" / name)
        self._scales = scales
        self.name = name
        self.shape = tuple(self._array.shape)

    def __repr__(self) -> str:
        return f"Maps({self.name}, {list(self.shape)}, {self._array.dtype.name})"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return maps, float32: the first index is of images, the others are of their maps.

        Raises:
            ValueError: If the file of one is damaged.
        """
        first, *rest = index if isinstance(index, tuple) else (index,)
        if first is None or first is ... and rest:
            raise IndexError("the first index is of images: a number, a slice, numbers or a mask")
        numbers = np.arange(len(self))[first]
        # TensorStore reads the chunks that are asked for, and no others.
        try:
            values = self._array[numbers].read().result().astype(np.float32)
        except ValueError as error:
            raise ValueError(f"maps of {self.name} are damaged; `Store.verify` says which") from error
        scales = self._scales[numbers]
        values = values * scales.reshape(*np.shape(scales), *[1] * (values.ndim - np.ndim(scales)))
        return values[(slice(None),) * np.ndim(numbers) + tuple(rest)] if rest else values


class Store:
    """What is known of a data set so far.

    Attributes:
        path: The folder.
        plan: What was planned.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.plan = _plan.Plan.read(self.path)
        self._read: tuple[tuple[int, ...], Any] | None = None
        self._maps: dict[str, Maps] | None = None

    def __len__(self) -> int:
        return len(self.plan)

    def __repr__(self) -> str:
        done = len(self.status().done)
        maps = ", ".join(name for name, _ in self.plan.methods)
        return f"Store({len(self)} images, {done} of {self.plan.num_shards} shards: {maps})"

    def status(self) -> _status.Status:
        """Return how far it is."""
        return _status.of_plan(self.path, self.plan)

    def table(self) -> Any:
        """Return a row per image of the finished shards, a `pyarrow.Table`; `.to_pandas()` makes it a frame.

        Columns: index, path, sha256, label, label_index, top and top_probability (the five most probable
        classes), target and score (what was explained, and its logit), error (None where all is well), and
        `scale:METHOD`, which `maps` multiplies by.
        """
        done = self.status().done
        if self._read is None or self._read[0] != done:
            pa, parquet = _needs.arrow(), _needs.parquet()
            parts = [parquet.read_table(self.path / _layout.rows_file(shard)) for shard in done]
            self._read = done, pa.concat_tables(parts) if parts else pa.table({})
            self._maps = None
        return self._read[1]

    @property
    def maps(self) -> dict[str, Maps]:
        """The maps by method."""
        table = self.table()
        if self._maps is None:
            self._maps = {}
            for name, _ in self.plan.methods:
                scales = np.full(len(self), np.nan, np.float32)
                if len(table):
                    column = table[f"scale:{name}"].to_numpy(zero_copy_only=False).astype(np.float32)
                    scales[table["index"].to_numpy()] = column
                self._maps[name] = Maps(self.path, name, scales)
        return dict(self._maps)

    def mean_maps(self, method: str | None = None, *, by: str = "label") -> dict[str, np.ndarray]:
        """Return the mean map of each class, of maps that were divided by their sums of magnitudes.

        Maps with values that are not finite are left out; where no other is left, the mean is NaN.

        Args:
            method: Its name; None is the first of the plan.
            by: "label" (what the data set says) or "target" (the first class that was explained).

        Raises:
            ValueError: If there is no such method, or no labels.
        """
        maps = self.maps[self._method(method)]
        if by not in ("label", "target"):
            raise ValueError(f'`by` must be "label" or "target"; got {by!r}')
        groups: dict[str, list[int]] = {}
        for row in self._explained():
            name = row["label"] if by == "label" else self.name_of(row["target"][0])
            if name is not None:
                groups.setdefault(name, []).append(row["index"])
        if not groups:
            raise ValueError('the images have no labels; `by="target"` groups by what was explained')
        means = {}
        for name, numbers in sorted(groups.items()):
            total, count = np.zeros(maps.shape[1:], np.float64), 0
            for at in range(0, len(numbers), self.plan.shard_size):
                found = maps[numbers[at : at + self.plan.shard_size]]
                found = found[np.isfinite(found).all(tuple(range(1, found.ndim)))]
                size = np.abs(found).sum((-2, -1), keepdims=True)
                total += np.divide(found, size, out=np.zeros_like(found), where=size > 0).sum(0)
                count += len(found)
            means[name] = (total / count if count else np.full_like(total, np.nan)).astype(np.float32)
        return means

    def uncertain(self, count: int = 20) -> list[dict[str, Any]]:
        """Return the rows with the smallest distance between the two most probable classes."""

        def gap(row):
            return row["top_probability"][0] - sum(row["top_probability"][1:2])

        return sorted(self._explained(), key=gap)[:count]

    def wrong(self, count: int = 20) -> list[dict[str, Any]]:
        """Return the rows whose most probable class is not the label, the surest first.

        Raises:
            ValueError: If the plan does not say which classes the labels are (`targets="label"` or "both").
        """
        if self.plan.classes is None:
            raise ValueError('the plan has no classes of labels; make it with `targets="label"` or "both"')
        rows = [row for row in self._explained() if row["top"][0] != row["label_index"]]
        return sorted(rows, key=lambda row: -row["top_probability"][0])[:count]

    def name_of(self, index: int) -> str:
        """Return the name of a class."""
        return self.plan.names[index]

    def explain_again(
        self, index: int, *, net: Any = None, root: str | os.PathLike[str] | None = None, **options: Any
    ) -> Any:
        """Explain an image again at full resolution, with the same classes.

        Args:
            index: Its number.
            net: The network, where the plan was made for one that is no name.
            root: The folder of the images, if they have moved.
            options: Further arguments of `jaxai.explain`, such as `methods`.

        Raises:
            IndexError: If there is no such image.
            ValueError: If it could not be explained, or has changed since it was planned.
            OSError: If it cannot be read.
        """
        # The one place where what is below the call for people uses it.
        from .._explain import explain
        from ._run import network_of

        if not 0 <= index < len(self):
            raise IndexError(f"images are numbered from 0 to {len(self) - 1}; got {index}")
        rows = self._rows_of(index)
        if not rows or rows[0]["error"] is not None:
            why = rows[0]["error"] if rows else "its shard is not done"
            raise ValueError(f"image {index} ({_files.shown(self.plan.paths[index], 200)}): {why}")
        plan = _plan.moved(self.plan, root)
        if _layout.digest(_content.read(plan, index)) != rows[0]["sha256"]:
            raise ValueError(
                f"image {index} ({_files.shown(plan.paths[index], 200)}) has changed since it was explained"
            )
        known = network_of(plan, net, batch_size=1)
        given = {
            "methods": dict(self.plan.methods),
            "targets": list(dict.fromkeys(rows[0]["target"])),
            "layer": self.plan.layer,
            "segments": self.plan.segments,
            "seed": self.plan.seed,
            "fit": self.plan.fit,
            **options,
        }
        return explain(known, str(Path(plan.root, plan.paths[index])), **given)

    def verify(self, *, repair: bool = False) -> list[int]:
        """Return the shards whose files are not those that were written.

        Args:
            repair: Take them for not done, so that `run` explains them again.
        """
        bad = []
        for shard in range(self.plan.num_shards):
            path = _layout.done_file(self.path, shard)
            if not path.exists():
                continue
            found = _status.record(self.path, self.plan, shard)
            if found is None or not _status.intact(self.path, found):
                bad.append(shard)
                if repair:
                    path.unlink(missing_ok=True)
        return bad

    def _explained(self) -> list[dict[str, Any]]:
        """Return the rows without an error."""
        return [row for row in self.table().to_pylist() if row["error"] is None]

    def _rows_of(self, index: int) -> list[dict[str, Any]]:
        """Return the row of an image; none if its shard is not done."""
        table = self.table()
        places = np.flatnonzero(table["index"].to_numpy() == index) if len(table) else []
        return [row for place in places for row in table.slice(place, 1).to_pylist()]

    def _method(self, name: str | None) -> str:
        known = [method for method, _ in self.plan.methods]
        if name is not None and name not in known:
            raise ValueError(f"the store has maps of {', '.join(known)}; got {name!r}")
        return name or known[0]


def open(store: str | os.PathLike[str]) -> Store:
    """Open a store; one that is half written says what is missing.

    Args:
        store: The folder that `plan` wrote.

    Raises:
        FileNotFoundError: If it is no store.
        ValueError: If its plan is damaged.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxai
        >>> from skimage import data, io
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> io.imsave(folder / "coffee.png", data.coffee()[::8, ::8])
        >>> colours = lambda x: x.mean((1, 2))
        >>> plan = jaxai.dataset.plan(colours, folder, folder / "store", methods="saliency", input_size=16)
        >>> status = jaxai.dataset.run(folder / "store", net=colours)
        >>> store = jaxai.dataset.open(folder / "store")
        >>> store, store.maps["saliency"][0].shape
        (Store(1 images, 1 of 1 shards: saliency), (16, 16))
    """
    return Store(store)
