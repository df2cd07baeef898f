"""`jaxai convert`: weights of other frameworks."""

from pathlib import Path
from typing import Annotated

import typer

from .._files import shown
from . import session


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A .pth, .safetensors or .onnx file.")],
    model: Annotated[str, typer.Option(help="The network that the weights belong to; see `jaxai models`.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default where the network is loaded from.")
    ] = None,
) -> None:
    """Convert weights of another framework, without it and without running code from the file."""
    from .. import weights_convert

    path = weights_convert.convert(source, model, out)
    session.say(f"{model}: {shown(source, 200)} -> {shown(path, 200)}")
