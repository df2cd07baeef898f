"""`jaxai explain`: from photographs to explanations."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import classes, methods, networks, outputs, photos, report, session, terminal
from .run import Request, run
from .session import (
    AlphaOption,
    BatchSizeOption,
    DeviceOption,
    PageOption,
    PrecisionOption,
    SeedOption,
    WhiteOption,
)


def explain(
    images: photos.ImagesArgument,
    model: networks.ModelOption = "efficientnet_lite0",
    method: Annotated[str, typer.Option(help="With commas between; see `jaxai methods`.")] = "grad_cam,lime",
    target: Annotated[
        str | None,
        typer.Option(
            help="The class: its name, its index, several with commas, or top3.", show_default="top1"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out"),
    layer: methods.LayerOption = None,
    segments: methods.SegmentsOption = methods.SEGMENTATIONS[0],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="METHOD.NAME=VALUE", help="A method's own option; repeatable."
        ),
    ] = None,
    rate: Annotated[
        bool,
        typer.Option(
            "--scores",
            help="Score the maps (relevance gain, insertion, Gini) under each panel; see `jaxai compare`.",
        ),
    ] = False,
    labels: networks.LabelsOption = None,
    normalize: networks.NormalizeOption = None,
    input_size: networks.InputSizeOption = None,
    page: PageOption = None,
    white: WhiteOption = None,
    alpha: AlphaOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Explain what a network sees: pictures, raw maps (.npz) and a record (.json).

    One image is written to the folder itself; several, or folders of images, each to a folder in it.

    What is finished is on disk, also when the run is interrupted. A photo or a method that fails gives one
    line; the others go on, and the exit code is 2.
    """
    found = photos.find(images)
    chosen = methods.choose(method, option or [])
    methods.check_segmentation(segments)
    sources = outputs.Sources(photo.path for photo in found.photos)

    def place(photo: photos.Photo) -> Path:
        return out / photo.folder if found.several else out

    outputs.check_folder(out, [], sources)
    for photo in found.photos:
        outputs.check_folder(place(photo), report.file_names(chosen), sources)
    session.start(device, precision)
    net = networks.with_classes(
        session.load(model, precision, networks.Around(labels, normalize, input_size))
    )
    for one in chosen:
        methods.rehearse(one, net)
    request = Request(
        net=net,
        methods=chosen,
        wanted=classes.parse(target, net.labels),
        layer=session.layer(net, layer) if layer else None,
        segmentation=segments,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
        sources=sources,
        reading={"page": page, "white": white, "alpha": alpha},
        scores=rate,
    )
    for line in found.notes:
        terminal.note(line)
    if found.several:
        with _progress(len(found.photos) * (len(chosen) + 1)) as bar:
            outcome = run(request, found.photos, place, lambda n: bar.advance(bar.task_ids[0], n), quiet=True)
    else:
        outcome = run(request, found.photos, place, lambda n: None, quiet=False)
    if outcome.written:
        terminal.say(f"{out}{os.sep}")
    if outcome.failed:
        if found.several:
            count = f"{len(outcome.failed)} of {len(found.photos)} photos"
            terminal.note(f"error: {count} were not explained, or not by all methods")
        raise typer.Exit(2)


def _progress(total: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Lines above the bar, unless they go elsewhere.
        redirect_stdout=sys.stdout.isatty(),
    )
    bar.add_task("explaining", total=total)
    return bar
