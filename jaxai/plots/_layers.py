"""The layers of a network as a picture: one bar per layer."""

import math
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ._output import Picture, light
from ._texts import plain

_LINE = 0.2  # inches per layer
_INK, _DEFAULT, _FAINT = "#1f3b63", "#c2410c", "#8a8f98"
_LONGEST = 44  # characters of a layer's name
_MOST = 300  # layers, the last ones: taller pictures cannot be drawn


def layers(tree: Any, *, title: str = "") -> Figure:
    """Draw the layers of a network in forward order: the numbers in each one's activations of one image.

    The bar of the layer that methods explain by default is orange; hollow bars are layers without positions
    on the image, for which class activation maps do not exist. At most 300 layers are drawn, the last ones.

    Args:
        tree: A `jaxai.layers.Tree`, as `jaxai.layers.tree` returns it.
        title: A line above the bars.

    Returns:
        A Matplotlib figure with an Agg canvas; `png` writes it, `render` turns it into pixels.

    Raises:
        ValueError: If there are no layers.
    """
    if not tree.shapes:
        raise ValueError("there is nothing to plot: the network has no layers")
    left_out = max(len(tree.shapes) - _MOST, 0)
    shapes = dict(list(tree.shapes.items())[left_out:])
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04)
    height = len(shapes) * _LINE + (0.35 if title else 0.0) + 0.6
    figure = Picture(figsize=(7.0, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for line, (name, shape) in enumerate(shapes.items()):
        color = _DEFAULT if name == tree.default else _INK
        hollow = tree.layouts.get(name) is None
        numbers = math.prod(shape.shape[1:])
        axes.barh(line, numbers, 0.7, facecolor="white" if hollow else color, edgecolor=color, linewidth=0.8)
        axes.annotate(
            " \N{MULTIPLICATION SIGN} ".join(map(str, shape.shape[1:])) or "1",
            (numbers, line),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=color,
        )
    axes.set_yticks(range(len(shapes)), map(_short, shapes), fontsize=7.5, parse_math=False)
    axes.set_ylim(len(shapes) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(left=0.8)
    axes.margins(x=0.12)
    axes.minorticks_off()
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7, length=2.5, width=0.6)
    light(axes, grid="x", hidden=("top", "right", "left"))
    text = "numbers per image; orange: default layer; hollow: no positions on the image"
    if left_out:
        text += f"; the first {left_out} layers are not drawn"
    axes.set_xlabel(text, fontsize=7.5, color=_FAINT)
    if title:
        shown, style = plain(title, weight="bold")
        figure.suptitle(shown, fontsize=10, **style)
    return figure


def _short(name: str) -> str:
    text = plain(name)[0].replace("\n", " ")
    return text if len(text) <= _LONGEST else "…" + text[1 - _LONGEST :]
