"""`jaxai convert`: weights of other frameworks."""

from pathlib import Path
from typing import Annotated

import typer

from ..report import _names as names
from ..report import _outputs as outputs
from ..report._progress import moving
from . import terminal


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A .pth, .safetensors, .onnx or .h5 file.")],
    model: Annotated[str, typer.Option(help="The network that the weights belong to; see `jaxai models`.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default where the network is loaded from.")
    ] = None,
) -> None:
    """Convert weights of another framework, without it and without running code from the file."""
    from .. import weights_convert
    from ..models.zoo import ZOO
    from ..weights_convert.files import cache_path

    if model not in ZOO:
        raise ValueError(names.unknown("model", model, ZOO))
    outputs.check_file(out or cache_path(model), outputs.Sources([source]))
    with moving("converting"):
        path = weights_convert.convert(source, model, out)
    terminal.say(f"{model}: {source} -> {path}")
