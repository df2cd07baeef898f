"""Image orientation: reading it from files' metadata, and rotating rows of the image upright."""

import re
import struct

from PIL import Image, TiffImagePlugin

_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])


def of_pillow(image: Image.Image) -> Image.Transpose | None:
    """Return the rotation that makes a user's image upright; its EXIF block may have been edited."""
    try:
        number = image.getexif().get(_ORIENTATION)
    except Exception:
        return None
    return TURNS.get(number) if isinstance(number, int) else None


def of_file(image: Image.Image) -> Image.Transpose | None:
    """Return the rotation that makes an image upright, by its TIFF tag, EXIF block or else XMP packet.

    Pillow's reader stops at the first entry that is damaged; here all others are ignored.
    """
    info = image.info
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            number = image.tag_v2.get(_ORIENTATION)
        elif "exif" in info:
            number = _exif_orientation(info["exif"])
        else:
            # How ImageMagick stores the block in a PNG: three lines of heading, then digits.
            lines = info.get("Raw profile type exif", "").split("\n")
            number = _exif_orientation(bytes.fromhex("".join(lines[3:])))
    except Exception:
        number = None
    if number is None:
        packet = info.get("xmp", info.get("XML:com.adobe.xmp", b""))
        packet = packet.encode() if isinstance(packet, str) else packet
        found = re.search(rb"tiff:Orientation(?:=\"|>)([1-8])", packet) if isinstance(packet, bytes) else None
        number = int(found[1]) if found else None
    return TURNS.get(number) if isinstance(number, int) else None


def _exif_orientation(block: bytes) -> int | None:
    block = re.sub(rb"^(Exif\0\0)+", b"", block)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return None
    try:
        (place,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, place)
        for start in range(place + 2, place + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(f"{order}HHI4s", block, start)
            if tag == _ORIENTATION and count == 1 and kind in (3, 4):
                return struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
    except struct.error:
        pass
    return None


def rows(image: Image.Image, turn: Image.Transpose | None, low: int, high: int) -> Image.Image:
    """Return rows of the turned image, which are rows or columns of the stored one, first or last."""
    width, height = image.size
    box = {
        None: (0, low, width, high),
        Image.Transpose.FLIP_LEFT_RIGHT: (0, low, width, high),
        Image.Transpose.ROTATE_180: (0, height - high, width, height - low),
        Image.Transpose.FLIP_TOP_BOTTOM: (0, height - high, width, height - low),
        Image.Transpose.TRANSPOSE: (low, 0, high, height),
        Image.Transpose.ROTATE_270: (low, 0, high, height),
        Image.Transpose.TRANSVERSE: (width - high, 0, width - low, height),
        Image.Transpose.ROTATE_90: (width - high, 0, width - low, height),
    }[turn]
    part = image if box == (0, 0, width, height) else image.crop(box)
    return part if turn is None else part.transpose(turn)
