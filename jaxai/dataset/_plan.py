"""The plan for a data set: its images, network and methods, in a file with a hash."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import _files
from .._frame import checks
from ..report import _classes as classes
from ..report import _methods as methods_
from ..report import _names as names
from ..report import _networks as networks
from ..report import _photos as photos_
from ..report import _session as session
from . import _content, _layout, _maps, _metrics, _probe, _sources

FORMAT = 2
_SIDE = 224


@dataclass(frozen=True)
class Plan:
    """The plan for a data set. The same images, network and options give the same plan.

    Attributes:
        root: The folder that the images' paths start from; not part of the hash, so that data may move.
        paths: Of the images, relative to `root`.
        sizes: Of the files in bytes.
        digests: Their SHA-256; empty texts where they were not asked for.
        tars: Archives that hold the images, relative to `root`; empty if they are files.
        places: Of each image, the number of its tar and where its bytes begin there.
        labels: The data set's label of each image; None where it has none.
        classes: The index of each label among the network's classes; None if labels are not explained.
        model: Name of the network.
        weights: SHA-256 of its weights.
        probe: Its scores of two fixed photos, which tell programs of the same weights apart; not part of the
            hash, since devices differ in their last digits.
        around: What was said of a network that does not bring its own: `normalize`, `input_size`, and whether
            `labels` were given.
        names: Of the network's classes.
        methods: Names and the options that were set.
        maps: By method, the shape of the maps of one image and their type.
        targets: "top", "top3" ..., "label", or "both" (the top class and the label).
        layer: The layer, for methods that look at one.
        segments: How superpixels are made.
        seed: Seed of all random draws.
        batch_size: Images that are explained at a time.
        shard_size: Images of a shard, the unit of work.
        fit: How photos are brought to the network's square.
        metrics: Names of metrics that score the maps, and their options.
        thumbnails: Side of the small pictures of the images; 0 for none.
        jaxai: The version that made the plan.
        format: Of this file and the store.
    """

    root: str
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    digests: tuple[str, ...]
    tars: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    labels: tuple[str | None, ...]
    classes: dict[str, int] | None
    model: str
    weights: str
    probe: _probe.Scores
    around: dict[str, Any]
    names: tuple[str, ...]
    methods: tuple[tuple[str, dict[str, Any]], ...]
    maps: dict[str, tuple[tuple[int, ...], str]]
    targets: str
    layer: str | None
    segments: str
    seed: int
    batch_size: int
    shard_size: int
    fit: str
    metrics: _metrics.Chosen
    thumbnails: int
    jaxai: str
    format: int = field(default=FORMAT)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        what = ", ".join(name for name, _ in self.methods)
        return f"Plan({len(self)} images, {self.num_shards} shards, {self.model}: {what})"

    @property
    def num_shards(self) -> int:
        """The number of shards."""
        return -(-len(self) // self.shard_size)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything but the place of the images and what devices find differently."""
        left_out = ("root", "probe")
        content = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out}
        return _layout.digest(_layout.compact(content).encode())

    def images_of(self, shard: int) -> range:
        """Return the numbers of the images of a shard."""
        return range(shard * self.shard_size, min(len(self), (shard + 1) * self.shard_size))

    def text(self) -> str:
        """Return the plan as its file holds it."""
        return _layout.compact({**asdict(self), "hash": self.hash})

    @classmethod
    def read(cls, store: Path) -> "Plan":
        """Read the plan of a store.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged, or was written by a version that this one cannot read.
        """
        path = _layout.plan_file(store)
        if not path.is_file():
            raise FileNotFoundError(f"{_files.shown(store, 200)} is not a store: it has no plan.json")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            written = content.pop("hash")
            known = content["format"] == FORMAT
            if known:
                listed = ("paths", "sizes", "digests", "tars", "labels", "names")
                tuples = {name: tuple(content[name]) for name in listed}
                for several in ("methods", "metrics"):
                    tuples[several] = tuple((name, dict(given)) for name, given in content[several])
                tuples["places"] = tuple((tar, offset) for tar, offset in content["places"])
                tuples["probe"] = tuple(tuple(row) for row in content["probe"])
                maps = {name: (tuple(shape), dtype) for name, (shape, dtype) in content["maps"].items()}
                found = cls(**{**content, **tuples, "maps": maps})
                intact = found.hash == written
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{_files.shown(path, 200)} is damaged: it is not a plan") from error
        if not known:
            raise ValueError(
                f"{_files.shown(path, 200)} has format {content['format']}; this version reads {FORMAT}"
            )
        if not intact:
            raise ValueError(f"{_files.shown(path, 200)} is damaged: its hash does not fit")
        return found


def plan(
    net: Any,
    images: Any,
    store: str | os.PathLike[str],
    *,
    methods: Any = ("grad_cam",),
    targets: str = "top",
    layer: str | None = None,
    segments: str = "slic",
    labels: Any = None,
    normalize: Any = None,
    input_size: int | None = None,
    label_order: Sequence[str] | str = "names",
    digests: bool = True,
    seed: int = 0,
    batch_size: int = 32,
    shard_size: int = 256,
    fit: str = "crop",
    metrics: Any = (),
    thumbnails: int = 64,
) -> Plan:
    """Plan the explanation of a data set: list the images and write an empty store.

    Args:
        net: The network, as for `jaxai.explain`. A model without a name must be passed to `run` again.
        images: A folder tree (`class/photo.jpg`, `split/class/photo.jpg` or flat; with `metadata.csv`, as
            Hugging Face has it); a table .csv, .jsonl or .parquet with the columns `path` and, if wanted,
            `label`; tars as WebDataset has them (one, `train-{000..009}.tar`, or a folder of tars; labels are
            in `.cls` or `.json`); a mapping from paths to labels; or paths.
        store: A folder to write to; it must be new, empty, or hold this same plan.
        methods: As for `jaxai.explain`.
        targets: "top" (the most probable class of each image), "top2" ..., "label" (the class that the data
            set says) or "both" (the most probable class, then the label).
        layer: The layer, for methods that look at one; None takes the network's last layer with positions.
        segments: How superpixels are made.
        labels: Names of the classes, as for `jaxai.explain`.
        normalize: As for `jaxai.explain`, but not a function, except that of a `Pretrained`.
        input_size: As for `jaxai.explain`.
        label_order: How the data set's labels become classes: "names" (a label is a class's name or index),
            "sorted" (the labels in sorted order are the classes 0, 1, ... as torchvision's ImageFolder and
            ImageNet's folders have it), or the labels in the order of the classes.
        digests: Record the SHA-256 of every file, so that changed images are found; reads all of them once.
        seed: Seed of all random draws: image i gets the same numbers whichever worker explains it.
        batch_size: Images explained at a time. Part of the plan: the numbers of a random method, and the last
            bits of all, depend on it.
        shard_size: Images per shard, the unit of work; a multiple of `batch_size`.
        fit: "crop", "pad" or "squash".
        metrics: Metrics of `jaxai.metrics` that score every map, as columns: names with commas between, a
            sequence of names, or a mapping from names to options.
        thumbnails: Side in pixels of the small pictures that `page` shows; 0 makes none.

    Returns:
        The plan; it is written to `store/plan.json`.

    Raises:
        ValueError: If a name is unknown, labels fit no class, or the store holds another plan.
        TypeError: If an argument is of the wrong kind.
        FileNotFoundError: If an image does not exist.
        OSError: If a file cannot be read or written.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxai
        >>> from skimage import data, io
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> io.imsave(folder / "coffee.png", data.coffee()[::8, ::8])
        >>> colours = lambda x: x.mean((1, 2))
        >>> jaxai.dataset.plan(colours, folder, folder / "store", methods="saliency", input_size=16)
        Plan(1 images, 1 shards, <lambda>: saliency)
    """
    from .. import __version__

    chosen = _chosen(methods)
    _check_written(
        normalize,
        "`normalize` must be a name or numbers to be part of a plan; a function can be in a Pretrained",
    )
    checks.choice(segments, "segments", methods_.SEGMENTATIONS)
    found = _sources.listed(images)
    side = input_size if _brings_size(net) or input_size else _SIDE
    known = networks.with_classes(network(net, labels=labels, normalize=normalize, input_size=side))
    said = {"labels": labels is not None or None, "normalize": normalize, "input_size": side}
    around = {name: value for name, value in said.items() if value is not None}
    checks.choice(fit, "fit", photos_.FITS)
    count = _targets(targets, known)
    wanted = _indices(found.labels, known.labels, label_order) if targets in ("label", "both") else None
    size = checks.at_least(batch_size, "batch_size", 1)
    per_shard = checks.at_least(shard_size, "shard_size", 1)
    if per_shard % size:
        raise ValueError(f"`shard_size` must be a multiple of `batch_size`; got {per_shard} and {size}")
    layer = session.layer(known, layer) if layer else None
    rated = _metrics.pick(metrics)
    for metric, given in rated:
        for name, value in given.items():
            expected = "a number, a text or a list of those to be part of a plan"
            _check_written(value, f"{metric}: `{name}` must be {expected}")
    _metrics.check(rated, known)
    sizes = found.sizes or [os.stat(found.root / path).st_size for path in found.paths]
    made = Plan(
        root=str(found.root),
        paths=tuple(found.paths),
        sizes=tuple(sizes),
        digests=("",) * len(sizes),
        tars=tuple(found.tars),
        places=tuple(found.places),
        labels=tuple(found.labels),
        classes=wanted,
        model=known.name,
        weights=known.digest,
        probe=_probe.scores(known, fit=fit, batch_size=size),
        around=around,
        names=tuple(known.labels),
        methods=tuple((one.name, one.options) for one in chosen),
        maps={one.name: _maps.shape_of(one, known, layer, count, size) for one in chosen},
        targets=targets,
        layer=layer,
        segments=segments,
        seed=checks.at_least(seed, "seed", 0),
        batch_size=size,
        shard_size=per_shard,
        fit=fit,
        metrics=rated,
        thumbnails=min(checks.at_least(thumbnails, "thumbnails", 0), known.input_size),
        jaxai=__version__,
    )
    if digests:
        read = (_content.read(made, number) for number in range(len(made)))
        made = replace(made, digests=tuple(map(_layout.digest, read)))
    _write(made, Path(store), known.model)
    return made


def network(net: Any, **around: Any) -> Any:
    """Return a network with what surrounds it, from a name, a `Pretrained` or a model."""
    return networks.given(net, networks.Around(**around))[0]


def _brings_size(net: Any) -> bool:
    return isinstance(net, str) or hasattr(net, "crop")


def _chosen(given: Any) -> list[methods_.Chosen]:
    chosen = methods_.pick(given)
    for one in chosen:
        for name, value in one.options.items():
            expected = "a number, a text or a list of those to be part of a plan"
            _check_written(value, f"{one.name}: `{name}` must be {expected}")
    return chosen


def _check_written(value: Any, message: str) -> None:
    try:
        _layout.compact(value)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error


def _targets(targets: str, net: Any) -> int:
    """Return how many classes are explained per image."""
    if targets in ("label", "both"):
        return 1 if targets == "label" else 2
    if not isinstance(targets, str) or not targets.startswith("top"):
        raise ValueError(f'`targets` must be "top", "top2" ..., "label" or "both"; got {targets!r}')
    return classes.parse(targets, net.labels, shown="`targets`").top or 1


def _indices(
    labels: Sequence[str | None], known: Sequence[str], order: Sequence[str] | str
) -> dict[str, int]:
    """Return the class of each label that occurs."""
    seen = sorted({label for label in labels if label is not None})
    if not seen:
        raise ValueError("`targets` asks for labels; the images have none (folders, or a column `label`)")
    if order == "names":
        return {label: classes.parse([label], known, shown="the label").indices[0] for label in seen}
    listed = seen if order == "sorted" else list(order)
    if isinstance(order, str) and order != "sorted":
        raise ValueError(f'`label_order` must be "names", "sorted" or the labels in order; got {order!r}')
    if len(listed) != len(known):
        raise ValueError(f"`label_order`: {len(listed)} labels for the network's {len(known)} classes")
    places = {label: index for index, label in enumerate(listed)}
    if missing := [label for label in seen if label not in places]:
        raise ValueError(f"`label_order` lacks the label {names.shortened(missing[0])!r}")
    return {label: places[label] for label in seen}


def _write(made: Plan, store: Path, model: Any) -> None:
    path = _layout.plan_file(store)
    if path.exists():
        there = Plan.read(store)
        if there.hash != made.hash or _probe.apart(model, there.probe, made.probe):
            raise ValueError(f"{_files.shown(store, 200)} holds another plan; choose another folder")
    elif store.is_dir() and any(not entry.name.startswith(".") for entry in store.iterdir()):
        raise ValueError(f"{_files.shown(store, 200)} is not empty and holds no plan; choose another folder")
    count = len(made)
    for name, (shape, dtype) in made.maps.items():
        content = _layout.metadata(count, shape, dtype, made.shard_size)
        _files.write(store / "maps" / name / "zarr.json", [content])
    # Written last, so that a store with a plan is complete.
    _files.write(path, [made.text().encode()])


def moved(made: Plan, root: str | os.PathLike[str] | None) -> Plan:
    """Return a plan whose images lie in another folder."""
    return made if root is None else replace(made, root=os.fspath(Path(root).absolute()))


def check_network(made: Plan, net: Any, batch_size: int) -> None:
    """Check that a network is the one of a plan.

    Args:
        made: The plan.
        net: The network, `Pretrained`.
        batch_size: Images at a time.

    Raises:
        ValueError: If its weights, its classes or what it computes are others.
    """
    if net.digest != made.weights:
        raise ValueError(f"the plan is for other weights of {made.model} ({made.weights[:12]}...)")
    if net.labels is not None and tuple(net.labels) != made.names:
        raise ValueError(f"the plan is for other classes of {made.model}")
    if _probe.apart(net.model, made.probe, _probe.scores(net, fit=made.fit, batch_size=batch_size)):
        raise ValueError(f"the plan is for another program: {made.model} with these weights had other scores")


def key_of(made: Plan, first: int) -> jax.Array:
    """Return the randomness of the batch that starts with an image."""
    return jax.random.fold_in(jax.random.key(made.seed), np.uint32(first))
