"""Photographs: methods on EfficientNet-Lite0 and -Lite2 and foolbox's twenty ImageNet photographs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxai

from . import boxes, units
from .methods import entries

NETWORK, SIDE = "efficientnet_lite0", 224
# A second network, to see whether methods keep their order; methods with more passes are left out.
SECOND, SECOND_SIDE, SECOND_MOST = "efficientnet_lite2", 260, 60
METRICS = (
    "relevance_gain",
    "pointing_game",
    "mass_accuracy",
    "rank_accuracy",
    "gini",
)
OPTIONS: dict[str, Any] = {"relevance_gain": {"steps": 7}}
# Methods that take more forward passes than this for an image are left to a longer run.
MOST = 420


def load(network: str = NETWORK) -> tuple[Any, jax.Array, jax.Array, list[str]]:
    """Return the network, what it takes of the twenty photographs, their classes and names."""
    net = jaxai.models.load(network)
    paths = boxes.files()
    x = jnp.concatenate([net.preprocess(str(path)) for path in paths.values()])
    classes = jnp.asarray([int(name.split("_")[1]) for name in paths])
    return net.model, x, classes, list(paths)


def run(folder: Path, *, number: int | None = None, most: float | None = None, second: bool = False):
    """Yield what is done, a line a unit, cheap methods first; on the second network if asked for."""
    model, x, classes, names = load(SECOND if second else NETWORK)
    side = SECOND_SIDE if second else SIDE
    x, classes, masks = x[:number], classes[:number], boxes.masks(side)[:number]
    where = folder / ("photos_second" if second else "photos")

    def about():
        scores = np.concatenate([np.asarray(model(x[i : i + 5])) for i in range(0, len(x), 5)])
        top = scores.argsort(-1)[:, ::-1]
        ranks = [int(np.flatnonzero(row == c)[0]) for row, c in zip(top, np.asarray(classes), strict=True)]
        return {"photos": names[: len(x)], "ranks": ranks, "share": np.asarray(masks.mean((1, 2))).tolist()}

    units.done(where / "about.json", about)
    methods: dict[str, Any] = {"references": None, **entries(side)}
    most = most or (SECOND_MOST if second else MOST)
    chosen = {title: entry for title, entry in methods.items() if entry is None or entry.about <= most}
    for title, entry in sorted(chosen.items(), key=lambda item: item[1].about if item[1] else 0):

        def one(title=title, entry=entry):
            scored = units.scored(
                entry.run if entry else None,
                model,
                x,
                classes,
                metrics=METRICS,
                key=jax.random.key(0),
                masks=masks,
                options=OPTIONS,
                references=() if entry else units.REFERENCES,
                batch_size=5,
            )
            return {"method": title, "passes": entry.passes if entry else "", **scored}

        found = units.done(units.path(where, title), one)
        yield f"{title}: {found['took']:.1f} s"
