"""Sanity: do maps change with the network's parameters and with the class?"""

import math
from collections.abc import Collection
from pathlib import Path

import jax

from . import photos, units
from .methods import entries

PHOTOS = 4
# Redrawn from the top of the network: the head, and one convolution of a block in five.
METRICS = ("emprt", "random_logit", "mprt")
LAYERS = 5


def run(
    folder: Path, *, number: int = PHOTOS, most: float | None = None, only: Collection[str] | None = None
):
    """Yield what is done, a line a unit."""
    from jaxai.metrics import _parameters

    model, x, classes, _ = photos.load()
    x, classes = x[:number], classes[:number]
    names = [layer.name for layer in _parameters.layers(model, x)]
    picked = names[:: -max(1, len(names) // LAYERS)][:LAYERS]
    chosen = photos.within(entries(photos.PARTS["photos"].side), most or math.inf, only)
    for title, entry in {
        "references": None,
        **dict(sorted(chosen.items(), key=lambda item: item[1].about)),
    }.items():

        def one(title=title, entry=entry):
            scored = units.scored(
                entry.run if entry else None,
                model,
                x,
                classes,
                metrics=METRICS,
                key=jax.random.key(0),
                options={"mprt": {"layers": picked}},
                references=() if entry else ("centre", "edges", "image"),
                batch_size=number,
            )
            return {"method": title, "layers": picked, **scored}

        found = units.done(units.path(folder / "sanity", title), one)
        yield f"{title}: {found['took']:.1f} s"
