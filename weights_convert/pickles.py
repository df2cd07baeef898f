"""The description of a torch file's tensors, which is a pickle, read without executing it.

A pickle is a program, and harmless instructions alone can end the process that runs it: a pair of the pair
before, sixty times over, takes 2^60 steps to hash, and the hash of a tuple that is nested 300,000 deep
overflows the stack of C. Only a program that follows the stack can enforce such limits, so a scan before an
unpickler would amount to this interpreter. It executes the few instructions that a state dict needs, on
values of known types, sizes and depths; keys are strings and integers; a function's name is data, which is
recognised or rejected.
"""

import pickle
import pickletools
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._files import shown
from .stored import Refused, as_shape

_MOST_INSTRUCTIONS = 300_000
_DEEPEST = 16
_LONGEST_NUMBER = 16  # bytes; the magic number of legacy files has ten

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
}  # fmt: skip
_REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_ORDERED_DICT = "collections.OrderedDict"
_KNOWN = {_REBUILD_TENSOR, _REBUILD_PARAMETER, _ORDERED_DICT} | {f"torch.{name}" for name in _STORAGES}


@dataclass(frozen=True)
class Storage:
    """`total` numbers of a type."""

    dtype: str
    total: int


@dataclass(frozen=True)
class Tensor:
    """A view of `count` numbers of the storage `key`, from `first` on."""

    key: str
    first: int
    count: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """The name of a function or class: never imported, never called."""

    name: str


@dataclass(frozen=True)
class _View:
    key: str
    first: int
    count: int


class _Container:
    """The depth of a container; nothing is added once it is inside another, so the depth stays valid."""

    depth = 1
    complete = False


class _Tuple(_Container, tuple):
    pass


class _List(_Container, list):
    # Whether a dictionary was made of it. A second one would cost its length again for three instructions.
    taken = False


class _Dict(_Container, dict):
    pass


_MARK = object()
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": _Dict, "EMPTY_LIST": _List, "EMPTY_TUPLE": _Tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# The supported instructions, with the format of their arguments.
_PLAIN = (
    *_LITERALS, *_EMPTY, *_TUPLES, "TUPLE", "MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MEMOIZE",
    "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID", "STOP",
)  # fmt: skip
_FIXED = {
    **dict.fromkeys(_PLAIN, ""),
    "PROTO": "B", "FRAME": "<Q", "BININT": "<i", "BININT1": "B", "BININT2": "<H", "BINFLOAT": ">d",
    "BINPUT": "B", "LONG_BINPUT": "<I", "BINGET": "B", "LONG_BINGET": "<I",
}  # fmt: skip
_COUNTED = {
    "LONG1": "B", "BINUNICODE": "<I", "SHORT_BINUNICODE": "B", "BINSTRING": "<I", "SHORT_BINSTRING": "B",
    "BINBYTES": "<I", "SHORT_BINBYTES": "B",
}  # fmt: skip
CARRIED_OUT = {*_FIXED, *_COUNTED, "GLOBAL"}
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def interpret(data: bytes, position: int, storages: dict[str, Storage]) -> tuple[Any, int]:
    """Execute one pickle's instructions.

    Args:
        data: What holds the pickle.
        position: Where it starts.
        storages: Filled with the storages that it names, by key.

    Returns:
        What it describes, made of dictionaries, lists, tuples, words, numbers and `Tensor`, and the position
        after it.

    Raises:
        Refused: If it is truncated, names code to run, or is larger, deeper or other than a state dict.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    frame = 0
    for _ in range(_MOST_INSTRUCTIONS):
        start = position
        opcode, argument, position = _instruction(data, start)
        if start < frame and (position > frame or opcode == "FRAME"):
            raise Refused("damaged: an instruction stands across the end of its frame")
        if opcode == "FRAME" and (frame := position + argument) > len(data):
            raise Refused("truncated: a frame of its description of the tensors has no end")
        try:
            if opcode == "STOP":
                return _pop(stack), position
            _step(opcode, argument, stack, memo, storages)
        except LookupError:
            # An empty stack, a number that was not kept, a value of another type than the instruction takes.
            raise Refused(f"damaged: its instruction {opcode} finds nothing to work on") from None
    raise Refused(f"its description of the tensors has more than {_MOST_INSTRUCTIONS} instructions")


def _instruction(data: bytes, position: int) -> tuple[str, Any, int]:
    """Return an instruction's name, what follows it, and the position after it."""

    def take(count: int) -> bytes:
        nonlocal position
        part = data[position : position + count]
        if len(part) < count:
            raise Refused("truncated, or not a torch file: its description of the tensors has no end")
        position += count
        return part

    code = take(1)[0]
    opcode = _NAMES.get(code, "?")
    argument: Any = None
    if opcode in _FIXED:
        form = _FIXED[opcode]
        argument = struct.unpack(form, take(struct.calcsize(form)))[0] if form else None
    elif opcode in _COUNTED:
        form = _COUNTED[opcode]
        argument = take(struct.unpack(form, take(struct.calcsize(form)))[0])
        if opcode == "LONG1":
            if len(argument) > _LONGEST_NUMBER:
                raise Refused(f"damaged: it holds a number of {len(argument)} bytes")
            argument = int.from_bytes(argument, "little", signed=True)
        elif "BYTES" not in opcode:
            try:
                argument = argument.decode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                raise Refused("damaged: it holds a string that is not UTF-8") from None
    elif opcode == "GLOBAL":
        words = []
        for _ in range(2):
            end = data.find(b"\n", position)
            words.append(take((end if end >= 0 else len(data)) + 1 - position)[:-1].decode("latin-1"))
        argument = ".".join(words)
    elif opcode == "?":
        raise Refused(f"truncated, or not a torch file: no instruction has the number {code}")
    else:
        raise Refused(f"not a state dict: its pickle uses the instruction {opcode}")
    return opcode, argument, position


def _step(
    opcode: str, argument: Any, stack: list[Any], memo: dict[int, Any], storages: dict[str, Storage]
) -> None:
    """Execute one instruction; none of them can import or call anything."""
    match opcode:
        case "PROTO":
            if argument > pickle.HIGHEST_PROTOCOL:
                raise Refused(f"damaged, or a pickle of the unknown protocol {argument}")
        case "FRAME":
            pass  # How many bytes pickle reads at once, which `interpret` has checked.
        case "MARK":
            stack.append(_MARK)
        case _ if opcode in _LITERALS:
            stack.append(_LITERALS[opcode])
        case _ if opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        case _ if opcode in _TUPLES:
            stack.append(_tuple([_pop(stack) for _ in range(_TUPLES[opcode])][::-1]))
        case "TUPLE":
            stack.append(_tuple(_since_mark(stack)))
        case "APPEND":
            value = _pop(stack)
            _append(_top(stack), [value])
        case "APPENDS":
            values = _since_mark(stack)
            _append(_top(stack), values)
        case "SETITEM":
            value, key = _pop(stack), _pop(stack)
            _set(_top(stack), [key], [value])
        case "SETITEMS":
            items = _since_mark(stack)
            _set(_top(stack), items[::2], items[1::2])
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = _top(stack)
        case "MEMOIZE":
            memo[len(memo)] = _top(stack)
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL":
            stack.append(_named(argument))
        case "STACK_GLOBAL":
            name, module = _pop(stack), _pop(stack)
            if type(name) is not str or type(module) is not str:
                raise Refused("damaged: it names a function by something other than strings")
            stack.append(_named(f"{module}.{name}"))
        case "REDUCE":
            arguments, function = _pop(stack), _pop(stack)
            stack.append(_rebuilt(function, arguments))
        case "BUILD":
            # A state dict's `_metadata`, which holds the versions of torch's layers.
            _pop(stack)
            if type(_top(stack)) is not _Dict:
                raise Refused("it sets the state of an object that is not a dictionary")
        case "BINPERSID":
            stack.append(_view(_pop(stack), storages))
        case _:
            stack.append(argument)


def _top(stack: list[Any]) -> Any:
    if stack[-1] is _MARK:
        raise LookupError("a mark for a value")
    return stack[-1]


def _pop(stack: list[Any]) -> Any:
    value = _top(stack)
    del stack[-1]
    return value


def _since_mark(stack: list[Any]) -> list[Any]:
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is _MARK:
            items = stack[index + 1 :]
            del stack[index:]
            return items
    raise LookupError("no mark")


def _depth(values: Iterable[Any]) -> int:
    """Return how deep a container of these values is; nothing is added to them any more."""
    depth = 1
    for value in values:
        if isinstance(value, _Container):
            value.complete = True
            depth = max(depth, value.depth + 1)
    if depth > _DEEPEST:
        raise Refused(f"not a state dict: it is nested more than {_DEEPEST} deep")
    return depth


def _tuple(values: list[Any]) -> _Tuple:
    made = _Tuple(values)
    made.depth = _depth(values)
    return made


def _append(target: Any, values: list[Any]) -> None:
    _grown(target, _List, values).extend(values)


def _set(target: Any, keys: list[Any], values: list[Any]) -> None:
    # The hash of a tuple takes as long, and as deep a stack, as the file likes.
    if len(keys) != len(values) or not all(type(key) in (str, int) for key in keys):
        raise Refused("not a state dict: a key is neither a string nor an integer")
    _grown(target, _Dict, values).update(zip(keys, values, strict=True))


def _grown(target: Any, kind: type, values: list[Any]) -> Any:
    depth = _depth(values)
    if type(target) is not kind:
        raise LookupError("another type")
    if target.complete:
        raise Refused("not a state dict: it adds to a container that is already part of another")
    target.depth = max(target.depth, depth)
    return target


def _named(name: str) -> _Name:
    if name not in _KNOWN:
        raise Refused(
            f"it tries to run code ({shown(name)}), which is never done; expected a state dict as"
            " torch.save(model.state_dict(), path) writes it"
        )
    return _Name(name)


def _rebuilt(function: Any, arguments: Any) -> Any:
    match function, arguments:
        case _Name(name), () if name == _ORDERED_DICT:
            return _Dict()
        case _Name(name), (_List(taken=False) as pairs,) if name == _ORDERED_DICT:
            # So does Python 2.
            if not all(isinstance(pair, _Tuple | _List) and len(pair) == 2 for pair in pairs):
                raise Refused("damaged: a dictionary of something other than pairs")
            made, pairs.taken = _Dict(), True
            _set(made, [key for key, _ in pairs], [value for _, value in pairs])
            return made
        case _Name(name), (Tensor() as tensor, *_) if name == _REBUILD_PARAMETER:
            return tensor
        case _Name(name), (_View() as view, offset, _Tuple() as lengths, _Tuple() as steps, *_) if (
            name == _REBUILD_TENSOR
        ):
            start, shape, strides = as_shape((offset,)), as_shape(lengths), as_shape(steps)
            if start is None or shape is None or strides is None or len(shape) != len(strides):
                raise Refused("damaged: a tensor has a shape, strides or an offset that none can have")
            return Tensor(view.key, view.first, view.count, offset, shape, strides)
    raise Refused("not a state dict: it holds something other than tensors")


def _view(identity: Any, storages: dict[str, Storage]) -> _View:
    # A pattern with a rest copies it, which a file could ask for again and again.
    match identity if isinstance(identity, _Tuple) and len(identity) in (5, 6) else ():
        case ("storage", _Name(name), str(key), _, total, *rest) if as_shape((total,)):
            dtype = _STORAGES.get(name.removeprefix("torch."))
            if dtype is None:
                raise Refused(f"a storage of unknown type {name}")
            if storages.setdefault(key, Storage(dtype, total)) != Storage(dtype, total):
                raise Refused(f"damaged: storage {shown(key)} is described in two ways")
            match rest:
                case [] | [None]:
                    return _View(key, 0, total)
                case [(_, first, count)] if as_shape((first, count)) and first + count <= total:
                    return _View(key, first, count)
            raise Refused(f"damaged: a view outside of storage {shown(key)}")
    raise Refused("not a state dict: it refers to something that is not a storage of a tensor")
