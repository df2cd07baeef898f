"""Pictures of methods' results for a photo: a panel, a figure of one method, a figure of all."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from .. import maps, plots
from ..plots._pixels import strongest
from . import _classes as classes
from ._record import Part, Subject

# The longest side of a photo with a map on it.
_LONGEST = 4096
_HATCHED = "hatched: within two standard errors of zero"


def panel(subject: Subject, part: Part, k: int, title: str) -> plots.Panel:
    """Return a method's panel for class k with its scores, if there are any, below."""
    unsure = part.unsure(k)
    if unsure is not None and part.weights is not None and subject.segments is not None:
        # Only these are shown.
        unsure = unsure & strongest(part.weights[k])
    lines = [_scores(part.facts, k), caption(unsure)]
    return replace(_plain_panel(subject, part, k, title), caption="\n".join(line for line in lines if line))


def caption(hatched: np.ndarray | None) -> str:
    """Return the explanation of hatching, if there is any."""
    return _HATCHED if hatched is not None and hatched.any() else ""


def _plain_panel(subject: Subject, part: Part, k: int, title: str) -> plots.Panel:
    if part.weights is not None and subject.segments is not None:
        return plots.segments_panel(
            subject.pixels, subject.segments, part.weights[k], title=title, hatched=part.unsure(k)
        )
    return _map_panel(subject, part, k, title)


def _map_panel(subject: Subject, part: Part, k: int, title: str) -> plots.Panel:
    values, signed, bounds = shown_values(subject, part, k)
    label = part.method.description.label
    if part.method.result == "pixels":
        return plots.pixels_panel(values, title=title, label=label, bounds=bounds, signed=signed)
    hatched = unsure_pixels(subject, part, k)
    return plots.heatmap_panel(
        subject.pixels, values, title=title, signed=signed, label=label, bounds=bounds, hatched=hatched
    )


def shown_values(subject: Subject, part: Part, k: int) -> tuple[np.ndarray, bool, tuple[float, float]]:
    """Return a map [height, width], whether its values have signs, and the values at its colours' ends.

    The classes of a photo share the ends, so that their colours can be compared; functions of the outputs
    have units of their own.
    """
    method = part.method
    together = slice(None) if subject.named[k]["index"] is not None else slice(k, k + 1)
    if method.result == "pixels":
        values = np.asarray(part.maps, np.float64)
        values = values.sum(-1) if values.ndim == 4 else values
        return values[k], method.signed, plots.limits(values[together], signed=method.signed, percentile=99.0)
    values, size = part.maps, subject.pixels.shape[:2]
    if values.shape[1:] != size:
        # With `upsample=False`.
        values = np.asarray(maps.upsample(jnp.asarray(values), size))
    signed = method.signed or method.result == "segments"
    return np.asarray(values[k], np.float64), signed, plots.limits(values[together], signed=signed)


def on_photo(subject: Subject, part: Part, k: int, *, longest: int = _LONGEST) -> np.ndarray:
    """Return the whole photo with a map in its place, uint8 [height, width, 3].

    The photo keeps its own size, unless a side is longer than `longest`. What the network has not seen is
    pale.

    Raises:
        ValueError: If the network crops photos in a way of its own.
        OSError: If the photo can no longer be read.
    """
    from ..models import fit

    image = subject.facts["image"]
    if "box" not in image:
        raise ValueError(
            f"{subject.facts['model']['name']} crops photos in its own way: the part it sees is unknown"
        )
    reading = {name: image[name] for name in ("page", "white", "alpha") if name in image}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Reported when it was first read.
        whole = np.asarray(fit(subject.photo.read(), longest=longest, **reading))[0]
    scale = whole.shape[1] / image["original_size"][0], whole.shape[0] / image["original_size"][1]
    left, top, right, bottom = (round(edge * scale[i % 2]) for i, edge in enumerate(image["box"]))
    values, signed, bounds = shown_values(subject, part, k)
    inner = image["place"]
    values = values[inner[1] : inner[3], inner[0] : inner[2]]
    size = (max(1, bottom - top), max(1, right - left))
    values = np.asarray(maps.upsample(jnp.asarray(values, jnp.float32), size))
    picture = np.round((0.4 * whole.mean(-1, keepdims=True) + 0.6).repeat(3, -1) * 255).astype(np.uint8)
    seen = whole[top : top + size[0], left : left + size[1]]
    hatched = None
    if (unsure := unsure_pixels(subject, part, k)) is not None:
        small = unsure[inner[1] : inner[3], inner[0] : inner[2]]
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, small.shape, strict=True))
        hatched = small[rows][:, columns]
    picture[top : top + size[0], left : left + size[1]] = plots.heatmap_overlay(
        seen, values, signed=signed, bounds=bounds, hatched=hatched
    )
    return picture


def unsure_pixels(subject: Subject, part: Part, k: int) -> np.ndarray | None:
    """Return per pixel whether its superpixel's weight may be zero; None if unknown."""
    unsure = part.unsure(k)
    return None if unsure is None or subject.segments is None else unsure[subject.segments]


def of_method(subject: Subject, part: Part) -> Figure:
    """Return photo and map; for superpixels also all weights; a row per class if there are several."""
    method, named = part.method, subject.named
    rows = part.weights is not None
    panels = [] if rows and len(named) > 1 else [plots.photo_panel(subject.pixels, title="photo")]
    for k, item in enumerate(named):
        title = classes.named(item) if len(named) > 1 else method.description.title
        if not rows:
            panels.append(panel(subject, part, k, title))
            continue
        if len(named) > 1:
            panels.append(plots.photo_panel(subject.pixels, title=title))
        panels.append(panel(subject, part, k, "strongest regions for the class"))
        weights = _map_panel(subject, part, k, "weights of all regions")
        panels.append(replace(weights, caption=caption(part.unsure(k))))
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
        results: At least one; cells of missing methods stay empty.
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
    """Return the scores of a method for class k, two per line of text."""
    texts = score_texts(facts, k)
    return "\n".join("   ".join(texts[i : i + 2]) for i in range(0, len(texts), 2))


def score_texts(facts: dict[str, Any], k: int) -> list[str]:
    """Return the scores of a method for class k, one text per metric."""
    return [
        f"{name.replace('_', ' ')} {'–' if values[k] is None else format(round(values[k], 2) + 0.0, '.2f')}"
        for name, values in facts.get("scores", {}).items()
    ]
