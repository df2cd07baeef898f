"""Figures for papers: panels side by side, with titles and, where colours represent numbers, colour bars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int, Real
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from ._colors import DIVERGING, SEQUENTIAL, colorize, colormap, limits
from ._output import Picture
from ._pixels import Photo, as_photo, heatmap_overlay, segment_mask, signed_pixels
from ._texts import plain

_SIDE = 2.9  # inches per panel
_BAR = 0.62  # inches of a colour bar with its numbers


@dataclass(frozen=True)
class Bar:
    """The meaning of a panel's colours.

    Attributes:
        cmap: Name of the colour map.
        low: Value at the lower end.
        high: Value at the upper end.
        label: The quantity and its unit.
    """

    cmap: str
    low: float
    high: float
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    Attributes:
        image: uint8 [height, width, 3].
        title: One or two lines above it, drawn literally: `$` and `_` have no special meaning.
        bar: Its colour bar; None where colours are the photo's own.
        caption: Lines below it, such as scores.
    """

    image: ndarray
    title: str = ""
    bar: Bar | None = None
    caption: str = ""


def photo_panel(photo: Photo, *, title: str = "") -> Panel:
    """Return a photo as a panel.

    Args:
        photo: uint8, or float in [0, 1], [height, width, 3], or one channel.
        title: Above the panel, taken literally.
    """
    return Panel(np.round(as_photo(photo) * 255).astype(np.uint8), title)


def heatmap_panel(
    photo: Photo,
    heatmap: Float[ArrayLike, "height width"],
    *,
    title: str = "",
    signed: bool = False,
    label: str = "",
    bounds: tuple[float, float] | None = None,
    hatched: Bool[ArrayLike, "height width"] | None = None,
) -> Panel:
    """Return `heatmap_overlay` as a panel with its colour bar in the map's own values.

    Args:
        photo: uint8, or float in [0, 1].
        heatmap: Of the photo's size.
        title: Above the panel, taken literally.
        signed: Whether negative values have their own colours.
        label: Unit beside the colour bar.
        bounds: Values at the two ends of the bar, for panels that share one; None: those of this map.
        hatched: Pixels that are hatched, such as those whose value may be zero.
    """
    bounds = limits(heatmap, signed=signed) if bounds is None else bounds
    image = heatmap_overlay(photo, heatmap, signed=signed, bounds=bounds, hatched=hatched)
    return Panel(image, title, Bar(DIVERGING if signed else SEQUENTIAL, *bounds, label))


def pixels_panel(
    attributions: Real[ArrayLike, "height width *channels"],
    *,
    title: str = "",
    percentile: float = 99.0,
    label: str = "",
    bounds: tuple[float, float] | None = None,
    signed: bool = True,
) -> Panel:
    """Return `signed_pixels` as a panel with its colour bar.

    Args:
        attributions: Signed values per pixel and channel, or [height, width].
        title: Above the panel, taken literally.
        percentile: Magnitudes above this percentile take the full colour.
        label: Unit beside the colour bar.
        bounds: Values at the two ends of the bar instead, for panels that share one.
        signed: False for values that are never negative, such as squares: they have `SEQUENTIAL` colours.
    """
    values = np.asarray(attributions, np.float64)
    values = values.sum(-1) if values.ndim == 3 else values
    if not signed:
        bounds = limits(values, percentile=percentile) if bounds is None else bounds
        return Panel(colorize(values, bounds=bounds), title, Bar(SEQUENTIAL, *bounds, label))
    bounds = limits(values, signed=True, percentile=percentile) if bounds is None else bounds
    return Panel(signed_pixels(values, bounds=bounds), title, Bar(DIVERGING, *bounds, label))


def segments_panel(
    photo: Photo,
    segments: Int[ArrayLike, "height width"],
    weights: Float[ArrayLike, " segments"],
    *,
    title: str = "",
    regions: int = 5,
    hatched: Bool[ArrayLike, " segments"] | None = None,
) -> Panel:
    """Return `segment_mask` as a panel.

    Args:
        photo: uint8, or float in [0, 1].
        segments: Labels 0 to S - 1, integers of any type.
        weights: One per label.
        title: Above the panel, taken literally.
        regions: At most this many superpixels, the largest weights first.
        hatched: Superpixels that are hatched where they are shown, such as those whose weight may be zero.
    """
    return Panel(segment_mask(photo, segments, weights, regions=regions, hatched=hatched), title)


def compose(panels: Sequence[Panel], *, title: str = "", columns: int | None = None) -> Figure:
    """Put panels into one figure, row by row.

    Args:
        panels: At least one; all cells are equally large.
        title: A line above all of them, such as the class and its score.
        columns: Panels in a row; None means up to four.

    Returns:
        A Matplotlib figure with an Agg canvas; `png` writes it, `render` turns it into pixels.

    Raises:
        ValueError: If there is no panel.
    """
    if not panels:
        raise ValueError("`panels` must hold at least one panel; got none")
    columns = min(len(panels), 4) if columns is None else columns
    rows = -(-len(panels) // columns)
    ratio = float(np.median([panel.image.shape[0] / panel.image.shape[1] for panel in panels]))
    bars = any(panel.bar for panel in panels)
    lines = max(panel.title.count("\n") + 1 if panel.title else 0 for panel in panels)
    below = max(panel.caption.count("\n") + 1 if panel.caption else 0 for panel in panels)
    width = columns * (_SIDE + (_BAR if bars else 0.1))
    height = rows * (_SIDE * ratio + 0.1 + 0.19 * lines + 0.16 * below) + (0.36 if title else 0.05)
    layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05, wspace=0.0, hspace=0.0)
    figure = Picture(figsize=(width, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.imshow(panel.image, interpolation="bilinear" if min(panel.image.shape[:2]) > 64 else "nearest")
        text, style = plain(panel.title)
        axes.set_title(text, fontsize=10, **style)
        if panel.caption:
            text, style = plain(panel.caption)
            place = {
                "xy": (0.5, 0),
                "xycoords": "axes fraction",
                "xytext": (0, -4),
                "textcoords": "offset points",
            }
            axes.annotate(text, **place, ha="center", va="top", fontsize=8, color="#444444", **style)
        if panel.bar:
            _draw_bar(figure, axes, panel.bar)
    if title:
        text, style = plain(title, weight="bold")
        figure.suptitle(text, fontsize=12, **style)
    # The layout makes room for captions where the pictures were before it: it settles after a few rounds.
    for _ in range(2 if below else 0):
        layout.execute(figure)
    return figure


def pair(
    before: Photo,
    after: Photo,
    *,
    titles: tuple[str, str] = ("before", "after"),
    title: str = "",
) -> Figure:
    """Show a picture before and after, such as a dream.

    Args:
        before: Pixels in [0, 1], RGB or grey.
        after: Pixels in [0, 1], RGB or grey.
        titles: Above the two.
        title: A line above both.
    """
    return compose(
        [photo_panel(photo, title=text) for photo, text in zip((before, after), titles, strict=True)],
        title=title,
    )


def _draw_bar(figure: Figure, axes, bar: Bar) -> None:
    mappable = ScalarMappable(Normalize(bar.low, bar.high), colormap(bar.cmap))
    drawn = figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.02, aspect=22)
    drawn.locator = MaxNLocator(nbins=4, symmetric=bar.low == -bar.high)
    drawn.ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    drawn.update_ticks()
    drawn.outline.set_linewidth(0.5)
    drawn.ax.tick_params(labelsize=7, width=0.5, length=2)
    drawn.ax.yaxis.get_offset_text().set_fontsize(7)
    if bar.label:
        text, style = plain(bar.label)
        drawn.set_label(text, fontsize=8, **style)
