"""Torch's `.pth` files, legacy and zip: where the numbers lie that `pickles` describes."""

import itertools
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Set
from typing import Any, BinaryIO

import numpy as np

from .._files import shown
from .pickles import Storage, Tensor, interpret
from .stored import FLOATS, Refused, Stored, read_numbers

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_START = b"PK\x03\x04"
# Descriptions of tensors, and an archive's list of files, are some ten kilobytes.
_LONGEST_PICKLE = 4 << 20
_LONGEST_LIST = 4 << 20
_BLOCK = 1 << 20
# Sizes may stand after a file, and its name may be UTF-8.
_UTF_8 = 0x800
_PLAIN_FLAGS = 0x8 | _UTF_8
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
)
_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip

# From a storage's key to where it starts in the file.
Places = Mapping[str, int]


def is_torch(start: bytes) -> bool:
    """Return whether a file's first bytes are those of a torch file."""
    return start.startswith((_ZIP_START, b"\x80"))


def read_torch(file: BinaryIO) -> dict[str, Stored]:
    """Read the description of a state dict.

    Args:
        file: What `torch.save(model.state_dict(), path)` wrote, in the legacy or the zip format. A
            dictionary that holds the state dict under `state_dict` or `model` is accepted.

    Returns:
        Its arrays by name, to be read while the file is open.

    Raises:
        Refused: If the file is truncated, is not a state dict, or names code to run.
    """
    file.seek(0)
    is_zip = file.read(len(_ZIP_START)) == _ZIP_START
    return _read_zip(file) if is_zip else _read_legacy(file)


class _Bounded:
    """A file that is never read by more than some bytes at once, whatever it says of its sizes."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self._file = file.seek, file.tell, file

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(_LONGEST_LIST + 1 if count < 0 else min(count, _LONGEST_LIST + 1))
        if len(data) > _LONGEST_LIST:
            raise Refused(f"its list of files has more than {_LONGEST_LIST} bytes")
        return data


class _Archive:
    """The files of a zip archive that are kept as they are, each in a place of its own.

    Attributes:
        entries: What the archive says of each file, by name.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        try:
            listed = zipfile.ZipFile(_Bounded(file)).infolist()  # type: ignore[arg-type]
        except Refused:
            raise
        except _ZIP_ERRORS:
            raise Refused("truncated or damaged: its list of files cannot be read") from None
        self.entries = {entry.filename: entry for entry in listed}
        if len(self.entries) != len(listed):
            raise Refused("damaged: a file appears twice in its zip archive")
        starts = sorted(entry.header_offset for entry in listed)
        self._ends = dict(itertools.pairwise([*starts, self._size]))

    def read(self, name: str, most: int) -> bytes:
        """Return the bytes of a file, of which there are at most some."""
        size = self.entries[name].file_size
        if size > most:
            raise Refused(f"{shown(name)} has {size} bytes; at most {most} are read")
        self._file.seek(self.place(name))
        return self._file.read(size)

    def place(self, name: str) -> int:
        """Return where the bytes of a file start, after a look at their checksum."""
        entry, words = self.entries[name], shown(name)
        # A compressed archive can hold gigabytes of zeros in kilobytes.
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Refused(
                f"{words} is compressed; expected a file made by torch.save, which compresses nothing"
            )
        if entry.flag_bits & ~_PLAIN_FLAGS:
            raise Refused(f"damaged: {words} is encrypted, or kept in another way that torch does not use")
        start = b""
        if 0 <= entry.header_offset < self._size:
            self._file.seek(entry.header_offset)
            start = self._file.read(30)
        if len(start) < 30 or not start.startswith(_ZIP_START):
            raise Refused(f"truncated or damaged: {words} is not where the list of files says")
        length, extra = struct.unpack("<HH", start[26:30])
        encoding = "utf-8" if entry.flag_bits & _UTF_8 else "cp437"
        if self._file.read(length) != entry.orig_filename.encode(encoding):
            raise Refused(f"damaged: {words} has another name where it stands than in the list of files")
        position = entry.header_offset + 30 + length + extra
        end = position + entry.file_size
        if end > self._ends[entry.header_offset]:
            raise Refused(f"truncated or damaged: {words} overlaps what follows it, or has no end")
        self._file.seek(position)
        value = 0
        for left in range(entry.file_size, 0, -_BLOCK):
            value = zlib.crc32(self._file.read(min(left, _BLOCK)), value)
        if value != entry.CRC:
            raise Refused(f"truncated or damaged: the checksum of {words} is another")
        return position


def _read_zip(file: BinaryIO) -> dict[str, Stored]:
    archive = _Archive(file)
    mains = [name for name in archive.entries if name.split("/")[-1] == "data.pkl"]
    if len(mains) != 1:
        raise Refused("a zip archive without one data.pkl; expected a file made by torch.save")
    folder = mains[0].removesuffix("data.pkl")
    order = b"little"
    if f"{folder}byteorder" in archive.entries:
        order = archive.read(f"{folder}byteorder", 16)
        if order not in (b"little", b"big"):
            raise Refused("damaged: its byte order is neither little nor big")
    storages: dict[str, Storage] = {}
    data = archive.read(mains[0], _LONGEST_PICKLE)
    root, end = interpret(data, 0, storages)
    if end != len(data):
        raise Refused("damaged: something follows its description of the tensors")

    start = f"{folder}data/"
    _compare(
        storages.keys(), {name.removeprefix(start) for name in archive.entries if name.startswith(start)}
    )
    for key, storage in storages.items():
        size, expected = archive.entries[start + key].file_size, storage.total * _SIZES[storage.dtype]
        if size != expected:
            raise Refused(f"damaged: storage {shown(key)} has {size} bytes, expected {expected}")
    # Unused ones too, so that damage anywhere is noticed.
    places = {key: archive.place(start + key) for key in storages}
    return _state(file, root, storages, places, swapped=order == b"big")


def _read_legacy(file: BinaryIO) -> dict[str, Stored]:
    file.seek(0)
    data = file.read(_LONGEST_PICKLE)
    storages: dict[str, Storage] = {}
    parts, position = [], 0
    for expected in (_LEGACY_MAGIC, _LEGACY_PROTOCOL, None, None, None):
        part, position = interpret(data, position, storages)
        # Compared by type as well: nothing else that a pickle can build is ever compared or hashed.
        if expected is not None and (type(part) is not int or part != expected):
            raise Refused("not a torch file: its first numbers are not torch's")
        parts.append(part)
    _, _, system, root, keys = parts
    if isinstance(system, dict) and system.get("little_endian", True) is not True:
        raise Refused("legacy format of a machine with another byte order; save it in torch's zip format")
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or len({*keys}) != len(keys):
        raise Refused("damaged: its list of storages cannot be read")
    _compare(storages.keys(), set(keys))

    size = os.fstat(file.fileno()).st_size
    places = {}
    for key in keys:
        storage = storages[key]
        end = position + 8 + storage.total * _SIZES[storage.dtype]
        if size < end:
            raise Refused(f"truncated: it ends {end - size} bytes before the end of storage {shown(key)}")
        file.seek(position)
        (total,) = struct.unpack("<q", file.read(8))
        if total != storage.total:
            raise Refused(f"damaged: storage {shown(key)} has {total} numbers, expected {storage.total}")
        places[key], position = position + 8, end
    if position != size:
        raise Refused(f"damaged: {size - position} bytes follow its last storage")
    return _state(file, root, storages, places)


def _compare(described: Set[str], held: Set[str]) -> None:
    if lacking := described - held:
        raise Refused(f"truncated: it lacks storage {shown(min(lacking))}")
    if unused := held - described:
        raise Refused(f"damaged: no tensor uses its storage {shown(min(unused))}")


def _state(
    file: BinaryIO, root: Any, storages: dict[str, Storage], places: Places, *, swapped: bool = False
) -> dict[str, Stored]:
    for wrapper in ("state_dict", "model"):
        if isinstance(root, dict) and isinstance(root.get(wrapper), dict):
            root = root[wrapper]
            break
    if not isinstance(root, dict) or not root:
        raise Refused("not a state dict: expected a dictionary of tensors")
    for name, value in root.items():
        if type(name) is not str or type(value) is not Tensor:
            raise Refused(f"not a state dict: {shown(name)} is not a tensor")
    return {
        name: _stored(file, name, tensor, storages[tensor.key].dtype, places, swapped)
        for name, tensor in root.items()
    }


def _stored(file: BinaryIO, name: str, tensor: Tensor, dtype: str, places: Places, swapped: bool) -> Stored:
    shape, count = tensor.shape, math.prod(tensor.shape)
    # Where an axis has one position, its stride says nothing.
    strides = [stride if length > 1 else 0 for length, stride in zip(shape, tensor.strides, strict=True)]
    reach = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) + 1
    if count and tensor.offset + reach > tensor.count:
        last = tensor.offset + reach - 1
        raise Refused(f"damaged: {shown(name)} reaches number {last} of a storage of {tensor.count}")
    if count > tensor.count:
        raise Refused(f"damaged: {shown(name)} has {count} numbers, more than its storage")

    def read() -> np.ndarray:
        if not count:
            return np.zeros(shape, FLOATS[dtype])
        start = places[tensor.key] + (tensor.first + tensor.offset) * _SIZES[dtype]
        numbers = read_numbers(file, start, dtype, (reach,))
        steps = [stride * _SIZES[dtype] for stride in strides]
        values = np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)
        return values.byteswap() if swapped else values

    return Stored(dtype, shape, read)
