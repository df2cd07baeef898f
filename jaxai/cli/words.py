"""Arguments and options of commands that answer without JAX; `arguments` also has those of the others."""

from typing import Annotated

import typer

MODEL_HELP = "The network: a name from `jaxai models`, a file net.onnx, or package.module:function."

InputSizeOption = Annotated[
    int | None,
    typer.Option(min=1, max=1 << 14, help="Side of such a network's photos.", show_default="the file's, 224"),
]
