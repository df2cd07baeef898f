"""`jaxai explain`: from photographs to explanations."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import _files
from ..report import _methods as methods
from ..report import _networks as networks
from ..report import _outputs as outputs
from ..report import _photos as photos
from ..report import _session as provenance
from ..report import _unclassed as unclassed
from ..report._page import page as page_of
from ..report._progress import Progress
from ..report._run import Request
from ..report._writer import Extras, file_names
from . import arguments, session, terminal
from .arguments import (
    AlphaOption,
    BatchSizeOption,
    DeviceOption,
    PageOption,
    PrecisionOption,
    SeedOption,
    WhiteOption,
)
from .run import Outcome, run


def explain(
    images: arguments.ImagesArgument,
    model: arguments.ModelOption = "efficientnet_lite0",
    method: Annotated[str, typer.Option(help="With commas between; see `jaxai methods`.")] = "grad_cam,lime",
    target: Annotated[
        str | None,
        typer.Option(
            help="The class: its name, its index, several with commas, or top3. Without classes: mean or"
            " @LEFT:TOP:RIGHT:BOTTOM of a map, length or like=PHOTO of an embedding, or a number.",
            show_default="top1",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out"),
    layer: arguments.LayerOption = None,
    segments: arguments.SegmentsOption = methods.SEGMENTATIONS[0],
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
    page_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with everything too.")
    ] = None,
    format: Annotated[
        Literal["png", "pdf", "svg"], typer.Option(help="Write the figure of all methods like this too.")
    ] = "png",
    whole: Annotated[
        bool, typer.Option("--whole", help="Draw each map on the whole photo too, in the photo's own size.")
    ] = False,
    labels: arguments.LabelsOption = None,
    normalize: arguments.NormalizeOption = None,
    input_size: arguments.InputSizeOption = None,
    fit: Annotated[
        Literal["crop", "pad", "squash", "tile"],
        typer.Option(
            help="How a photo becomes a square: its centre, all of it with margins, or stretched; or tile:"
            " squares all over a large photo, whose maps are put together."
        ),
    ] = "crop",
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

    Finished results are on disk even if the run is interrupted. A photo or a method that fails gives one
    line; the others continue, and the exit code is 2.
    """
    found = photos.find(images)
    chosen = methods.choose(method, option or [])
    methods.check_segmentation(segments)
    sources = outputs.Sources(photo.path for photo in found.photos)

    def place(photo: photos.Photo) -> Path:
        return out / photo.folder if found.several else out

    extras = Extras(format, whole)
    outputs.check_folder(out, [], sources)
    for photo in found.photos:
        outputs.check_folder(place(photo), file_names(chosen, extras), sources)
    if page_file is not None:
        outputs.check_file(page_file, sources)
    session.start(device, precision)
    net = session.load(model, precision, networks.Around(labels, normalize, input_size))
    reading = photos.reading(page, white, alpha, fit, tiles=True)
    net, wanted = unclassed.wanted(net, target, reading=reading)
    for one in chosen:
        methods.rehearse(one, net)
    request = Request(
        net=net,
        methods=chosen,
        wanted=wanted,
        layer=provenance.layer(net, layer) if layer else None,
        segmentation=segments,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
        reading=reading,
        scores=rate,
    )
    for line in found.notes:
        terminal.note(line)
    outcome, keep = Outcome(), page_file is not None
    with Progress() as progress:
        try:
            run(
                request,
                found.photos,
                place,
                sources,
                progress,
                outcome,
                extras=extras,
                several=found.several,
                keep=keep,
            )
        finally:
            if page_file is not None and outcome.results:
                _write_page(page_file, outcome)
    if outcome.written:
        terminal.say(f"{out}{os.sep}")
    if outcome.failed:
        if found.several:
            count = f"{len(outcome.failed)} of {len(found.photos)} photos"
            terminal.note(f"error: {count} were not explained, or not by all methods")
        raise typer.Exit(2)


def _write_page(path: Path, outcome: Outcome) -> None:
    """Write what is finished as a page."""
    call = shlex.join(["jaxai", *sys.argv[1:]])
    said = [(subject, parts) for subject, parts in outcome.results if parts]
    text = page_of(said, call=call, failed=outcome.lines)
    _files.write(path, [text.encode()])
    terminal.say(str(path))
