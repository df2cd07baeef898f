"""Photographs: methods on networks with their real weights, on foolbox's and scikit-image's photographs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxai

from . import boxes, units
from .methods import entries

METRICS = ("relevance_gain", "pointing_game", "mass_accuracy", "rank_accuracy", "gini")
# What can be measured where nobody says where the evidence is.
NO_TRUTH = ("relevance_gain", "gini")
OPTIONS: dict[str, Any] = {"relevance_gain": {"steps": 7}}


@dataclass(frozen=True)
class Part:
    """A network and the photographs that its maps explain.

    Attributes:
        network: Its name.
        side: Pixels that it takes.
        most: Methods that take more forward passes than this for an image are left to a longer run.
        photos: `"foolbox"` or `"scikit-image"`.
        number: The first so many photographs; None: all.
        batch: Photographs at once.
        explains: `"label"`, the class that the photograph has; `"first"`, the one that the network names;
            `"map"`, the mean of a network's map of scores.
        transformer: Whether methods for transformers run too.
    """

    network: str
    side: int
    most: float
    photos: str = "foolbox"
    number: int | None = None
    batch: int = 5
    explains: str = "label"
    transformer: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured: where the network does not know the boxes' classes, nothing of the boxes."""
        return METRICS if self.explains == "label" else NO_TRUTH


PARTS = {
    "photos": Part("efficientnet_lite0", 224, 420),
    # To see whether methods keep their order; methods with more passes are left out.
    "photos_second": Part("efficientnet_lite2", 260, 60),
    "photos_samples": Part("efficientnet_lite0", 224, 420, "scikit-image", batch=3),
    "photos_vit": Part("vit_s14_focus", 224, 60, number=4, batch=2, explains="map", transformer=True),
    "photos_vgg16": Part("vgg16_brain_mri", 224, 12, number=2, batch=2, explains="first"),
}


def load(part: Part = PARTS["photos"]) -> tuple[Any, jax.Array, Any, list[str]]:
    """Return the network, what it takes of the photographs, what is explained of each, and their names."""
    net = jaxai.models.load(part.network)
    photos = dict(list(boxes.photos(part.photos).items())[: part.number])
    x = jnp.concatenate([net.preprocess(photo) for photo in photos.values()])
    if part.explains == "map":
        target: Any = jaxai.targets.region(None, np.ones((part.side, part.side), bool))
    elif part.explains == "first":
        target = jnp.asarray([int(net.model(photo[None]).argmax()) for photo in x])
    else:
        target = jnp.asarray([boxes.label(name) for name in photos])
    return net.model, x, target, list(photos)


def _about(part, model, x, targets, names):
    found = {"network": part.network, "photos": names, "explains": part.explains}
    if part.explains != "label":
        return found
    scores = np.concatenate([np.asarray(model(x[i : i + 5])) for i in range(0, len(x), 5)])
    top = scores.argsort(-1)[:, ::-1]
    ranks = [int(np.flatnonzero(row == c)[0]) for row, c in zip(top, np.asarray(targets), strict=True)]
    masks = boxes.masks(part.side, names)
    return {**found, "ranks": ranks, "share": np.asarray(masks.mean((1, 2))).tolist()}


def within(methods: Mapping[str, Any], most: float, only: Collection[str] | None) -> dict[str, Any]:
    """Return the methods of at most so many forward passes, or those that are named.

    Raises:
        ValueError: If a name is unknown.
    """
    if only is None:
        return {title: entry for title, entry in methods.items() if entry.about <= most}
    if unknown := set(only) - set(methods):
        raise ValueError(f"unknown methods {sorted(unknown)}; the methods are {', '.join(methods)}")
    return {title: methods[title] for title in only}


def run(
    folder: Path,
    *,
    part: str = "photos",
    number: int | None = None,
    most: float | None = None,
    only: Collection[str] | None = None,
):
    """Yield what is done, a line a unit, cheap methods first.

    Args:
        folder: Where units are kept.
        part: One of `PARTS`.
        number: The first so many photographs only.
        most: Another bound of forward passes.
        only: Titles of methods that run whatever they cost, and no others; None: those within the bound.
    """
    one = PARTS[part]
    model, x, targets, names = load(one)
    x, names = x[:number], names[:number]
    targets = targets if one.explains == "map" else targets[:number]
    masks = boxes.masks(one.side, names) if one.explains == "label" else None
    where = folder / part
    units.done(where / "about.json", lambda: _about(one, model, x, targets, names))
    methods = entries(one.side, transformer=one.transformer)
    chosen: dict[str, Any] = {"references": None, **within(methods, most or one.most, only)}
    for title, entry in sorted(chosen.items(), key=lambda item: item[1].about if item[1] else 0):

        def unit(title=title, entry=entry):
            scored = units.scored(
                entry.run if entry else None,
                model,
                x,
                targets,
                metrics=one.metrics,
                key=jax.random.key(0),
                masks=masks,
                options={name: given for name, given in OPTIONS.items() if name in one.metrics},
                references=() if entry else units.REFERENCES,
                batch_size=one.batch,
            )
            return {"method": title, "passes": entry.passes if entry else "", **scored}

        found = units.done(units.path(where, title), unit)
        yield f"{title}: {found['took']:.1f} s"
