"""Swapped cells as a picture: which region of a photo was replaced by which of another."""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from ._output import Picture
from ._pixels import as_photo
from ._texts import plain

_SIDE = 2.9  # inches per photo
_COLOURS = ("#f59e0b", "#22d3ee", "#a3e635", "#f472b6", "#c084fc", "#f87171", "#34d399", "#fde047")


def swapped_cells(photo: Any, distractors: Any, swaps: Any, *, image: int = 0, title: str = "") -> Figure:
    """Draw what `jaxai.concepts.counterfactuals.swap_cells` found: numbered cells and where they come from.

    Args:
        photo: The image as a photo, float in [0, 1], [height, width, 3].
        distractors: Its distractor, likewise, or m of them [m, height, width, 3].
        swaps: The `Swaps`.
        image: Which of its images.
        title: A line above both.

    Returns:
        A Matplotlib figure with an Agg canvas; `png` writes it, `render` turns it into pixels.
    """
    others = np.asarray(distractors)
    pictures = [np.asarray(photo), *(others if others.ndim == 4 else others[None])]
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04)
    size = (_SIDE * len(pictures) + 0.2, _SIDE + 0.3 + (0.3 if title else 0))
    figure = Picture(figsize=size, dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(pictures), squeeze=False)[0]
    names = ["replaced", *(["by"] * (len(pictures) - 1))]
    for axes, picture, name in zip(grid, pictures, names, strict=True):
        axes.imshow(as_photo(picture))
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    for number in range(int(swaps.count[image])):
        colour = _COLOURS[number % len(_COLOURS)]
        which, row, column = np.asarray(swaps.sources[image, number])
        _cell(grid[0], pictures[0], swaps.grid, np.asarray(swaps.cells[image, number]), number + 1, colour)
        _cell(grid[1 + which], pictures[1 + which], swaps.grid, (row, column), number + 1, colour)
    if title:
        text, style = plain(title, weight="bold")
        figure.suptitle(text, fontsize=11, **style)
    return figure


def _cell(axes, picture, grid, cell, number, colour):
    high, wide = (side / count for side, count in zip(picture.shape[:2], grid, strict=True))
    top, left = cell[0] * high - 0.5, cell[1] * wide - 0.5
    axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=colour, linewidth=1.6))
    label = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
    behind = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.2}
    axes.text(left + wide / 2, top + high / 2, str(number), bbox=behind, **label)
