"""The safetensors format: a length, a header in JSON, then the numbers of all arrays without gaps.

Read here rather than by the format's own library, which looks at neither the size of what it reads nor knows
NumPy's bfloat16, and whose writer shuffles the metadata, so that equal weights would get unequal digests.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .._files import shown
from .stored import Refused, Stored, as_shape, read_numbers

_LONGEST_HEADER = 4 << 20
_BITS = {
    "F64": ("float64", 64), "F32": ("float32", 32), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "I64": ("int64", 64), "I32": ("int32", 32), "I16": ("int16", 16), "I8": ("int8", 8),
    "U64": ("uint64", 64), "U32": ("uint32", 32), "U16": ("uint16", 16), "U8": ("uint8", 8),
    "C64": ("complex64", 64), "BOOL": ("bool", 8), "F8_E4M3": ("float8_e4m3", 8),
    "F8_E5M2": ("float8_e5m2", 8), "F8_E8M0": ("float8_e8m0", 8), "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6), "F4": ("float4_e2m1", 4),
}  # fmt: skip


class Header(NamedTuple):
    """What stands before the numbers."""

    text: bytes
    metadata: dict[str, str]
    arrays: dict[str, Stored]


def header(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the start of a file of float32 arrays, which follow in the order of their names."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name in sorted(arrays):
        end = position + 4 * arrays[name].size
        shape = list(arrays[name].shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_safetensors(file: BinaryIO) -> Header:
    """Read the header of a file and check that it describes the whole file.

    Raises:
        Refused: If it does not.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise Refused(
            f"truncated or damaged: it has {size} bytes and states a header of {length},"
            f" at most {_LONGEST_HEADER} are read"
        )
    text = file.read(length)
    entries = _parsed(text)
    metadata = entries.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise Refused("damaged: its metadata is not a table of strings")
    arrays, stretches = {}, []
    for name, entry in entries.items():
        arrays[name], stretch = _described(file, 8 + length, name, entry)
        stretches.append(stretch)
    end = 0
    for begin, after in sorted(stretches):
        if begin != end:
            raise Refused("damaged: its arrays overlap or leave a gap")
        end = after
    if 8 + length + end != size:
        raise Refused(f"truncated or damaged: it has {size} bytes, expected {8 + length + end}")
    return Header(start + text, metadata, arrays)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(text.decode(), object_pairs_hook=_unique)
    except Refused:
        raise
    except (ValueError, RecursionError):
        raise Refused("truncated or damaged: its header is not JSON") from None
    if type(entries) is not dict:
        raise Refused("damaged: its header is not a table of arrays")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise Refused("damaged: a name appears twice in its header")
    # JSON can spell halves of characters, which are no text.
    "".join(word for pair in pairs for word in pair if isinstance(word, str)).encode()
    return table


def _described(file: BinaryIO, start: int, name: str, entry: Any) -> tuple[Stored, tuple[int, int]]:
    """Return an array and its first and last byte, counted from `start`."""
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"damaged: {shown(name)} is not described by dtype, shape and data_offsets")
    shape, offsets, code = as_shape(entry["shape"]), as_shape(entry["data_offsets"]), entry["dtype"]
    if shape is None or offsets is None or len(offsets) != 2:
        raise Refused(f"damaged: {shown(name)} has no shape or no place")
    if type(code) is not str or code not in _BITS:
        raise Refused(f"{shown(name)} has the unknown type {shown(code) if type(code) is str else '?'}")
    dtype, bits = _BITS[code]
    if math.prod(shape) * bits != 8 * (offsets[1] - offsets[0]):
        raise Refused(f"damaged: {shown(name)} has a size that does not fit its shape")
    return Stored(dtype, shape, lambda: read_numbers(file, start + offsets[0], dtype, shape)), offsets
