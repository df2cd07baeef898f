"""Display of results in notebooks: pictures in HTML, and escaped text."""

import base64
import html

from matplotlib.figure import Figure
from numpy import ndarray

from .. import _files, plots


def readable(text: object, limit: int = 200) -> str:
    """Return text fit for one line: no control characters, at most `limit` characters."""
    return _files.shown(text, limit)


def image(picture: Figure | ndarray, text: str) -> str:
    """Return a figure or pixels as an HTML image that holds its own bytes.

    Args:
        picture: As `jaxai.plots.png` takes it.
        text: Alternative text.
    """
    data = base64.b64encode(plots.png(picture)).decode()
    return (
        f'<img style="max-width:100%" alt="{html.escape(readable(text))}" src="data:image/png;base64,{data}">'
    )
