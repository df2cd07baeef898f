"""`jaxai atlas`: what a layer sees in a folder of photos, laid out as a map."""

from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer

from .. import features, layers
from . import photos, session, sheets, staging
from .session import BatchSizeOption, DeviceOption, PrecisionOption, SeedOption


def atlas(
    folder: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER|IMAGE...", help="Folders of photos, photos, or samples."),
    ],
    model: Annotated[str, typer.Option(help="The network; see `jaxai models`.")] = "efficientnet_lite0",
    layer: Annotated[
        str | None,
        typer.Option(help="The layer; see `jaxai layers`.", show_default="last with positions"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("atlas"),
    grid: Annotated[int, typer.Option(min=1, help="Cells along each side.")] = 8,
    samples: Annotated[int, typer.Option(min=1, help="Positions drawn in each photo.")] = 8,
    size: Annotated[int, typer.Option(min=8, help="Side of each image in pixels.")] = 96,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each image.")] = 128,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Draw an activation atlas: similar activations side by side, each shown as the image it stands for.

    Writes atlas.png and atlas.npz (counts, directions, points, and the photo and position of each).
    """
    found, _ = photos.find(folder)
    session.start(device, precision)
    from .. import models

    net = models.load(model, dtype=None if precision == "float32" else precision)
    blank: Any = jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), np.float32)
    layer = layers.resolve(net.model, layer, blank)
    with staging.folder(out) as place, session.timed() as clock:
        made = features.atlas(
            net.model,
            net.crop([photo.read() for photo in found]),
            layer=layer,
            key=jax.random.key(seed),
            grid=grid,
            samples=samples,
            size=size,
            steps=steps,
            normalize=net.normalize,
            batch_size=batch_size,
        )
        cells = np.asarray(made.images).reshape(-1, *made.images.shape[2:])
        sheets.contact_sheet(list(cells), columns=grid).save(place / "atlas.png")
        np.savez_compressed(
            place / "atlas.npz",
            counts=np.asarray(made.counts),
            directions=np.asarray(made.directions),
            points=np.asarray(made.points),
            sources=np.asarray(made.sources),
            photos=[photo.source for photo in found],
        )
    session.say(
        f"{layer} of {model}: {len(found)} photos, {len(made.points)} activations,"
        f" {int((np.asarray(made.counts) > 0).sum())} cells, {clock.seconds:.1f} s   {out}"
    )
