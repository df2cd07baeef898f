"""Photo files for tests, byte by byte: what Pillow cannot write, and what no program should."""

import struct
import zlib

import numpy as np


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
