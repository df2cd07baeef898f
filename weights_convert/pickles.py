"""Reads torch's `.pth` files, legacy and zip, without torch and without executing what they hold.

A `.pth` is a pickle, which is a program. Here it is not run by an unpickler: its instructions are
listed by the standard library's `pickletools.genops`, and only those that build dictionaries, tuples
and tensors are carried out. A name of a function or class is data; the few names that a state dict
needs are recognised, and any other is an error that says which code the file wanted to run.
"""

import io
import math
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_START = b"PK\x03\x04"
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
)

_STORAGES = {
    "DoubleStorage": np.dtype("f8"),
    "FloatStorage": np.dtype("f4"),
    "HalfStorage": np.dtype("f2"),
    "BFloat16Storage": np.dtype(bfloat16),
    "LongStorage": np.dtype("i8"),
    "IntStorage": np.dtype("i4"),
    "ShortStorage": np.dtype("i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_ORDERED_DICT = "collections.OrderedDict"
_KNOWN = {_REBUILD_TENSOR, _REBUILD_PARAMETER, _ORDERED_DICT}
_KNOWN |= {f"torch.{name}" for name in _STORAGES}


@dataclass(frozen=True)
class _Name:
    """The name of a function or class in a pickle: never imported, never called."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """A stretch of `count` numbers in the storage `key`, from `first` on."""

    key: str
    dtype: np.dtype
    total: int
    first: int
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_MARK = object()


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the state dict of a torch file as NumPy arrays.

    Args:
        path: A file saved by `torch.save(model.state_dict(), path)`, in the legacy or the zip
            format. A dictionary that holds the state dict under `state_dict` or `model` is accepted.

    Returns:
        Arrays by name. They may be read-only views of the file.

    Raises:
        ValueError: If the file is truncated, is not a state dict, or names code to run.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_START)) == _ZIP_START
        return _read_zip(path) if is_zip else _read_legacy(path)
    except _Bad as error:
        raise ValueError(f"{path.name}: {error}") from None


class _Bad(Exception):
    """What is wrong with the file, in words."""


def is_torch(start: bytes) -> bool:
    """Tell by its first bytes whether a file may be one of torch's."""
    return start.startswith((_ZIP_START, b"\x80"))


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise _Bad(f"truncated or damaged zip archive ({error})") from None
    with archive:
        mains = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
        if len(mains) != 1:
            raise _Bad("a zip archive without one data.pkl; expected a file made by torch.save")
        folder = mains[0].removesuffix("data.pkl")

        def member(name: str) -> bytes:
            try:
                return archive.read(folder + name)
            except _ZIP_ERRORS as error:
                raise _Bad(f"truncated or damaged: cannot read {folder + name} ({error})") from None

        little = f"{folder}byteorder" not in archive.namelist() or member("byteorder") == b"little"
        root = _interpret(io.BytesIO(member("data.pkl")))
        loaded: dict[str, np.ndarray] = {}

        def numbers(storage: _Storage) -> np.ndarray:
            if storage.key not in loaded:
                size = storage.total * storage.dtype.itemsize
                name = f"data/{storage.key}"
                info = archive.NameToInfo.get(folder + name)
                if info is not None and info.file_size != size:
                    raise _Bad(f"damaged: {name} has {info.file_size} bytes, expected {size}")
                data = member(name)
                loaded[storage.key] = _as_numbers(data, storage.dtype, storage.total, little)
            return _same_dtype(loaded[storage.key], storage)

        return {name: _array(name, tensor, numbers) for name, tensor in _state(root).items()}


def _read_legacy(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if _interpret(file) != _LEGACY_MAGIC or _interpret(file) != _LEGACY_PROTOCOL:
            raise _Bad("not a torch file: its first numbers are not torch's")
        system = _interpret(file)
        little = bool(system.get("little_endian", True)) if isinstance(system, dict) else True
        root = _interpret(file)
        keys = _interpret(file)
        tensors = _state(root)
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise _Bad("damaged: its list of storages cannot be read")
        position = file.tell()
        data = np.memmap(file, np.uint8, "r")
    loaded: dict[str, np.ndarray] = {}
    for key in keys:
        if key not in storages:
            raise _Bad(f"damaged: it holds numbers of a storage {key!r} that no tensor uses")
        storage = storages[key]
        size = storage.total * storage.dtype.itemsize
        if len(data) < position + 8 + size:
            missing = position + 8 + size - len(data)
            raise _Bad(f"truncated: it ends {missing} bytes before the end of storage {key!r}")
        order = "<q" if little else ">q"
        (total,) = struct.unpack(order, data[position : position + 8].tobytes())
        if total != storage.total:
            raise _Bad(f"damaged: storage {key!r} has {total} numbers, expected {storage.total}")
        stretch = data[position + 8 : position + 8 + size]
        loaded[key] = _as_numbers(stretch, storage.dtype, total, little)
        position += 8 + size

    def numbers(storage: _Storage) -> np.ndarray:
        if storage.key not in loaded:
            raise _Bad(f"truncated: the numbers of storage {storage.key!r} are missing")
        return _same_dtype(loaded[storage.key], storage)

    return {name: _array(name, tensor, numbers) for name, tensor in tensors.items()}


def _as_numbers(data: Any, dtype: np.dtype, count: int, little: bool) -> np.ndarray:
    array = np.frombuffer(data, dtype, count=count)
    return array if little else array.byteswap()


def _same_dtype(array: np.ndarray, storage: _Storage) -> np.ndarray:
    if array.dtype != storage.dtype or len(array) != storage.total:
        raise _Bad(f"damaged: storage {storage.key!r} is described in two ways")
    return array[storage.first : storage.first + storage.count]


def _array(name: str, tensor: _Tensor, numbers: Callable[[_Storage], np.ndarray]) -> np.ndarray:
    values = numbers(tensor.storage)
    if math.prod(tensor.shape) == 0:
        return np.zeros(tensor.shape, values.dtype)
    last = tensor.offset + sum(
        (length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if last >= len(values):
        raise _Bad(f"damaged: {name} reaches number {last} of a storage of {len(values)}")
    if math.prod(tensor.shape) > len(values):
        raise _Bad(f"damaged: {name} of shape {tensor.shape} has more numbers than its storage")
    steps = tuple(stride * values.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, steps, writeable=False)


def _state(root: Any) -> dict[str, _Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(root, dict) and isinstance(root.get(wrapper), dict):
            root = root[wrapper]
            break
    if not isinstance(root, dict) or not root:
        raise _Bad("not a state dict: expected a dictionary of tensors")
    for name, value in root.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _Bad(f"not a state dict: {name!r} is not a tensor")
    return root


def _interpret(file: io.BufferedIOBase) -> Any:
    """Carry out one pickle's instructions up to STOP, leaving the file just after it."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        with warnings.catch_warnings():
            # genops warns of odd escapes in strings, which only a damaged file has.
            warnings.simplefilter("ignore")
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "STOP":
                    return stack[-1]
                _step(opcode.name, argument, stack, memo)
    except _Bad:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _Bad(f"truncated, or not a torch file ({reason})") from None
    raise _Bad("truncated: its description of the tensors has no end")


_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES",
}  # fmt: skip


def _step(opcode: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Carry out one instruction; none of them can import or call anything."""
    match opcode:
        case "PROTO" | "FRAME":
            pass
        case _ if opcode in _VALUES:
            stack.append(argument)
        case _ if opcode in _LITERALS:
            stack.append(_LITERALS[opcode])
        case "MARK":
            stack.append(_MARK)
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            count = int(opcode[-1])
            items = tuple(stack[-count:])
            if len(items) != count:
                raise IndexError("pop from an empty stack")
            del stack[-count:]
            stack.append(items)
        case "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        case "APPENDS":
            values = _since_mark(stack)
            stack[-1].extend(values)
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        case "SETITEMS":
            items = _since_mark(stack)
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL":
            stack.append(_named(argument.replace(" ", ".", 1)))
        case "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_named(f"{module}.{name}"))
        case "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_rebuild(function, arguments))
        case "BUILD":
            # A state dict's `_metadata`, which holds the versions of torch's layers.
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise _Bad("it sets the state of an object that is not a dictionary")
        case "BINPERSID":
            stack.append(_storage(stack.pop()))
        case _:
            raise _Bad(f"not a state dict: its pickle uses the instruction {opcode}")


def _since_mark(stack: list[Any]) -> list[Any]:
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is _MARK:
            items = stack[index + 1 :]
            del stack[index:]
            return items
    raise IndexError("no mark on the stack")


def _named(name: str) -> _Name:
    if name not in _KNOWN:
        raise _Bad(
            f"it tries to run code ({name}), which is never done; expected a state dict as"
            " torch.save(model.state_dict(), path) writes it"
        )
    return _Name(name)


def _rebuild(function: Any, arguments: Any) -> Any:
    match function, arguments:
        case _Name(name), () if name == _ORDERED_DICT:
            return {}
        case _Name(name), (list() as items,) if name == _ORDERED_DICT:
            return dict(items)
        case _Name(name), (_Tensor() as tensor, *_) if name == _REBUILD_PARAMETER:
            return tensor
        case _Name(name), (
            _Storage() as storage,
            offset,
            tuple() as shape,
            tuple() as strides,
            *_,
        ) if name == _REBUILD_TENSOR:
            whole = [offset, *shape, *strides]
            if not all(isinstance(n, int) and n >= 0 for n in whole) or len(shape) != len(strides):
                raise _Bad(f"damaged: a tensor of shape {shape}, strides {strides}, offset {offset}")
            return _Tensor(storage, offset, shape, strides)
    raise _Bad("not a state dict: it holds something other than tensors")


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", _Name(name), str() as key, _, int() as total, *view) if total >= 0:
            dtype = _STORAGES.get(name.removeprefix("torch."))
            if dtype is None:
                raise _Bad(f"a storage of unknown type {name}")
            first, count = 0, total
            if view and view[0] is not None:
                _, first, count = view[0]
                if first < 0 or count < 0 or first + count > total:
                    raise _Bad(f"damaged: a view outside of storage {key!r}")
            return _Storage(key, dtype, total, first, count)
    raise _Bad(f"not a state dict: it refers to {identity!r}")
