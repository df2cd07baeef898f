"""A store as one reads it: maps that load when they are asked for, and a table of the images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files
from ..report import _scores as scores
from . import _clusters, _compared, _content, _export, _layout, _needs, _plan, _status
from ._arrays import Maps
from ._clusters import Clusters
from ._columns import Columns


class Store:
    """The results of a data set so far.

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
        """Return the progress."""
        return _status.of_plan(self.path, self.plan)

    def table(self) -> Any:
        """Return a row per image of the finished shards, a `pyarrow.Table`; `.to_pandas()` makes it a frame.

        Columns: index, path, sha256, label, label_index, top and top_probability (the five most probable
        classes), target and score (what was explained, and its logit), error (None where all is well),
        `scale:METHOD`, which `maps` multiplies by, and `METRIC:METHOD`, a number for each target.
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
            method: The method; None takes the plan's first.
            by: "label" (what the data set says) or "target" (the first class that was explained).

        Raises:
            ValueError: If there is no such method, or no labels.
        """
        maps, columns = self.maps[self._method(method)], Columns(self.table())
        groups = self.groups(columns, by)
        if not groups:
            raise ValueError('the images have no labels; `by="target"` groups by what was explained')
        return {name: self.mean_of(maps.name, columns.index[groups[name]]) for name in sorted(groups)}

    def mean_of(self, method: str, images: Any) -> np.ndarray:
        """Return the mean of the maps of some images, as `mean_maps` does.

        Args:
            method: Its name.
            images: Numbers, [n].
        """
        maps, numbers = self.maps[self._method(method)], np.asarray(images)
        total, count = np.zeros(maps.shape[1:], np.float64), 0
        for at in range(0, len(numbers), self.plan.shard_size):
            found = maps[numbers[at : at + self.plan.shard_size]]
            found = found[np.isfinite(found).all(tuple(range(1, found.ndim)))]
            size = np.abs(found).sum((-2, -1), keepdims=True)
            total += np.divide(found, size, out=np.zeros_like(found), where=size > 0).sum(0)
            count += len(found)
        return (total / count if count else np.full_like(total, np.nan)).astype(np.float32)

    def uncertain(self, count: int = 20) -> list[dict[str, Any]]:
        """Return the rows with the smallest distance between the two most probable classes."""
        columns = Columns(self.table())
        return columns.rows(np.argsort(columns.margin, kind="stable")[:count] if len(columns) else [])

    def wrong(self, count: int = 20) -> list[dict[str, Any]]:
        """Return the rows whose most probable class is not the label, the surest first.

        Raises:
            ValueError: If the plan does not say which classes the labels are (`targets="label"` or "both").
        """
        if self.plan.classes is None:
            raise ValueError('the plan has no classes of labels; make it with `targets="label"` or "both"')
        columns = Columns(self.table())
        if not len(columns):
            return []
        places = np.flatnonzero(columns.top[:, 0] != columns.label_index)
        order = np.argsort(-columns.probability[places, 0], kind="stable")
        return columns.rows(places[order[:count]])

    def worst(self, metric: str, method: str | None = None, count: int = 20) -> list[dict[str, Any]]:
        """Return the rows whose maps a metric rates lowest, for the first target.

        Args:
            metric: One of the plan's `metrics`.
            method: The method; None takes the plan's first.
            count: At most this many.

        Raises:
            ValueError: If the plan has no such metric or method.
        """
        known = [name for name, _ in self.plan.metrics]
        if metric not in known:
            raise ValueError(f"the plan has the metrics {', '.join(known) or '(none)'}; got {metric!r}")
        columns = Columns(self.table())
        if not len(columns):
            return []
        values = columns.lists(f"{metric}:{self._method(method)}")[:, 0].astype(np.float64)
        sign = 1 if scores.METRICS[metric].better == "higher" else -1
        order = np.argsort(sign * values, kind="stable")
        return columns.rows(order[np.isfinite(values[order])][:count])

    def clusters(
        self,
        method: str | None = None,
        *,
        of: str | None = None,
        by: str = "target",
        images: Any = None,
        num_clusters: int | None = None,
        neighbors: int = 10,
        seed: int = 0,
    ) -> Clusters:
        """Return clusters of maps (SpRAy): groups of images in which the network looks at the same place.

        A small cluster that stands apart may be a Clever Hans: images that share a watermark, a border, a
        background, and are classified for that reason.

        Args:
            method: The method; None takes the plan's first. The maps of the first targets are used.
            of: A class, whose images are clustered; None takes all images.
            by: What `of` is: "target" (the class that was explained) or "label" (what the data set says).
            images: Numbers of the images to cluster, instead.
            num_clusters: Number of clusters; None chooses the widest gap between eigenvalues, at most 10.
            neighbors: Nearest neighbours of each map in the graph.
            seed: Seed of k-means.

        Raises:
            ValueError: If there is no such method or class, or if it has fewer than four maps.
            ImportError: If scikit-learn is not installed (extra `clusters`).

        References:
            Lapuschkin, Wäldchen, Binder, Montavon, Samek, Müller: Unmasking Clever Hans predictors and
            assessing what machines really learn. Nature Communications 2019, arXiv 1902.10178.
            von Luxburg: A Tutorial on Spectral Clustering. Statistics and Computing 2007, arXiv 0711.0189.
        """
        maps, columns = self.maps[self._method(method)], Columns(self.table())
        places = np.arange(len(columns))
        if images is not None:
            places = np.flatnonzero(np.isin(columns.index, np.asarray(images)))
        elif of is not None:
            groups = self.groups(columns, by)
            if of not in groups:
                raise ValueError(f"no image of the class {_files.shown(of)} is explained (by {by})")
            places = groups[of]
        numbers = columns.index[places]
        size = self.plan.shard_size
        parts = [_compared.first(maps[numbers[at : at + size]]) for at in range(0, len(numbers), size)]
        found = np.concatenate(parts) if parts else np.zeros((0, 1, 1), np.float32)
        options: Any = {"num_clusters": num_clusters, "neighbors": neighbors, "seed": seed}
        return _clusters.of_maps(numbers, found, **options)

    def name_of(self, index: int) -> str:
        """Return the name of a class."""
        return self.plan.names[index]

    def explain_again(
        self, index: int, *, net: Any = None, root: str | os.PathLike[str] | None = None, **options: Any
    ) -> Any:
        """Explain an image again at full resolution, with the same classes.

        Args:
            index: Its number.
            net: The network, if the plan was made for a model without a name.
            root: The folder of the images, if they have moved.
            options: Further arguments of `jaxai.explain`, such as `methods`.

        Raises:
            IndexError: If there is no such image.
            ValueError: If it could not be explained, or has changed since it was planned.
            OSError: If it cannot be read.
        """
        # The only place below `jaxai.explain` that calls it.
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
        return explain(known, _content.given(plan, index), **given)

    def to_webdataset(
        self,
        folder: str | os.PathLike[str],
        *,
        methods: Sequence[str] | None = None,
        images: bool = True,
        root: str | os.PathLike[str] | None = None,
    ) -> list[Path]:
        """Write the finished shards as tars that WebDataset reads, one for each.

        A sample holds the image as it is on disk, `.cls` (the class of its label, where the plan knows it),
        `.json` (its row) and `.METHOD.npy` (its map, float32).

        Args:
            folder: To write to.
            methods: Methods to write; None writes all.
            images: Whether to write the images too.
            root: The folder of the images, if they have moved.

        Returns:
            The paths of the tars.

        Raises:
            ValueError: If there is no such method.
            OSError: If an image cannot be read, or nothing can be written.
        """
        return _export.to_webdataset(self, folder, methods=methods, images=images, root=root)

    def rows_of(self, shard: int) -> list[dict[str, Any]]:
        """Return the rows of a finished shard."""
        return _needs.parquet().read_table(self.path / _layout.rows_file(shard)).to_pylist()

    def verify(self, *, repair: bool = False) -> list[int]:
        """Return the shards whose files are not those that were written.

        Args:
            repair: Mark them as not done, so that `run` explains them again.
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

    def groups(self, columns: Columns, by: str) -> dict[str, np.ndarray]:
        """Return the rows of each class that occurs."""
        if by not in ("label", "target"):
            raise ValueError(f'`by` must be "label" or "target"; got {by!r}')
        if by == "label":
            names = columns.labels()
        else:
            names = [self.name_of(int(index)) for index in columns.target[:, 0]]
        groups: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            if name is not None:
                groups.setdefault(name, []).append(place)
        return {name: np.array(places) for name, places in groups.items()}

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
        FileNotFoundError: If the folder is not a store.
        ValueError: If the plan is damaged.

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
