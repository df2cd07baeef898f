"""Figures, files and pages of results without photos: superpixels, visualizations, comparisons, networks."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .. import _files, layers, plots
from .._frame import shown
from ..features import Visualization
from ..metrics import Comparison
from ..models import Pretrained
from . import _page
from ._figures import caption
from ._record import unsure
from ._shown import image

FIGURE, ARRAYS = "figure.png", "arrays.npz"
# Maps in one figure.
_MOST_DRAWN = 16


def figure(result: Any) -> Figure:
    """Return a result's figure."""
    if isinstance(result, Comparison):
        return plots.comparison(result)
    if isinstance(result, Pretrained):
        return network(result)
    if isinstance(result, tuple):
        if shown.known(result[0]) is None:
            raise ValueError("there is nothing to plot: the result has no values yet")
        return plots.curves(result, title=type(result).__name__)
    return images(result) if isinstance(result, Visualization) else superpixels(result)


def save(result: Any, folder: str | os.PathLike) -> None:
    """Write a result's figure and arrays into a folder; arrays that are not known are left out."""
    picture = plots.png(figure(result))
    arrays = {name: shown.known(array) for name, array in _arrays(result).items()}
    known: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    with _files.folder(Path(folder)) as new:
        (new / FIGURE).write_bytes(picture)
        # Weights hardly shrink, and there are many.
        write = np.savez if isinstance(result, Pretrained) else np.savez_compressed
        write(new / ARRAYS, **known)


def _arrays(result: Any) -> dict[str, Any]:
    if not hasattr(result, "_asdict"):
        return result._arrays()
    # Names of layers too.
    return {
        name: np.array(part) if isinstance(part, tuple) else part for name, part in result._asdict().items()
    }


def page(result: Any, path: str | os.PathLike | None) -> str:
    """Return a result's page, and write it if there is a path."""
    title, table = repr(result), getattr(result, "_repr_html_", lambda: None)()
    head = f"<header><h1>{_page.text(title)}</h1></header>"
    body = f"{head}<main>{image(figure(result), title)}{table or ''}</main>"
    text = _page.document(title, body, style=_page.file("page.css"), script="")
    if path is not None:
        _files.write(Path(path), [text.encode()])
    return text


def images(result: Visualization) -> Figure:
    """Return at most 64 images with their objectives at the last step."""
    drawn, history = shown.known(result.images), shown.known(result.history)
    if drawn is None or history is None or drawn.ndim != 4:
        raise ValueError("there is nothing to plot: the images are not an array of four axes")
    panels = []
    for i, one in enumerate(drawn[: shown.MOST_TILES]):
        last = f", objective {history[i, -1]:.3g}" if history.shape[-1] else ""
        panels.append(plots.photo_panel(np.clip(one, 0, 1), title=f"{i}{last}"))
    return plots.compose(panels, title=repr(result))


def network(net: Pretrained) -> Figure:
    """Return the layers of a network for one photo."""
    gray = np.full((net.input_size, net.input_size, 3), 0.5, np.float32)
    return plots.layers(layers.tree(net.model, net.preprocess(gray)), title=f"{net.name}: {net.summary}")


def superpixels(result: Any, photos: Any = None) -> Figure:
    """Return at most 16 maps of superpixels' values, over photos or over white."""
    values, labels = shown.known(result._values), shown.known(result.segments)
    if values is None or labels is None or values.ndim not in (2, 3) or labels.ndim != 3:
        raise ValueError("there is nothing to plot: the values are not arrays of one batch")
    errors = shown.known(getattr(result, "standard_error", None))
    under = np.ones((*labels.shape, 3), np.float32) if photos is None else np.asarray(photos)
    if under.shape[:3] != labels.shape:
        raise ValueError(
            f"`photos` must be [{', '.join(map(str, labels.shape))}, 3]; got {list(under.shape)}"
        )
    values = values.reshape(len(values), -1, values.shape[-1])
    errors = None if errors is None else errors.reshape(values.shape)
    panels = []
    for i, k in list(np.ndindex(*values.shape[:2]))[:_MOST_DRAWN]:
        unknown = None if errors is None else unsure(values[i, k], errors[i, k])
        panel = plots.heatmap_panel(
            under[i],
            values[i, k][labels[i]],
            title=f"image {i}" + (f", target {k}" if values.shape[1] > 1 else ""),
            signed=True,
            label="value of the superpixel",
            hatched=None if unknown is None else unknown[labels[i]],
        )
        panels.append(replace(panel, caption=caption(unknown)))
    return plots.compose(panels, title=repr(result))
