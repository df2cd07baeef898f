"""`jaxai layers` and `jaxai models`: what there is to name."""

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import numpy as np
import typer

from . import names, terminal


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


def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `jaxai models`.")],
) -> None:
    """List a network's layers in forward order, with the shape of one photo's activations."""
    from ..layers import resolve

    known, network = _network(model)
    photo: Any = jax.ShapeDtypeStruct((1, known.input_size, known.input_size, 3), np.float32)
    default = resolve(network, None, photo)
    rows = [("LAYER", "SHAPE", "")]
    for name in network.layer_names:
        shape = jax.eval_shape(lambda m, x, name=name: m(x, stop=name), network, photo).shape[1:]
        note = "default of layer methods" if name == default else ""
        rows.append((name, " x ".join(map(str, shape)), note))
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
