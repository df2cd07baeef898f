"""The sheets of concepts as pictures and as a page: photos and maps, classes and steering curves."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .. import _files
from ._output import Picture
from ._pixels import as_photo, heatmap_overlay
from ._texts import plain

_SIDE = 1.5  # inches a photo
_LINES = ("#1f3b63", "#c2410c", "#4d7c0f", "#7e22ce", "#0e7490", "#a16207")
_FAINT = "#8a8f98"


def concept_sheet(sheet: Any, *, labels: Sequence[str] | None = None, title: str = "") -> Figure:
    """Draw a sheet of `jaxai.concepts.concept_sheets`.

    Upper row: the photos that show it most; lower row: where it is on them, all in one range of colours. To
    their left the image that is optimised to show it; to their right the classes that depend on it most, with
    standard errors (none for one photo), and their probabilities as the concept is scaled.

    Args:
        sheet: A `jaxai.concepts.ConceptSheet`.
        labels: Names of the network's classes.
        title: A line above all.

    Returns:
        A Matplotlib figure with an Agg canvas; `png` writes it, `render` turns it into pixels.
    """
    count, drawn, classify = len(sheet.photos), sheet.drawn is not None, sheet.classes is not None
    widths = [2 * _SIDE] * drawn + [_SIDE] * count + [2.1 * _SIDE] * classify
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    height = 2 * _SIDE + 0.3 + (0.3 if title else 0)
    figure = Picture(figsize=(sum(widths) + 0.2, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(widths), width_ratios=widths)
    if drawn:
        axes = figure.add_subplot(grid[:, 0])
        axes.imshow(as_photo(np.clip(sheet.drawn, 0, 1)))
        axes.set_title("optimised", fontsize=8, color=_FAINT)
        axes.set_axis_off()
    bounds = (0.0, max(float(np.nanmax(sheet.maps)), 1e-9))
    for i in range(count):
        overlay = heatmap_overlay(sheet.photos[i], sheet.maps[i], bounds=bounds)
        for row, picture in enumerate((as_photo(sheet.photos[i]), overlay)):
            axes = figure.add_subplot(grid[row, drawn + i])
            axes.imshow(picture)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(f"{sheet.amounts[i]:.3g}", fontsize=7, color=_FAINT, pad=2)
    if classify:
        names = [str(c) if labels is None else str(labels[c]).replace("_", " ") for c in sheet.classes]
        names = [name if len(name) <= 22 else f"{name[:21]}…" for name in names]
        colours = [_LINES[i % len(_LINES)] for i in range(len(names))]
        _bars(figure.add_subplot(grid[0, -1]), sheet, names, colours)
        _curves(figure.add_subplot(grid[1, -1]), sheet, colours)
    if title:
        text, style = plain(title, weight="bold")
        figure.suptitle(text, fontsize=10, **style)
    return figure


def concept_change(
    photo: Any,
    change: Any,
    sheets: Sequence[Any],
    *,
    image: int = 0,
    most: int = 4,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw what `jaxai.concepts.counterfactuals.concept_change` found: more of which concept, less of which.

    Upper row: the photo, and of each concept that changes, largest first, the optimised image, or the photo
    that shows it most; lower row: how much each changes, in units of its code, and where it is on the photo
    that shows it most.

    Args:
        photo: The image as a photo, float in [0, 1], [height, width, 3].
        change: The `ConceptChange`.
        sheets: A `jaxai.concepts.ConceptSheet` of each concept that is to be seen; those that do not change
            are left out.
        image: Which of its images.
        most: At most so many concepts.
        labels: Names of the network's classes.
        title: A line above all; empty: the class that wins, and its probability before and after.

    Returns:
        A Matplotlib figure with an Agg canvas; `png` writes it, `render` turns it into pixels.

    Raises:
        ValueError: If there is no sheet of a concept that changes.
    """
    moved = np.asarray(change.change[image])
    shown = sorted((s for s in sheets if moved[s.concept] != 0), key=lambda s: -abs(moved[s.concept]))[:most]
    if not shown:
        changed = np.flatnonzero(moved).tolist()
        raise ValueError(f"`sheets` must have one of the concepts that change, {changed}")
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03)
    figure = Picture(
        figsize=(1.3 * _SIDE * (len(shown) + 1.4) + 0.2, 2.9 * _SIDE + 0.3), dpi=120, layout=layout
    )
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(shown) + 1, width_ratios=[1.4] + [1] * len(shown))
    pictures = [(np.asarray(photo), "the photo", "black")]
    colours = [_LINES[1] if moved[s.concept] < 0 else _LINES[0] for s in shown]
    for sheet, colour in zip(shown, colours, strict=True):
        way = "less" if moved[sheet.concept] < 0 else "more"
        picture = sheet.photos[0] if sheet.drawn is None else np.clip(sheet.drawn, 0, 1)
        pictures.append((picture, f"{way} of concept {sheet.concept}", colour))
    for i, (picture, name, colour) in enumerate(pictures):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(as_photo(picture))
        axes.set_title(name, fontsize=8, color=colour)
        axes.set_axis_off()
    for i, sheet in enumerate(shown, start=1):
        axes = figure.add_subplot(grid[1, i])
        bounds = (0.0, max(float(np.nanmax(sheet.maps)), 1e-9))
        axes.imshow(heatmap_overlay(sheet.photos[0], sheet.maps[0], bounds=bounds))
        axes.set_axis_off()
    axes, places = figure.add_subplot(grid[1, 0]), np.arange(len(shown))
    axes.barh(places, [moved[s.concept] for s in shown], color=colours, height=0.65)
    axes.set_yticks(places, [f"{s.concept}" for s in shown], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(0, color=_FAINT, linewidth=0.6)
    axes.set_title("change of its code, everywhere", fontsize=8, color=_FAINT)
    _quiet(axes)
    text, style = plain(title or _verdict(change, image, labels), weight="bold")
    figure.suptitle(text, fontsize=10, **style)
    return figure


def _verdict(change: Any, image: int, labels: Sequence[str] | None) -> str:
    """Return which class wins, and its probability before and after; of a callable target its value."""
    index = int(change.classes[image])
    before, after = float(change.before[image]), float(change.after[image])
    if index < 0:
        return f"{before:.3g} becomes {after:.3g}"
    name = f"class {index}" if labels is None else str(labels[index]).replace("_", " ")
    wins = "wins" if bool(change.flipped[image]) else "does not win"
    return f"{name} {wins}: {before:.1%} becomes {after:.1%}"


def concept_page(
    sheets: Sequence[Any],
    *,
    path: str | os.PathLike | None = None,
    labels: Sequence[str] | None = None,
    photos: Sequence[str] | None = None,
    title: str = "Concepts",
) -> str:
    """Return the sheets of concepts as one self-contained HTML page, which needs no network.

    It shows what `concept_sheet` draws: the maps with their opacity and the raw value under the pointer, the
    classes and curves also as numbers. `jaxai concepts --html` writes it, too.

    Args:
        sheets: What `jaxai.concepts.concept_sheets` returns.
        path: A file to write; None writes none.
        labels: Names of the network's classes.
        photos: Names of the photos that were given to `concept_sheets`.
        title: Of the page.

    Returns:
        The page's HTML.

    Raises:
        ValueError: If there are no sheets.
        OSError: If the file cannot be written.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> photos = jax.random.uniform(jax.random.key(0), (8, 16, 16, 3))
        >>> sheets = jaxai.concepts.concept_sheets(
        ...     net, photos, jnp.eye(3), layer="features", which=2, steps=0, key=jax.random.key(1))
        >>> jaxai.plots.concept_page(sheets)[:15]
        '<!doctype html>'
    """
    # The report makes use of the pictures.
    from ..report import _concept_page

    if not len(sheets):
        raise ValueError("`sheets` must be what `concept_sheets` returns, at least one; got none")
    text = _concept_page.concept_page(sheets, labels=labels, photos=photos, title=title)
    if path is not None:
        _files.write(Path(path), [text.encode()])
    return text


def _bars(axes, sheet, names, colours):
    places = np.arange(len(names))
    # One photo has no standard errors, and no lines for them.
    errors = sheet.errors if np.isfinite(sheet.errors).any() else None
    axes.barh(places, sheet.effects, xerr=errors, color=colours, height=0.65, ecolor="#44474d")
    axes.set_yticks(places, names, fontsize=7, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color=_FAINT, linewidth=0.6)
    axes.set_title("logits lost without it", fontsize=8, color=_FAINT)
    _quiet(axes)


def _curves(axes, sheet, colours):
    for i, colour in enumerate(colours):
        mean, error = sheet.curves[:, i], sheet.curve_errors[:, i]
        axes.plot(sheet.factors, mean, color=colour, linewidth=1.2, marker="o", markersize=2.5)
        if np.isfinite(error).any():
            band = mean - error, mean + error
            axes.fill_between(sheet.factors, *band, color=colour, alpha=0.18, linewidth=0)
    axes.axvline(1, color=_FAINT, linewidth=0.6, linestyle="--")
    axes.set_ylim(0, None)
    axes.set_title("probability when it is scaled by", fontsize=8, color=_FAINT)
    _quiet(axes)


def _quiet(axes):
    axes.tick_params(labelsize=6.5, length=2, width=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_linewidth(0.5)
