"""The table of a comparison as a picture: one panel per metric, one line per method."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from ._output import Picture, light
from ._texts import plain

_WIDTH = 2.35  # inches per metric
_LINE = 0.235  # inches per row
_COST = 1.75  # inches of the column of costs
_ACROSS = 4
_INK, _BEST, _FAINT = "#1f3b63", "#c2410c", "#8a8f98"


def comparison(table: Any, *, title: str = "", columns: int | None = None) -> Figure:
    """Draw the result of `jaxai.metrics.compare`: means and intervals of every row in every metric.

    Methods stand above the line and references, hollow and grey, below it. The best method of a metric is
    orange, and the level of chance, where it is known, a dashed line. Scores of a single image have no
    intervals. Seconds and passes of the network per image stand beside the methods.

    Args:
        table: A `jaxai.metrics.Comparison`.
        title: A line above all panels.
        columns: Metrics in a row; None: up to four.

    Returns:
        A Matplotlib figure with an Agg canvas; `png` writes it, `render` turns it into pixels.
    """
    count = len(table.metrics)
    across = min(count, _ACROSS) if columns is None else columns
    down = -(-count // across)
    names = [_short(row) for row in table.rows]
    label = 0.075 * max(map(len, names)) + 0.2
    cost = _COST if table.seconds or table.passes else 0.0
    tall = len(names) * _LINE + 0.62
    width = label + across * _WIDTH + cost
    height = down * tall + (0.35 if title else 0.0) + 0.3
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.04)
    figure = Picture(figsize=(width, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    ratios = [_WIDTH] * across + ([cost] if cost else [])
    grid = figure.subplots(down, len(ratios), squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.set_axis_off()
    means, ends, best = table.means, table.intervals, table.best
    for place in range(count):
        axes = grid[place // across, place % across]
        axes.set_axis_on()
        _panel(axes, table, names, place, means[:, place], ends[:, place], best[place])
        if place % across:
            axes.set_yticklabels([])
    if cost:
        for row in grid:
            _costs(row[-1], table, names)
    if title:
        text, style = plain(title, weight="bold")
        figure.suptitle(text, fontsize=12, **style)
    figure.supxlabel(_caption(table, width), fontsize=7.5, color=_FAINT)
    return figure


def _caption(table, width):
    if np.isfinite(table.intervals).any():
        parts = [f"mean over {table.scores.shape[-1]} images, {table.confidence:.0%} bootstrap interval"]
    else:
        parts = ["too few images for intervals"]
    parts += ["orange: best method"] + (["hollow: references"] if table.references else [])
    parts += ["dashed: chance"] if table.chance else []
    return "\n".join(textwrap.wrap("; ".join(parts), max(24, int(width * 15))))


def _short(name, most=28):
    text = plain(name)[0].replace("\n", " ")
    return text if len(text) <= most else text[: most - 1] + "…"


def _lines(table):
    """Return the heights of the rows, with a gap between methods and references."""
    number = len(table.methods)
    return np.array([i + (0.5 if i >= number else 0.0) for i in range(len(table.rows))])


def _frame(axes, table):
    lines = _lines(table)
    axes.set_ylim(lines[-1] + 0.6, -0.6)
    if table.references:
        axes.axhline(len(table.methods) - 0.25, color=_FAINT, linewidth=0.6)
    return lines


def _panel(axes, table, names, place, means, ends, best):
    lines = _frame(axes, table)
    known = np.isfinite(means)
    spread = np.abs(means[known]).max(initial=0.0)
    for i, line in enumerate(lines):
        method = i < len(table.methods)
        color = _BEST if i == best else _INK if method else _FAINT
        if not known[i]:
            axes.text(
                0.5, line, "–", ha="center", va="center", transform=_across(axes), color=_FAINT, fontsize=8
            )
            continue
        if np.isfinite(ends[i]).all():
            axes.hlines(line, *ends[i], color=color, linewidth=1.6, alpha=0.75)
        axes.plot(
            means[i], line, "o", markersize=4.5, color=color, markerfacecolor=color if method else "white"
        )
        style = {"color": color, "fontweight": "bold" if i == best else "normal"}
        text = _number(means[i], spread)
        axes.text(1.02, line, text, transform=_across(axes), va="center", fontsize=7, **style)
    if table.metrics[place] in table.chance:
        axes.axvline(table.chance[table.metrics[place]], color=_FAINT, linestyle="--", linewidth=0.9)
    arrow = "higher is better" if table.better[place] == "higher" else "lower is better"
    text, style = plain(table.metrics[place].replace("_", " "), weight="bold")
    axes.set_title(text, fontsize=8.5, loc="left", pad=13, **style)
    axes.text(0, 1.0, arrow, transform=axes.transAxes, fontsize=6.5, color=_FAINT, va="bottom")
    axes.set_yticks(lines, names, fontsize=8, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7, length=2.5, width=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.margins(x=0.08)
    light(axes, grid="x", hidden=("top", "right", "left"))
    axes.spines["bottom"].set_linewidth(0.6)


def _across(axes):
    """Return coordinates of the panel's width and of the rows."""
    return axes.get_yaxis_transform()


def _costs(axes, table, names):
    lines = _frame(axes, table)
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    heads = [(0.16, "s")] + ([(0.38, "passes")] if table.passes else [])
    for x, head in heads:
        axes.text(x, 1.0, head, transform=axes.transAxes, fontsize=6.5, color=_FAINT, va="bottom")
    for line, row in zip(lines, table.rows, strict=True):
        if row in table.seconds:
            axes.text(0.16, line, f"{table.seconds[row]:.2g}", va="center", fontsize=7, color=_INK)
        if row in table.passes:
            axes.text(0.38, line, _short(table.passes[row], 22), va="center", fontsize=7, color=_INK)


def _number(value, spread):
    """Return a number with two decimals, or two digits where a panel's values are small or large."""
    text = f"{value:.2f}" if 0.05 <= spread < 1000 else f"{value:.2g}"
    return text.replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")
