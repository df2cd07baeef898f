"""Arguments and options that several commands share."""

import math
from typing import Annotated, Literal

import typer

from ..report import _methods as methods
from ..report import _options as options
from ..report import _photos as photos
from .words import MODEL_HELP
from .words import InputSizeOption as InputSizeOption

ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...", help=f"Photos, folders of photos, or samples: {', '.join(photos.SAMPLES)}."
    ),
]
# For commands that study many photos.
PhotosArgument = Annotated[
    list[str], typer.Argument(metavar="FOLDER|IMAGE...", help="Folders of photos, photos, or samples.")
]

ModelOption = Annotated[str, typer.Option(help=MODEL_HELP)]
LabelsOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The classes of a file or a function: a text file, one per line."),
]
NormalizeOption = Annotated[
    str | None,
    typer.Option(
        help="What such a network takes of photos in [0, 1]: imagenet, tf (-1 to 1), caffe, identity, or"
        " MEAN/STD as 0.485,0.456,0.406/0.229,0.224,0.225.",
        show_default="identity",
    ),
]


LayerOption = Annotated[
    str | None, typer.Option(help="Layer for methods that look at one; see `jaxai layers`.")
]
# For commands that need positions; in the others the methods choose the layer.
PositionsOption = Annotated[
    str | None, typer.Option(help="The layer; see `jaxai layers`.", show_default="last with positions")
]
SegmentsOption = Annotated[
    str, typer.Option(help=f"How superpixels are made: {', '.join(methods.SEGMENTATIONS)}.")
]


def finite(value: float | None) -> float | None:
    """Return an option's number.

    Raises:
        typer.BadParameter: If it is NaN or infinite.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


Device = Literal["auto", "cpu", "gpu", "tpu"]
Precision = Literal["float32", "bfloat16"]

DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto is what JAX finds.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Type of the network's numbers.")]
MOST = options.MOST
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, max=MOST, help="Images in flight at most; bounds the memory.")
]
# JAX uses 32 bits of a seed, so larger seeds would repeat.
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything drawn at random.")]

PageOption = Annotated[
    int | None,
    typer.Option(min=1, max=MOST, help="Page of files that hold several.", show_default="1"),
]
FitOption = Annotated[
    Literal["crop", "pad", "squash"],
    typer.Option(help="How a photo becomes a square: its centre, all of it with margins, or stretched."),
]
WhiteOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=finite,
        help="Level that is white, as 4095 for 12 bits.",
        show_default="the type's largest",
    ),
]
AlphaOption = Annotated[
    bool | None,
    typer.Option(help="Whether a fourth channel is opacity.", show_default="yes, with a note"),
]
