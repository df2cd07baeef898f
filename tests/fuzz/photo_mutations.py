"""Photo files that are almost right: every format taken apart, changed where it matters, and put together."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image

_SIDES = (0, 1, 2, 7, 12, 255, 256, 4095, 16383, 32767, 65535, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
_TIFF_TAGS = (
    *(
        254,
        256,
        257,
        258,
        259,
        262,
        266,
        273,
        274,
        277,
        278,
        279,
        282,
        284,
        296,
        317,
        320,
        322,
        323,
        324,
        325,
    ),
    *(330, 338, 339, 347, 529, 530, 532, 700, 33723, 34377, 34665, 34675, 34853, 40965, 65000),
)
_OTHERS = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\nshowpage\n%%EOF\n",
    "binary eps": b"\xc5\xd0\xd3\xc6"
    + struct.pack("<IIIIII", 30, 40, 0, 0, 0, 0)
    + b"\xff\xff%!PS-Adobe-3.0\n",
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
    "wmf": struct.pack("<IHhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 20, 12, 72, 0, 0) + b"\1\0\x09\0\0\3" + bytes(80),
    "emf": struct.pack("<II", 1, 108) + bytes(32) + b" EMF" + bytes(80),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 12, 20, 8, 3) + bytes(60),
    "ico": struct.pack("<HHH", 0, 1, 1) + bytes(60),
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(90),
    "grib": b"GRIB" + bytes(90),
    "mpeg": b"\0\0\1\xb3" + bytes(60),
    "xpm": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #fff", "a"};',
    "text": b"Ceci n'est pas une photo.\n" * 9,
    "script": b"#!/bin/sh\ntouch started\n",
    "zip": b"PK\3\4" + bytes(60),
    "nothing": b"",
}
# Photos that are right, by a name: format, mode, and options for Pillow.
_PHOTOS = {
    **{f"png {mode}": ("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "I;16", "RGB", "RGBA")},
    "png text": ("PNG", "RGB", {"dpi": (72, 72), "icc_profile": bytes(200)}),
    **{f"jpeg {mode}": ("JPEG", mode, {"quality": 90}) for mode in ("L", "RGB", "CMYK")},
    "jpeg progressive": (
        "JPEG",
        "RGB",
        {"progressive": True, "icc_profile": bytes(200), "comment": b"hello"},
    ),
    "jpeg restarts": ("JPEG", "RGB", {"restart_marker_blocks": 1, "subsampling": 0}),
    **{f"gif {mode}": ("GIF", mode, {}) for mode in ("L", "P")},
    "gif frames": ("GIF", "P", {"save_all": True, "frames": 3}),
    "webp lossless": ("WEBP", "RGBA", {"lossless": True}),
    "webp lossy": ("WEBP", "RGB", {"icc_profile": bytes(200)}),
    "webp frames": ("WEBP", "RGB", {"save_all": True, "frames": 3}),
    "apng": ("PNG", "RGB", {"save_all": True, "frames": 3}),
    **{f"bmp {mode}": ("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")},
    **{f"ppm {mode}": ("PPM", mode, {}) for mode in ("1", "L", "RGB", "I;16")},
    **{f"jp2 {mode}": ("JPEG2000", mode, {}) for mode in ("L", "RGB", "RGBA", "I;16")},
    "avif": ("AVIF", "RGB", {}),
    **{
        f"tiff {mode}": ("TIFF", mode, {})
        for mode in (
            "1",
            "L",
            "LA",
            "P",
            "PA",
            "I;16",
            "I;16B",
            "I",
            "F",
            "RGB",
            "RGBA",
            "CMYK",
            "YCbCr",
            "LAB",
        )
    },
    **{
        f"tiff {packing} {mode}": ("TIFF", mode, {"compression": packing})
        for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
        for mode in ("L", "I;16", "RGB", "F")
    },
    "tiff jpeg": ("TIFF", "RGB", {"compression": "jpeg"}),
    "tiff fax": ("TIFF", "1", {"compression": "group4"}),
    "tiff big": ("TIFF", "L", {"big_tiff": True}),
    "tiff pages": ("TIFF", "L", {"save_all": True, "frames": 3}),
}


def _image(mode: str, shift: int = 0) -> Image.Image:
    rows, columns = np.indices((24, 36))
    smooth = [rows * 9 + shift, columns * 6, rows * 3 + columns * 4, 255 - rows * columns // 8]
    bands = np.clip(np.stack(smooth, -1), 0, 255).astype(np.uint8)
    if mode in ("I;16", "I;16B"):
        values = bands[..., 0].astype("<u2" if mode == "I;16" else ">u2") * 257
        return Image.frombytes(mode, (36, 24), values.tobytes())
    if mode == "I":
        return Image.fromarray(bands[..., 0].astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(bands[..., 0].astype(np.float32) / 255)
    if mode == "1":
        return Image.fromarray(bands[..., 0] > 99)
    if mode == "P":
        return Image.fromarray(bands[..., :3]).quantize(16)
    number = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (36, 24), np.ascontiguousarray(bands[..., :number]).tobytes())


@functools.cache
def good() -> dict[str, bytes]:
    """Return the photos that are right, as far as this Pillow can write them."""
    Image.init()
    files = {}
    for name, (kind, mode, options) in _PHOTOS.items():
        if kind not in Image.SAVE:
            continue
        options = dict(options)
        frames = options.pop("frames", 0)
        if frames:
            options["append_images"] = [_image(mode, 40 * i) for i in range(1, frames)]
        buffer = io.BytesIO()
        try:
            _image(mode).save(buffer, kind, **options)
        except (OSError, ValueError):
            continue
        files[name] = buffer.getvalue()
    return files


def make(seed: int, index: int) -> tuple[str, bytes]:
    """Return the input of an index: what it is and its bytes."""
    rng = np.random.default_rng([seed, index])
    files = good()
    if rng.random() < 0.03:
        name = _pick(rng, list(_OTHERS))
        return f"{name} in disguise", _damaged(rng, _OTHERS[name]) if rng.random() < 0.5 else _OTHERS[name]
    name = _pick(rng, list(files))
    data = files[name]
    change = _CHANGES.get(name.split()[0].replace("apng", "png"))
    steps = []
    for _ in range(rng.integers(1, 4)):
        if change is not None and rng.random() < 0.75:
            data, step = change(rng, data), "structure"
        else:
            step = _pick(rng, list(_DAMAGE))
            data = _DAMAGE[step](rng, data)
        steps.append(step)
    return f"{name}: {', '.join(steps)}", data


def _pick(rng, values):
    return values[rng.integers(len(values))]


def _number(rng, size: int) -> int:
    """A number of a field of some bytes: usual, at an end, or anything."""
    kind = rng.random()
    value = _pick(rng, _SIDES) if kind < 0.5 else rng.integers(40) if kind < 0.8 else rng.integers(2**32)
    return int(value) % 2 ** (8 * size)


def _set(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :] if place + len(value) <= len(data) else data


# Damage that knows nothing of formats.


def _flip(rng, data):
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if data:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def _cut(rng, data):
    return data[: rng.integers(len(data) + 1)]


def _zeros(rng, data):
    start = int(rng.integers(len(data) + 1))
    return data[:start] + bytes(min(100, len(data) - start)) + data[start + 100 :]


def _inserted(rng, data):
    start = int(rng.integers(len(data) + 1))
    return data[:start] + rng.bytes(rng.integers(1, 40)) + data[start:]


def _removed(rng, data):
    start = int(rng.integers(len(data) + 1))
    return data[:start] + data[start + int(rng.integers(1, 40)) :]


def _spliced(rng, data):
    other = _pick(rng, list(good().values()))
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other)) :]


def _appended(rng, data):
    return data + rng.bytes(rng.integers(1, 200))


def _integer(rng, data):
    size = int(_pick(rng, (1, 2, 4)))
    order = _pick(rng, ("little", "big"))
    limit = min(len(data), 200) if rng.random() < 0.5 else len(data)
    return _set(data, int(rng.integers(limit + 1)), _number(rng, size).to_bytes(size, order))


_DAMAGE = {
    "flip": _flip,
    "cut": _cut,
    "zeros": _zeros,
    "inserted": _inserted,
    "removed": _removed,
    "spliced": _spliced,
    "appended": _appended,
    "integer": _integer,
}


def _damaged(rng, data):
    return _pick(rng, list(_DAMAGE.values()))(rng, data)


# EXIF blocks.


def exif_block(rng) -> bytes:
    """Return an EXIF block of random entries, an orientation often among them."""
    order = _pick(rng, ("<", ">"))
    entries = [_entry(rng, order, int(rng.integers(2**16))) for _ in range(rng.integers(0, 6))]
    if rng.random() < 0.8:
        value = struct.pack(order + "HH", int(rng.integers(0, 10)), 0)
        entries.append((0x0112, 3, 1, value) if rng.random() < 0.8 else _entry(rng, order, 0x0112))
    if rng.random() < 0.5:
        entries.append(_entry(rng, order, _pick(rng, (0x8769, 0x8825, 0xA005, 0x011A, 0x010F, 0x927C))))
    entries.sort(key=lambda entry: entry[0])
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    block = head + body + struct.pack(order + "I", _pick(rng, (0, 0, 8, _number(rng, 4)))) + rng.bytes(20)
    return _damaged(rng, block) if rng.random() < 0.3 else block


def _entry(rng, order, tag):
    count = _pick(rng, (0, 1, 2, 4, 100, 2**31, _number(rng, 4)))
    value = struct.pack(order + "I", _pick(rng, (0, 1, 6, 8, _number(rng, 4))))
    return tag, int(rng.integers(0, 20)), int(count), value


# PNG.


def _png_blocks(data):
    blocks, place = [], 8
    while place + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        blocks.append([kind, data[place + 8 : place + 8 + size], None])
        place += 12 + size
    return blocks


def checksums_hold(data: bytes) -> bool:
    """Return whether the checksums are right that a file has up to its end mark, those of PNG."""
    place = 8 if data[:8] == b"\x89PNG\r\n\x1a\n" else len(data)
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, end = data[place + 4 : place + 8], place + 8 + size
        if zlib.crc32(data[place + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            return False
        place = len(data) if kind == b"IEND" else end + 4
    return True


def _png(rng, data):
    blocks = _png_blocks(data)
    if not blocks:
        return _damaged(rng, data)
    place = int(rng.integers(len(blocks)))
    block = blocks[place]
    what = rng.integers(12)
    if what == 0:
        del blocks[place]
    elif what == 1:
        blocks.insert(int(rng.integers(len(blocks))), list(block))
    elif what == 2:
        blocks.insert(int(rng.integers(len(blocks))), blocks.pop(place))
    elif what == 3:
        block[1] = _damaged(rng, block[1])
    elif what == 4:
        block[0] = _pick(
            rng, (b"IDAT", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"teXt", b"\xff\0ab")
        )
    elif what == 5 and blocks[0][0] == b"IHDR":
        field = _pick(rng, ((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)))
        blocks[0][1] = _set(blocks[0][1], field[0], _number(rng, field[1]).to_bytes(field[1], "big"))
    elif what == 6:
        blocks.insert(1, [b"eXIf", exif_block(rng), None])
    elif what == 7:
        blocks.insert(1, [b"tRNS", rng.bytes(_pick(rng, (0, 1, 2, 6, 16, 300))), None])
    elif what == 8:
        packed = zlib.compress(bytes(int(_pick(rng, (10, 10**6, 10**7)))))
        kind = _pick(rng, (b"zTXt", b"iCCP", b"iTXt"))
        blocks.insert(1, [kind, b"a\0\0" + packed if kind != b"iTXt" else b"a\0\1\0\0\0" + packed, None])
    elif what == 9:
        number = struct.pack(">II", _number(rng, 4), 0)
        blocks.insert(1, [b"acTL", number, None])
    elif what == 10 and block[0] == b"IDAT" and block[1]:
        cut = int(rng.integers(len(block[1])))
        blocks[place : place + 1] = [[b"IDAT", block[1][:cut], None], [b"IDAT", block[1][cut:], None]]
    else:
        block[2] = rng.bytes(4)
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + (crc or struct.pack(">I", zlib.crc32(kind + body)))
        for kind, body, crc in blocks
    )


# JPEG.


def _jpeg_segments(data):
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        size = struct.unpack(">H", data[place + 2 : place + 4])[0]
        segments.append([data[place + 1], data[place + 4 : place + 2 + size]])
        place += 2 + size
    return segments, data[place:]


def _jpeg(rng, data):
    segments, scans = _jpeg_segments(data)
    if not segments:
        return _damaged(rng, data)
    place = int(rng.integers(len(segments)))
    marker, body = segments[place]
    what = rng.integers(9)
    if what == 0:
        del segments[place]
    elif what == 1:
        segments.insert(int(rng.integers(len(segments))), [marker, body])
    elif what == 2:
        segments.insert(int(rng.integers(len(segments))), segments.pop(place))
    elif what == 3:
        segments[place][1] = _damaged(rng, body)
    elif what == 4:
        for segment in segments:
            if segment[0] in (0xC0, 0xC1, 0xC2):
                at, size = _pick(rng, ((0, 1), (1, 2), (3, 2), (5, 1), (6, 1), (7, 1), (8, 1), (10, 1)))
                segment[1] = _set(segment[1], at, _number(rng, size).to_bytes(size, "big"))
    elif what == 5:
        segments.insert(0, [0xE1, b"Exif\0\0" + exif_block(rng)])
    elif what == 6:
        heads = (
            b"MPF\0",
            b"ICC_PROFILE\0\1\1",
            b"http://ns.adobe.com/xap/1.0/\0",
            b"Photoshop 3.0\0",
            b"Adobe\0d",
        )
        segments.insert(0, [int(rng.integers(0xE0, 0xF0)), _pick(rng, heads) + exif_block(rng)])
    elif what == 7:
        segments[place][0] = int(rng.integers(0xC0, 0xFF))
    else:
        scans = _damaged(rng, scans)
    return (
        b"\xff\xd8"
        + b"".join(
            bytes([0xFF, marker]) + struct.pack(">H", (len(body) + 2) % 65536) + body
            for marker, body in segments
        )
        + scans
    )


# TIFF.


def _tiff(rng, data):
    """Change one entry of the first directory, add one, or turn pages in a circle."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 16 or data[2:4] not in (b"*\0", b"\0*"):
        return _integer(rng, data)
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return _damaged(rng, data)
    (count,) = struct.unpack_from(order + "H", data, start)
    place = start + 2 + 12 * int(rng.integers(max(count, 1)))
    what = rng.integers(7)
    if what == 0:
        return _set(data, place + 8, struct.pack(order + "I", _number(rng, 4)))
    if what == 1:
        return _set(data, place + 2, struct.pack(order + "H", int(rng.integers(20))))
    if what == 2:
        return _set(data, place + 4, struct.pack(order + "I", _number(rng, 4)))
    if what == 3:
        return _set(data, place, struct.pack(order + "H", _pick(rng, _TIFF_TAGS)))
    if what == 4:
        after = start + 2 + 12 * count
        return _set(
            data, after, struct.pack(order + "I", int(_pick(rng, (start, after, 8, _number(rng, 4)))))
        )
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(min(count, 200))]
    if what == 5:
        number = _pick(rng, _TIFF_TAGS)
        value = int(_pick(rng, (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 5, 32773, 32946, 50000, _number(rng, 2))))
        short = struct.pack(order + "HHIHH", number, 3, 1, value % 65536, 0)
        entries.append(
            short
            if rng.random() < 0.7
            else struct.pack(order + "HHI", *_entry(rng, order, number)[:3]) + rng.bytes(4)
        )
    elif entries:
        del entries[int(rng.integers(len(entries)))]
    entries.sort(key=lambda entry: entry[:2] if order == ">" else entry[1::-1])
    following = data[start + 2 + 12 * count : start + 6 + 12 * count].ljust(4, b"\0")
    # A new directory at the end; offsets to pixels stay right.
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + following
    return data[:4] + struct.pack(order + "I", len(data)) + data[8:] + directory


# The others have their numbers in fixed places, or in boxes.


def _fields(*fields, order="little"):
    def change(rng, data):
        place, size = _pick(rng, fields)
        return _set(data, place, _number(rng, size).to_bytes(size, order))

    return change


def _gif(rng, data):
    if rng.random() < 0.6:
        return _fields((6, 2), (8, 2), (10, 1), (11, 1))(rng, data)
    places = [i for i in range(13, len(data)) if data[i : i + 1] in (b",", b"!")] or [0]
    return _set(data, int(_pick(rng, places)) + int(rng.integers(1, 11)), rng.bytes(1))


def _boxes(rng, data):
    """Change, drop or repeat one of the boxes of an AVIF or JPEG 2000 file, or a chunk of a RIFF."""
    riff = data[:4] == b"RIFF"
    place, boxes = (12 if riff else 0), []
    while place + 8 <= len(data):
        size = struct.unpack(
            "<I" if riff else ">I", data[place + 4 : place + 8] if riff else data[place : place + 4]
        )[0]
        size = size + size % 2 + 8 if riff else size
        if size < 8:
            break
        boxes.append(data[place : place + size])
        place += size
    if not boxes:
        return _damaged(rng, data)
    rest = data[place:]
    index = int(rng.integers(len(boxes)))
    what = rng.integers(6)
    if what == 0:
        boxes[index] = boxes[index][:8] + _damaged(rng, boxes[index][8:])
    elif what == 1:
        boxes.insert(index, boxes[index])
    elif what == 2:
        del boxes[index]
    elif what == 3:
        boxes[index] = _integer(rng, boxes[index])
    elif what == 4 and riff:
        block = _pick(rng, (b"", b"Exif\0\0")) + exif_block(rng)
        boxes.append(b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2))
        canvas = struct.pack("<IHBHB", int(_pick(rng, (8, 24, 2, _number(rng, 1)))), 35, 0, 23, 0)
        boxes.insert(0, b"VP8X" + struct.pack("<I", 10) + canvas)
    else:
        boxes.insert(0, boxes.pop(index))
    body = b"".join(boxes) + rest
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body if riff else body


def _ppm(rng, data):
    head = data[:12].split(None, 4)
    tokens = [*head[:-1]] or [b"P6"]
    place = int(rng.integers(len(tokens)))
    wild = (b"-1", b"0", b"1e9", b"99999999999", b"#", b"P3", b"P1", b"65536", b"256", b"\xff", b"40")
    tokens[place] = _pick(rng, wild)
    return b"\n".join(tokens) + b"\n" + data[12:]


_CHANGES = {
    "png": _png,
    "jpeg": _jpeg,
    "tiff": _tiff,
    "gif": _gif,
    "webp": _boxes,
    "avif": _boxes,
    "jp2": _boxes,
    "bmp": _fields((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4)),
    "ppm": _ppm,
}
