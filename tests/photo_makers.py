"""What tests of photos share: images, files byte by byte where Pillow cannot write them, and their pixels."""

import functools
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxai.models import PhotoNote, fit


def png_block(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *blocks):
    """A PNG of bytes that hold the rows, without filters; `blocks` stand before the pixels."""
    size = len(rows) // height
    lines = b"".join(b"\0" + rows[i * size : (i + 1) * size] for i in range(height))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_block(b"IHDR", head),
            *blocks,
            png_block(b"IDAT", zlib.compress(lines)),
            png_block(b"IEND", b""),
        ]
    )


def tiff(width, height, data, *, bits=(8,), photometric=1, order="<", **more):
    """An uncompressed TIFF in one strip; `more` are tags by their number, as `tag338=(0,)`: SHORTs."""
    tags = {
        256: (width,),
        257: (height,),
        258: bits,
        259: (1,),
        262: (photometric,),
        277: (len(bits),),
        278: (height,),
        279: (len(data),),
        **{int(name[3:]): values for name, values in more.items()},
    }
    count = len(tags) + 1
    after = 8 + 2 + 12 * count + 4
    long_values = b""
    entries = []
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'I' if tag == 279 else 'H'}", *values)
        kind = 4 if tag == 279 else 3
        if len(packed) > 4:
            place = after + len(long_values)
            long_values += packed
            packed = struct.pack(f"{order}I", place)
        entries.append((tag, kind, len(values), packed.ljust(4, b"\0")))
    entries.append((273, 4, 1, struct.pack(f"{order}I", after + len(long_values))))
    directory = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return (
        head
        + struct.pack(f"{order}H", count)
        + directory
        + struct.pack(f"{order}I", 0)
        + long_values
        + bytes(data)
    )


def twelve_bits(values):
    """Pack numbers of 12 bits, an even number of them in each row, two into three bytes."""
    first, second = (np.asarray(values, np.uint32).reshape(-1, 2)[:, i] for i in (0, 1))
    pairs = (first << 12) | second
    return np.stack([pairs >> 16, (pairs >> 8) & 255, pairs & 255], -1).astype(np.uint8).tobytes()


def exif(orientation, *entries, order="<", tail=b""):
    """An EXIF block with an orientation and further raw entries (tag, type, count, four bytes)."""
    entries = sorted([(0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)), *entries])
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0" + head + body + struct.pack(order + "I", 0) + tail


DEEP = ("I;16", "I;16B", "I", "F")


whole = functools.partial(fit, longest=99)


def quiet(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhotoNote)
        return np.asarray(whole(*arguments, **options))[0]


def opened(path, read=quiet, **options):
    """What is read of a Pillow image that was opened by name."""
    with Image.open(path) as image:
        return read(image, **options)


def notes(photo, **options):
    """What is said about a photo, and its pixels."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels = np.asarray(whole(photo, **options))[0]
    assert all(warning.category is PhotoNote and "\n" not in str(warning.message) for warning in caught)
    return [str(warning.message) for warning in caught], pixels


opened_notes = functools.partial(opened, read=notes)


def refused(photo, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        whole(photo, **options)
    assert type(caught.value) is ValueError and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def needs(suffix):
    Image.init()
    if suffix == "avif" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")


def picture(mode):
    """A Pillow image of 12 rows and 20 columns without any symmetry."""
    rng = np.random.default_rng(len(mode))
    if mode in ("I;16", "I;16B"):
        values = rng.integers(0, 65536, (12, 20)).astype("<u2" if mode == "I;16" else ">u2")
        return (
            Image.fromarray(values) if mode == "I;16" else Image.frombytes(mode, (20, 12), values.tobytes())
        )
    if mode == "I":
        return Image.fromarray(rng.integers(0, 65536, (12, 20)).astype(np.int32))
    if mode == "F":
        return Image.fromarray(rng.random((12, 20), np.float32))
    bands = rng.integers(0, 256, (12, 20, 4), dtype=np.uint8)
    if mode == "smooth":
        ramps = np.stack([*np.indices((12, 20)) * 9, np.indices((12, 20)).sum(0) * 8], -1)
        return Image.fromarray(ramps.astype(np.uint8))
    if mode in ("P", "PA"):
        image = Image.fromarray(bands[..., :3]).quantize(16)
        return image if mode == "P" else Image.merge("PA", [image.copy().convert("L"), image.convert("L")])
    number = len(Image.new(mode, (1, 1)).getbands())
    if mode == "1":
        return Image.fromarray(bands[..., 0] > 99)
    return Image.frombytes(mode, (20, 12), np.ascontiguousarray(bands[..., :number]).tobytes())


def values(image):
    """The pixels of an image in [0, 1], by Pillow's conversion of the whole."""
    if image.mode in DEEP:
        array = np.asarray(image).astype(np.float32)
        array = array if image.mode == "F" else array / np.float32(65535)
        return np.stack([array] * 3, -1)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255,) * 4), layers)
    return np.asarray(image.convert("RGB"), np.float32) / 255
