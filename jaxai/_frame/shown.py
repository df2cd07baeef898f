"""Representations of results in notebooks without figures: short lines, tables and images."""

import html
import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from .._files import shown as readable

_GAP = 4
MOST_TILES = 64


def known(values: Any) -> np.ndarray | None:
    """Return an array's values; None if there are none yet, as while JAX traces."""
    if values is None or isinstance(values, Tracer) or not hasattr(values, "dtype"):
        return None
    if isinstance(values, jax.ShapeDtypeStruct) or not hasattr(values, "__array__"):
        return None
    return np.asarray(values)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "image"), counted(3, "image")
        ('1 image', '3 images')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def table(head: Sequence[object], rows: Sequence[Sequence[object]], *, caption: str = "") -> str:
    """Return an HTML table of texts, which are escaped."""

    def line(cells: Sequence[object], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(readable(cell, 200))}</{tag}>' for cell in cells)}</tr>"

    title = f"<caption>{html.escape(readable(caption, 300))}</caption>" if caption else ""
    body = "".join(line(row, "td") for row in rows)
    return f"<table>{title}<thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def tiles(images: np.ndarray) -> bytes:
    """Return images [N, height, width, channels] in [0, 1] side by side, at most 64, as a PNG file."""
    from PIL import Image

    images = np.asarray(images, np.float32)[:MOST_TILES]
    pixels = np.round(np.clip(np.nan_to_num(images), 0, 1) * 255).astype(np.uint8)
    pixels = np.broadcast_to(pixels[..., :3], (*pixels.shape[:3], 3))
    count, height, width = pixels.shape[:3]
    across = min(count, 8)
    down = -(-count // across)
    sheet = np.full((down * (height + _GAP) - _GAP, across * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, tile in enumerate(pixels):
        top, left = i // across * (height + _GAP), i % across * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "png")
    return buffer.getvalue()
