"""The curves of metrics as a picture."""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ._output import Picture, light
from ._texts import plain

_FIRST, _SECOND, _FAINT = "#c2410c", "#1f3b63", "#8a8f98"
_POINTS = 201


def curves(result: Any, *, title: str = "") -> Figure:
    """Draw the curves of a metric: a thin line for each image and target, and their mean.

    Between the curves of most and least relevant first lies the gain, which is shaded.

    Args:
        result: A `Curve`, `RelevanceGain`, `Road`, `InformationCurve` or `Randomization` of `jaxai.metrics`.
        title: A line above the curves.

    Returns:
        A Matplotlib figure with an Agg canvas; `png` writes it, `render` turns it into pixels.

    Raises:
        TypeError: If the result has no curve.
    """
    figure = Picture(figsize=(4.2, 3.0), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    means = []
    for (name, values), color in zip(_lines(result).items(), (_FIRST, _SECOND), strict=False):
        shares = _shares(result, values)
        across = np.linspace(shares.min(), shares.max(), _POINTS)
        if len(values) > 1:
            for x, y in zip(shares, values, strict=True):
                axes.plot(x, y, color=color, linewidth=0.6, alpha=0.35)
        # Images may have other shares than their neighbours, as with superpixels.
        mean = np.mean([np.interp(across, x, y) for x, y in zip(shares, values, strict=True)], axis=0)
        axes.plot(across, mean, color=color, linewidth=2, label=name)
        means.append(mean)
    if len(means) == 2:
        axes.fill_between(across, *means, color=_FAINT, alpha=0.2, linewidth=0)
        axes.legend(fontsize=7, frameon=False)
    _label(axes, result)
    if len(values) > 1:
        text, style = f"thick: mean of {len(values)} curves", {"fontsize": 7, "color": _FAINT}
        axes.text(1, 1.01, text, transform=axes.transAxes, ha="right", va="bottom", **style)
    if title:
        shown, style = plain(title, weight="bold")
        figure.suptitle(shown, fontsize=9, **style)
    return figure


def _lines(result) -> dict[str, np.ndarray]:
    """Return the curves, [images and targets, points], by name."""
    if hasattr(result, "most_first"):
        found = {"most relevant first": result.most_first, "least relevant first": result.least_first}
    elif hasattr(result, "similarity"):
        found = {"similarity": result.similarity}
    elif hasattr(result, "curve"):
        found = {"score": result.curve}
    else:
        raise TypeError(f"`result` must have a curve, as that of jaxai.metrics.deletion; got {type(result)}")
    return {
        name: np.reshape(np.asarray(values), (-1, np.shape(values)[-1])) for name, values in found.items()
    }


def _shares(result, values):
    """Return where each of the values lies on the horizontal axis, of their shape."""
    if not hasattr(result, "share"):
        end = 1 if hasattr(result, "information") else values.shape[-1] - 1
        return np.broadcast_to(np.linspace(0, end, values.shape[-1]), values.shape)
    share = np.atleast_2d(np.asarray(result.share))
    # Targets lie inside images.
    return np.broadcast_to(np.repeat(share, len(values) // len(share), axis=0), values.shape)


def _label(axes, result):
    style = {"fontsize": 7.5, "color": _FAINT}
    if hasattr(result, "similarity"):
        axes.set_ylabel("similarity to the map of the trained network", **style)
        axes.set_xlabel("layers drawn anew, in this order", **style)
        axes.set_xticks(range(len(result.layers)), [plain(name)[0][-24:] for name in result.layers])
        axes.tick_params(axis="x", labelrotation=90)
    elif hasattr(result, "information"):
        axes.set_ylabel("output, from 0 (blurred) to 1 (whole image)", **style)
        axes.set_xlabel("information shown", **style)
    else:
        axes.set_ylabel("score", **style)
        changed = "removed" if hasattr(result, "most_first") else "removed or shown"
        axes.set_xlabel(f"share of pixels or superpixels {changed}", **style)
    axes.tick_params(labelsize=7, length=2.5, width=0.6)
    light(axes, grid="both", hidden=("top", "right"))
