"""`jaxai compare`: which of several methods explains these photographs best, metric by metric."""

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer

from .. import _files, metrics, plots
from .._frame import model as _model
from ..metrics._references import ALL as REFERENCES
from ..report import _classes as classes
from ..report import _masks
from ..report import _methods as methods
from ..report import _names as names
from ..report import _networks as networks
from ..report import _outputs as outputs
from ..report import _photos as photos
from ..report import _scores as scores
from ..report import _session as provenance
from ..report._progress import Progress
from ..report._supplies import Run
from ..report._waiting import patiently
from . import arguments, session, terminal
from .arguments import (
    AlphaOption,
    BatchSizeOption,
    DeviceOption,
    FitOption,
    PageOption,
    PrecisionOption,
    SeedOption,
    WhiteOption,
)
from .read import read_all

# Guesses, in passes: of a metric that has no steps; in numbers: of a photo's superpixels.
_SOME, _SEGMENTS = 50, 50
_FILES = _PICTURE, _JSON, _CSV = "comparison.png", "comparison.json", "comparison.csv"


def compare(
    images: arguments.ImagesArgument,
    model: arguments.ModelOption = "efficientnet_lite0",
    method: Annotated[
        str, typer.Option(help="With commas between; see `jaxai methods`.")
    ] = "grad_cam,lrp,lime",
    metric: Annotated[str, typer.Option(help="With commas between; see docs/metrics.md.")] = ",".join(
        scores.DEFAULT
    ),
    references: Annotated[
        str,
        typer.Option(help=f"Rows to compare with, with commas between: {', '.join(REFERENCES)}; or none."),
    ] = "random,centre,edges,image",
    target: Annotated[
        str | None,
        typer.Option(help="The class: its name or its index.", show_default="each photo's top class"),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Pictures that mark the evidence (all but black), named like the photos (cat.png for"
            " cat.jpg) and of their size. Metrics of localization need them.",
            show_default="none",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("comparison"),
    layer: arguments.LayerOption = None,
    segments: arguments.SegmentsOption = methods.SEGMENTATIONS[0],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME.OPTION=VALUE", help="Of a method or a metric; repeatable."
        ),
    ] = None,
    fit: FitOption = "crop",
    page: PageOption = None,
    white: WhiteOption = None,
    alpha: AlphaOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Compare methods: scores with intervals over the photos, as a table, a picture, JSON and CSV.

    Deletion, insertion and relevance gain take 28 steps unless `-o relevance_gain.steps=224` says otherwise.
    """
    found = photos.find(images)
    wanted_metrics, rest = scores.choose(metric, option or [], masks=masks is not None)
    files = {} if masks is None else _masks.beside(masks, found.photos)
    chosen = methods.choose(method, rest)
    methods.check_segmentation(segments)
    rows = _references(references)
    sources = outputs.Sources(photo.path for photo in found.photos)
    outputs.check_folder(out, _FILES, sources)
    session.start(device, precision)
    net = networks.with_classes(session.load(model, precision))
    for one in chosen:
        methods.rehearse(one, net)
    wanted = classes.parse(target, net.labels)
    if (wanted.top or len(wanted.indices)) != 1:
        raise ValueError(
            f"`--target` must be one class for `jaxai compare`; got {names.shortened(target or '')}"
        )
    about = Run(
        net=net,
        images=jnp.zeros(()),
        targets=jnp.zeros(()),
        key=jax.random.key(seed),
        layer=provenance.layer(net, layer) if layer else None,
        batch_size=batch_size,
    )
    for line in found.notes:
        terminal.note(line)
    reading = photos.reading(page, white, alpha, fit)
    good, pixels = read_all(net, found.photos, reading)
    marked = np.stack([_masks.read(files[photo], photo, net, reading) for photo in good]) if files else None
    x = net.normalize(jnp.asarray(pixels))
    network = _model.as_model(net.model)

    def scored(one: jax.Array) -> np.ndarray:
        return np.asarray(_model.call(network, one[None]), np.float32)

    logits = np.concatenate([scored(one) for one in x])
    with provenance.timed() as clock:
        scored(x[0])
    targets = wanted.of(logits)[:, 0]
    normalized = classes.are_probabilities(net, x[:1])
    for photo, row, index in zip(good, logits, targets, strict=True):
        item = classes.entry(int(index), net.labels, row, normalized=normalized)
        terminal.say(f"{photo.source}: {item['label']} ({item['index']}) {item['probability']:.1%}")
    for name, given in wanted_metrics.items():
        if "segments" in scores.ALL[name].needs:
            cut = methods.superpixels(jnp.asarray(pixels), segments)
            given |= {"segments": jnp.asarray(cut.labels), "num_segments": max(cut.counts)}
    rows_told = _Rows(Progress(), len(good))
    compared = partial(
        metrics.compare,
        net.model,
        x,
        jnp.asarray(targets),
        methods={one.name: _Method(one, about, segments, rows_told) for one in chosen},
        metrics=tuple(wanted_metrics),
        key=jax.random.key(seed),
        masks=marked,
        references=rows,
        options=wanted_metrics,
        batch_size=batch_size,
    )
    sizes = {"targets": 1, "height": net.input_size, "width": net.input_size}
    rows_told.expect(
        {one.name: _passes(one, sizes) for one in chosen},
        sum(_metric_passes(name, given) for name, given in wanted_metrics.items()),
        len(rows),
    )
    rows_told.progress.calibrate(1.0, clock.seconds)
    with rows_told:
        table = patiently(compared, tick=rows_told.progress.tick)
    table = replace(
        table,
        passes={one.name: str(one.description.passes(**{**one.settings(), **sizes})) for one in chosen},
        settings={
            **table.settings,
            "model": {"name": net.name, "weights_sha256": net.digest},
            "photos": [names.recorded(photo.source) for photo in good],
            "targets": [int(index) for index in targets],
            "methods": {one.name: methods.reported(one) for one in chosen},
            "seed": seed,
            "run": provenance.describe(precision),
            "versions": provenance.versions(),
        },
    )
    for line in str(table).splitlines():
        terminal.say(line)
    title = f"{net.name}, {len(good)} photo{'s' if len(good) > 1 else ''}"
    with outputs.locked(_made(out)), _files.folder(out) as new:
        (new / _PICTURE).write_bytes(plots.png(plots.comparison(table, title=title)))
        (new / _JSON).write_text(f"{table.to_json()}\n", "utf-8")
        (new / _CSV).write_text(table.to_csv(), "utf-8")
    terminal.say(f"{out}{os.sep}")
    if len(good) < len(found.photos):
        terminal.note(
            f"error: {len(found.photos) - len(good)} of {len(found.photos)} photos were not compared"
        )
        raise typer.Exit(2)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _references(text: str) -> tuple[str, ...]:
    """Return the references of a list with commas.

    Raises:
        ValueError: If there is none of this name.
    """
    if text.strip() == "none":
        return ()
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in found:
        if word not in REFERENCES:
            raise ValueError(f"`--references`: {names.unknown('reference', word, REFERENCES)}")
    return found


def _passes(method: methods.Chosen, sizes: dict[str, int]) -> float:
    """Return about how many passes a method takes for each photo, of a usual number of superpixels."""
    cost = method.description.passes(**{**method.settings(), **sizes, "segments": _SEGMENTS})
    known = [n if isinstance(n, (int, float)) else _SEGMENTS for n in (cost.forward, cost.backward)]
    return known[0] + 2 * known[1]


def _metric_passes(name: str, given: dict[str, Any]) -> float:
    """Return about how many passes a metric takes for each map."""
    if scores.ALL[name].takes in ("maps", "masks"):
        return 0.0
    curves = 2 if name == "relevance_gain" else 1
    return float(curves * (given.get("steps") or _SOME))


class _Rows:
    """How far a comparison is: methods are asked one after the other, and each is scored before the next."""

    def __init__(self, progress: Progress, photos: int) -> None:
        self.progress = progress
        self._photos = photos
        self._open, self._known = ExitStack(), set()

    def expect(self, costs: dict[str, float], scoring: float, references: int) -> None:
        """Say what the methods cost for a photo, what scoring a map costs, and how many references follow."""
        found = {name: cost + scoring for name, cost in costs.items()}
        # References are no functions of ours: they count with the last method.
        found[list(found)[-1]] += references * scoring
        self.progress.expect(self._photos, found)

    def begin(self, name: str) -> None:
        """Say that a method is asked, which ends the row before if it is asked for the first time."""
        if name not in self._known:
            self._known.add(name)
            self._open.close()
            self._open.enter_context(self.progress.step(name, self._photos))

    def __enter__(self) -> None:
        self.progress.__enter__()

    def __exit__(self, *about: object) -> None:
        self._open.close()
        self.progress.__exit__(*about)


class _Method:
    """A method as metrics call it, on any model; superpixels are those of the images it is given."""

    def __init__(self, method: methods.Chosen, about: Run, segmentation: str, rows: _Rows) -> None:
        self._method, self._about, self._segmentation, self._rows = method, about, segmentation, rows

    def __call__(self, model: Any, images: jax.Array, targets: Any) -> np.ndarray:
        """Return maps [batch, height, width]."""
        self._rows.begin(self._method.name)
        about = replace(
            self._about,
            net=replace(self._about.net, model=model),
            images=images,
            targets=jnp.asarray(targets),
        )
        if self._method.needs("segments"):
            cut = methods.superpixels(_photos(about.net, images), self._segmentation)
            count = methods.padded(max(cut.counts))
            about = replace(about, segments=jnp.asarray(cut.labels), num_segments=count)
        maps = methods.run(self._method, about).maps[:, 0]
        return maps.sum(-1) if maps.ndim == 4 else maps


def _photos(net: Any, images: jax.Array) -> jax.Array:
    """Return the photos in [0, 1] that a network's normalisation, an affine one, made images of."""
    corners = np.concatenate([np.zeros((1, 3)), np.eye(3)]).astype(np.float32)
    found = np.asarray(net.normalize(jnp.asarray(corners)[:, None, None]), np.float64)[:, 0, 0]
    colours = (np.asarray(images, np.float64) - found[0]) @ np.linalg.inv(found[1:] - found[0])
    return jnp.asarray(np.clip(colours, 0, 1), jnp.float32)
