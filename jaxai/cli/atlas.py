"""`jaxai atlas`: what a layer sees in a folder of photos, laid out as a map."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer

from .. import _files
from ..features._atlas import prepare
from ..report import _names as names
from ..report import _outputs as outputs
from ..report import _photos as photos
from ..report import _session as provenance
from ..report._calibrate import A_STEP, calibrate
from ..report._progress import Progress
from ..report._waiting import patiently
from . import arguments, session, sheets, terminal
from .arguments import (
    MOST,
    AlphaOption,
    BatchSizeOption,
    DeviceOption,
    PageOption,
    PrecisionOption,
    SeedOption,
    WhiteOption,
)
from .read import read_all

_FILES = ("atlas.png", "atlas.npz")
# Cells between two marks of the progress bar.
_A_MARK = 8


def atlas(
    folder: arguments.PhotosArgument,
    model: arguments.ModelOption = "efficientnet_lite0",
    layer: arguments.PositionsOption = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("atlas"),
    grid: Annotated[int, typer.Option(min=1, max=1024, help="Cells along each side.")] = 8,
    samples: Annotated[int, typer.Option(min=1, max=MOST, help="Positions drawn in each photo.")] = 8,
    size: Annotated[int, typer.Option(min=8, max=32768, help="Side of each image in pixels.")] = 96,
    steps: Annotated[int, typer.Option(min=1, max=MOST, help="Steps of each image.")] = 128,
    page: PageOption = None,
    white: WhiteOption = None,
    alpha: AlphaOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Draw an activation atlas: similar activations side by side, each shown as the image it stands for.

    Beneath each stands the class that it speaks for. Writes atlas.png and atlas.npz (counts, directions,
    classes, points, and the photo and position of each).
    """
    found = photos.find(folder)
    outputs.check_folder(out, _FILES, outputs.Sources(photo.path for photo in found.photos))
    session.start(device, precision)
    net = session.load(model, precision)
    layer = provenance.layer(net, layer)
    for line in found.notes:
        terminal.note(line)
    good, cropped = read_all(net, found.photos, {"page": page, "white": white, "alpha": alpha})
    laid_out = partial(
        prepare,
        net.model,
        jnp.asarray(cropped),
        layer=layer,
        key=jax.random.key(seed),
        grid=grid,
        num_samples=samples,
        size=size,
        steps=steps,
        normalize=net.normalize,
        batch_size=batch_size,
    )
    with (
        _files.folder(out) as place,
        provenance.timed() as clock,
        Progress() as progress,
    ):
        with progress.step("laying out", 1):
            todo = patiently(laid_out, tick=progress.tick)
        passes = A_STEP * steps
        calibrate(progress, net, size, passes=passes * len(todo.cells))
        progress.expect(len(todo.cells), {"drawing": passes})
        drawn = []
        for numbers, kept in _batches(todo.cells, batch_size or _A_MARK):
            with progress.step("drawing", kept):
                images = patiently(lambda some=numbers: np.asarray(todo.draw(some)), tick=progress.tick)
            drawn.append(images[:kept])
        made = todo.finish(np.concatenate(drawn))
        cells = np.asarray(made.images).reshape(-1, *made.images.shape[2:])
        labels = _labels(np.asarray(made.classes), net.labels)
        sheets.contact_sheet(list(cells), labels, columns=grid).save(place / "atlas.png")
        np.savez_compressed(
            place / "atlas.npz",
            counts=np.asarray(made.counts),
            directions=np.asarray(made.directions),
            points=np.asarray(made.points),
            sources=np.asarray(made.sources),
            classes=np.asarray(made.classes),
            photos=[names.recorded(photo.source) for photo in good],
        )
    terminal.say(
        f"{layer} of {model}: {len(good)} photos, {len(made.points)} activations,"
        f" {int((np.asarray(made.counts) > 0).sum())} cells, {clock.seconds:.1f} s   {out}"
    )
    if len(good) < len(found.photos):
        raise typer.Exit(2)


def _labels(classes: np.ndarray, known: Sequence[str] | None) -> list[str] | None:
    """Return the names of cells' classes, numbers where they have none; None if no cell has a class."""
    found = [int(one) for one in classes.reshape(-1)]
    if max(found) < 0:
        return None
    return ["" if one < 0 else known[one] if known else str(one) for one in found]


def _batches(cells: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield cells in batches of one size, the last filled up, for one program; and how many are meant."""
    size = min(size, len(cells))
    for first in range(0, len(cells), size):
        numbers = np.minimum(np.arange(first, first + size), len(cells) - 1)
        yield cells[numbers], min(size, len(cells) - first)
