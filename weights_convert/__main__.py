"""The command `python -m jaxai.weights_convert SRC --model NAME [--out FILE]`."""

from pathlib import Path
from typing import Annotated

import typer

from .conversion import convert


def main(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A .pth, .safetensors or .onnx file.")],
    model: Annotated[str, typer.Option(help="The model that the weights belong to.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; by default into the cache.")] = None,
) -> None:
    """Convert weights of another framework for a jaxai model."""
    try:
        path = convert(source, model, out)
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
