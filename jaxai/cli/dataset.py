"""`jaxai dataset`: planning, explaining by any number of workers, and viewing whole data sets."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..report import _methods as methods
from ..report import _scores as scores
from ..report._progress import moving, remaining
from . import arguments, session, terminal
from .arguments import DeviceOption, FitOption, SeedOption

dataset = typer.Typer(
    name="dataset", help="Explain whole data sets, in shards that any number of workers share."
)

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="The folder that `plan` wrote.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", metavar="FOLDER", help="Where the images lie now, if they moved.")
]
_EVERY = 10.0  # seconds between two lines of a log


@dataset.command()
def plan(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="A folder (class/photo.jpg or flat), tars, or a table .csv, .jsonl, .parquet.",
        ),
    ],
    store: Annotated[Path, typer.Option("--out", metavar="STORE", help="A new folder to write to.")],
    model: arguments.ModelOption = "efficientnet_lite0",
    method: Annotated[str, typer.Option(help="With commas between; see `jaxai methods`.")] = "grad_cam",
    targets: Annotated[
        str, typer.Option("--target", help="top, top3, label (what the data set says) or both.")
    ] = "top",
    label_order: Annotated[
        str,
        typer.Option(help="What labels are: names of the network's classes, or its classes when sorted."),
    ] = "names",
    layer: arguments.LayerOption = None,
    segments: arguments.SegmentsOption = methods.SEGMENTATIONS[0],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="METHOD.NAME=VALUE", help="An option of a method or metric; repeatable."
        ),
    ] = None,
    labels: arguments.LabelsOption = None,
    normalize: arguments.NormalizeOption = None,
    input_size: arguments.InputSizeOption = None,
    digests: Annotated[bool, typer.Option(help="Note every file's SHA-256: reads all files once.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images explained at a time.")] = 32,
    shard_size: Annotated[int, typer.Option(min=1, help="Images per shard, a multiple of that.")] = 256,
    fit: FitOption = "crop",
    metric: Annotated[
        str, typer.Option(help="Metrics that score the maps, with commas between; see `jaxai.metrics`.")
    ] = "",
    thumbnails: Annotated[
        int, typer.Option(min=0, help="Side of the small pictures for `page`; 0 for none.")
    ] = 64,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
) -> None:
    """Write what is to be done into a new store."""
    from .. import dataset as library

    rated, left = scores.choose(metric, option or []) if metric else ({}, option or [])
    chosen = {one.name: one.options for one in methods.choose(method, left)}
    methods.check_segmentation(segments)
    session.start(device, "float32")
    with moving("planning"):
        made = library.plan(
            model,
            images,
            store,
            methods=chosen,
            targets=targets,
            layer=layer,
            segments=segments,
            labels=labels,
            normalize=normalize,
            input_size=input_size,
            label_order=label_order,
            digests=digests,
            batch_size=batch_size,
            shard_size=shard_size,
            fit=fit,
            metrics=rated,
            thumbnails=thumbnails,
            seed=seed,
        )
    terminal.say(f"{len(made)} images in {made.num_shards} shards; go on with: jaxai dataset run {store}")


@dataset.command()
def run(
    store: StoreArgument,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, or Ray's actors.")
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="This worker among N that something else starts, from 0."),
    ] = None,
    root: RootOption = None,
    engine: Annotated[str, typer.Option(help="local, or ray: actors of a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of a Ray cluster, if it is not found by itself.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Explain what is missing; start it again after a crash, or on other machines at the same time."""
    from .. import dataset as library

    place = None
    if worker is not None:
        if not re.fullmatch(r"\d{1,6}/\d{1,6}", worker):
            raise ValueError(f"--worker must be I/N, as 0/4; got {worker!r}")
        number, count = worker.split("/")
        place = int(number), int(count)
    # Processes started later inherit its flags, so that all compute the same bits.
    session.start(device, "float32")
    try:
        found = library.run(
            store,
            root=root,
            engine=engine,
            workers=workers,
            worker=place,
            address=address,
            told=_Told(),
        )
    except KeyboardInterrupt:
        _say(library.status(store))
        terminal.note(f"go on with: jaxai dataset run {store}")
        raise
    _say(found)


@dataset.command()
def status(store: StoreArgument) -> None:
    """Say how far a store is; others may be filling it."""
    from .. import dataset as library

    _say(library.status(store))


@dataset.command()
def verify(
    store: StoreArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Take damaged shards for not done.")] = False,
) -> None:
    """Check the files of a store against their checksums."""
    from .. import dataset as library

    with moving("reading"):
        bad = library.open(store).verify(repair=repair)
    if bad and not repair:
        raise ValueError(f"damaged shards: {', '.join(map(str, bad))}; --repair has them explained again")
    terminal.say(f"{len(bad)} shards will be explained again" if bad else "all finished shards are intact")


@dataset.command(name="open")
def open_(
    store: StoreArgument,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 10,
    uncertain: Annotated[bool, typer.Option("--uncertain", help="The most uncertain images first.")] = False,
    wrong: Annotated[bool, typer.Option("--wrong", help="Images classified otherwise.")] = False,
    worst: Annotated[
        str | None, typer.Option(metavar="METRIC", help="The images whose maps a metric rates lowest.")
    ] = None,
) -> None:
    """Show rows of a store, one JSON object per line."""
    from .. import dataset as library

    found = library.open(store)
    if (wrong, uncertain, worst is not None).count(True) > 1:
        raise ValueError("--uncertain, --wrong and --worst are three orders: give one")
    listed: list[dict[str, Any]] = (
        found.worst(worst, count=rows)
        if worst
        else found.wrong(rows)
        if wrong
        else found.uncertain(rows)
        if uncertain
        else found.table().slice(0, rows).to_pylist()
    )
    for row in listed:
        row["classes"] = [found.name_of(index) for index in row["top"]]
        terminal.say(json.dumps(row, ensure_ascii=False))
    terminal.note(repr(found))


@dataset.command()
def page(
    store: StoreArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="To write to; open its index.html.")],
    against: Annotated[
        Path | None, typer.Option(metavar="STORE", help="Another store of the same images, beside this one.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Mean maps by label or target; labels where there are some.")
    ] = None,
    clusters: Annotated[
        bool, typer.Option("--clusters", help="Cluster the maps of each class (scikit-learn).")
    ] = False,
    wrong: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only N images classified otherwise.")
    ] = None,
    uncertain: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the N most uncertain images.")
    ] = None,
) -> None:
    """Write a page of a store: images and maps, the worst, the most uncertain, means, clusters."""
    from .. import dataset as library

    found = library.open(store)
    if wrong and uncertain:
        raise ValueError("--wrong and --uncertain choose images in two ways: give one")
    rows = found.wrong(wrong) if wrong else found.uncertain(uncertain) if uncertain else None
    with moving("writing"):
        made = library.page(
            found,
            folder,
            images=None if rows is None else [row["index"] for row in rows],
            other=None if against is None else library.open(against),
            by=by,
            clusters=clusters,
        )
    terminal.say(f"open {made}")


def _say(found: Any) -> None:
    for line in str(found).splitlines():
        terminal.say(line)


class _Told:
    """Reports the progress of a run: one updated line on a terminal, lines in a log."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, found: Any) -> None:
        now = time.monotonic()
        self._first = found.explained if self._first is None else self._first
        if sys.stderr.isatty() or now - self._last > _EVERY:
            self._last = now
            new, spent = found.explained - self._first, now - self._begin
            rate = new / spent
            left = remaining((found.images - found.explained) / rate if rate else None)
            line = f"{found.explained} of {found.images} images, {rate:.1f} per second"
            line += f", {left}" if left else ""
            end = "\n" if not sys.stderr.isatty() or found.explained == found.images else ""
            start = "\r\x1b[K" if sys.stderr.isatty() else ""
            print(f"{start}{line}", end=end, file=sys.stderr, flush=True)
