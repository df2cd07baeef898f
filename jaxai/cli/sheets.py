"""Contact sheets: many small images with their names beneath."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 6
_SMALLEST = 9
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Return an image in [0, 1] as uint8 RGB; one channel becomes grey."""
    pixels = np.round(np.clip(np.asarray(image, np.float32), 0, 1) * 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def contact_sheet(
    images: Sequence[np.ndarray], labels: Sequence[str] | None = None, *, columns: int | None = None
) -> Image.Image:
    """Return a sheet of images [height, width, channels] in [0, 1], all of one size, row by row.

    Args:
        images: At least one.
        labels: One short name per image; None leaves no space for names.
        columns: None makes the sheet about as wide as it is high.
    """
    tiles = [as_bytes(image) for image in images]
    height, width = tiles[0].shape[:2]
    columns = columns or min(len(tiles), round(np.ceil(np.sqrt(len(tiles) * 1.6))))
    rows = -(-len(tiles) // columns)
    font, points = _font(labels or (), width)
    strip = round(points * 1.5) if labels else 0
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + strip + _GAP) + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, tile in enumerate(tiles):
        left = _GAP + (i % columns) * (width + _GAP)
        top = _GAP + (i // columns) * (height + strip + _GAP)
        sheet.paste(Image.fromarray(tile), (left, top))
        if labels:
            pen.text((left, top + height + 1), _fit(pen, labels[i], font, width), _INK, font)
    return sheet


def _font(labels, width):
    """Return a font and its size: the largest, of those for this width, at which every label fits."""
    points = max(_SMALLEST, min(18, width // 11))
    font = ImageFont.load_default(points)
    while points > _SMALLEST and any(font.getlength(label) > width for label in labels):
        points -= 1
        font = ImageFont.load_default(points)
    return font, points


def _fit(pen, text, font, width):
    """Return `text`, cut where it would be wider than `width`."""
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
