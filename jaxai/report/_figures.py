"""Pictures of what methods say of a photo: a panel, a figure of one method, a figure of all."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from .. import maps, plots
from . import _classes as classes
from ._record import Part, Subject


def panel(subject: Subject, part: Part, k: int, title: str) -> plots.Panel:
    """Return a method's panel for class k with its scores, if there are any, below."""
    return replace(_plain_panel(subject, part, k, title), caption=_scores(part.facts, k))


def _plain_panel(subject: Subject, part: Part, k: int, title: str) -> plots.Panel:
    method = part.method
    if method.result == "heatmap":
        heatmap = part.maps[k]
        if heatmap.shape != subject.pixels.shape[:2]:
            # With `upsample=False`.
            heatmap = np.asarray(maps.upsample(jnp.asarray(heatmap), subject.pixels.shape[:2]))
        return plots.heatmap_panel(
            subject.pixels, heatmap, title=title, signed=method.signed, label=method.description.unit
        )
    if method.result == "pixels":
        return plots.pixels_panel(part.maps[k], title=title, label=method.description.unit)
    assert subject.segments is not None and part.weights is not None
    return plots.segments_panel(subject.pixels, subject.segments, part.weights[k], title=title)


def of_method(subject: Subject, part: Part) -> Figure:
    """Return photo and map; for superpixels also all weights; a row per class if there are several."""
    method, named = part.method, subject.named
    rows = method.result == "segments"
    panels = [] if rows and len(named) > 1 else [plots.photo_panel(subject.pixels, title="photo")]
    for k, item in enumerate(named):
        title = classes.named(item) if len(named) > 1 else method.description.title
        if not rows:
            panels.append(panel(subject, part, k, title))
            continue
        if len(named) > 1:
            panels.append(plots.photo_panel(subject.pixels, title=title))
        panels.append(panel(subject, part, k, "strongest regions for the class"))
        panels.append(
            plots.heatmap_panel(
                subject.pixels,
                part.maps[k],
                title="weights of all regions",
                signed=True,
                label=method.description.unit,
            )
        )
    title = (
        method.description.title
        if len(named) > 1
        else f"{method.description.title}: {classes.named(named[0])}"
    )
    return plots.compose(panels, title=title, columns=3 if rows else None)


def of_all(subject: Subject, parts: Sequence[Part]) -> Figure:
    """Return all methods side by side, a row per class."""
    single = len(subject.named) == 1
    panels = _rows(subject, parts, "photo" if single else "")
    title = classes.named(subject.named[0]) if single else ""
    return plots.compose(panels, title=title, columns=None if single else len(parts) + 1)


def of_photos(results: Sequence[tuple[Subject, Sequence[Part]]]) -> Figure:
    """Return photos and all methods side by side, a row per photo and class.

    Args:
        results: At least one; methods that are missing leave room.
    """
    if len(results) == 1:
        return of_all(*results[0])
    names = dict.fromkeys(part.method.name for _, parts in results for part in parts)
    panels = []
    for subject, parts in results:
        panels += _rows(subject, parts, "", list(names))
    return plots.compose(panels, columns=len(names) + 1)


def _rows(
    subject: Subject, parts: Sequence[Part], title: str, names: Sequence[str] = ()
) -> list[plots.Panel]:
    """Return a row of panels per class: the photo, called like its class if it has no title, and all maps."""
    said = {part.method.name: part for part in parts}
    panels = []
    for k, item in enumerate(subject.named):
        panels.append(plots.photo_panel(subject.pixels, title=title or classes.named(item)))
        for name in names or said:
            if name in said:
                panels.append(panel(subject, said[name], k, said[name].method.description.title))
            else:
                panels.append(plots.photo_panel(np.ones_like(subject.pixels), title=f"{name} failed"))
    return panels


def _scores(facts: dict[str, Any], k: int) -> str:
    """Return the scores of a method for class k in a line of text for each two."""
    texts = score_texts(facts, k)
    return "\n".join("   ".join(texts[i : i + 2]) for i in range(0, len(texts), 2))


def score_texts(facts: dict[str, Any], k: int) -> list[str]:
    """Return the scores of a method for class k, a text for each metric."""
    return [
        f"{name.replace('_', ' ')} {'–' if values[k] is None else format(round(values[k], 2) + 0.0, '.2f')}"
        for name, values in facts.get("scores", {}).items()
    ]
