"""Torch files that mean harm: no code of theirs is run, nothing is repeated endlessly, lines stay short."""

import io
import os
import pickle
import pickletools
import struct
import sys
import time
import types
import zipfile

import pytest
from torch_files import ORDERED, Storage, Tensor, legacy_file, named_torch, read_torch, zip_file

from jaxai.weights_convert import pickles
from jaxai.weights_convert.stored import Refused


@pytest.fixture
def torch_names(monkeypatch):
    """Modules that have torch's names."""
    return named_torch(monkeypatch)


class Command:
    """Runs a shell command when an ordinary unpickler reads it."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("write", [legacy_file, zip_file])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_named_and_not_run(tmp_path, torch_names, write, protocol):
    trace = tmp_path / "ran"
    path = write(tmp_path / "x.pth", {"a": Command(trace)}, torch_names, [], protocol=protocol)
    with pytest.raises(ValueError, match=r"it tries to run code \((posix|nt)\.system\)"):
        read_torch(path)
    assert not trace.exists()
    # The file is a real attack: pickle itself would have run it.
    pickle.loads(pickle.dumps(Command(trace)))
    assert trace.exists()


@pytest.mark.parametrize("text", [b"cbuiltins\neval\n(S'1'\ntR.", b"(X\x04\0\0\0trueios\nsystem\n."])
def test_other_ways_to_call_code(tmp_path, text):
    path = tmp_path / "x.pth"
    path.write_bytes(b"\x80\x02" + text)
    with pytest.raises(Refused, match="tries to run code|uses the instruction (INST|STRING)"):
        read_torch(path)


class Witness:
    """A class whose every use by an unpickler is written down."""

    seen: list[str] = []

    def __new__(cls, *_, **__):
        cls.seen.append("new")
        return super().__new__(cls)

    def __setstate__(self, state):
        self.seen.append("state")

    def append(self, item):
        self.seen.append("append")

    def __setitem__(self, key, value):
        self.seen.append("item")


def witness(*_, **__):
    Witness.seen.append("call")
    return Witness()


CLASS, FUNCTION = (f"c{__name__}\n{name}\n".encode() for name in ("Witness", "witness"))
NAMED = b"".join(b"\x8c" + bytes([len(word)]) + word for word in (__name__.encode(), b"witness"))
# Each instruction by which an unpickler runs code, with what it needs before.
CALLS = {
    "GLOBAL": FUNCTION,
    "STACK_GLOBAL": NAMED + b"\x93",
    "REDUCE": FUNCTION + b")R",
    "REDUCE by name": NAMED + b"\x93)R",
    "REDUCE by memo": FUNCTION + b"q\0q\1h\1)R",
    "INST": f"(i{__name__}\nwitness\n".encode(),
    "OBJ": b"(" + CLASS + b"o",
    "NEWOBJ": CLASS + b")\x81",
    "NEWOBJ_EX": CLASS + b")}\x92",
    "BUILD": CLASS + b")\x81}b",
    "APPEND": CLASS + b")\x81Na",
    "APPENDS": CLASS + b")\x81(Ne",
    "SETITEM": CLASS + b")\x81NNs",
    "SETITEMS": CLASS + b")\x81(NNu",
    "EXT1": b"\x82\xf0)R",
    "EXT2": b"\x83\xf0\0)R",
    "EXT4": b"\x84\xf0\0\0\0)R",
    "PERSID": b"Pname\n",
    "BINPERSID": b"X\4\0\0\0nameQ",
}


@pytest.fixture
def extension():
    import copyreg

    copyreg.add_extension(__name__, "witness", 0xF0)
    yield
    copyreg.remove_extension(__name__, "witness", 0xF0)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_every_instruction_that_can_call_is_refused(tmp_path, extension, monkeypatch, name, kind):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, types.ModuleType(__name__)))
    for own in (Witness, witness):
        monkeypatch.setattr(sys.modules[__name__], own.__name__, own, raising=False)
    path = hostile(tmp_path, CALLS[name] + b".", kind)
    Witness.seen.clear()
    with pytest.raises(Refused, match="run code|uses the instruction|not a storage of a tensor") as caught:
        read_torch(path)
    assert Witness.seen == [] and "\n" not in str(caught.value)

    # It is a real attack: an ordinary unpickler does run it.
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, identity):
            return witness()

    Unpickler(io.BytesIO(b"\x80\2" + CALLS[name] + b".")).load()
    assert name == "GLOBAL" or name == "STACK_GLOBAL" or Witness.seen


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_instructions_that_no_state_dict_needs_are_refused_by_name(opcode):
    """And those that it needs find nothing to work on here, or are not carried out beyond the end."""
    with pytest.raises(Refused) as caught:
        pickles.interpret(opcode.code.encode("latin-1") + b"0\n0\n" + bytes(300), 0, {})
    if opcode.name not in pickles.CARRIED_OUT:
        assert str(caught.value) == f"not a state dict: its pickle uses the instruction {opcode.name}"


def hostile(tmp_path, instructions, kind="zip"):
    """Write a file whose description of the tensors has these instructions."""
    path = tmp_path / "x.pth"
    if kind == "legacy":
        with path.open("wb") as file:
            for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
                pickle.dump(part, file, protocol=2)
            file.write(b"\x80\2" + instructions + pickle.dumps([], protocol=2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\2" + instructions)
    return path


DEEP = b")" + b"\x85" * 300_000
PAIRS = b")" + b"q\0h\0\x86" * 60
KEY = b"X\1\0\0\0a"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000NK\1tQ"


def ending(value):
    """Ways to have a value hashed, compared or shown."""
    return {
        "key": b"}" + value + KEY + b"s.",
        "keys": b"}(" + value + KEY + b"u.",
        "ordered": ORDERED + b"](" + value + KEY + b"\x86e\x85R.",
        "value": b"}" + KEY + value + b"s.",
        "whole": value + b".",
        "identity": value + b"Q.",
        "storage": b"(X\7\0\0\0storagectorch\nFloatStorage\n" + value + b"NK\1tQ.",
        "count": b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000N" + value + b"tQ.",
        "view": b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000NK\1" + value + b"tQ.",
        "shape": TENSOR + b"K\0" + value + b"K\1\x85\x89NtR.",
        "strides": TENSOR + b"K\0K\1\x85" + value + b"\x89NtR.",
        "offset": TENSOR + value + b"))\x89NtR.",
        "function": value + b")R.",
        "arguments": ORDERED + value + b"R.",
        "state": b"}" + value + b"b.",
        "name": value + value + b"\x93.",
        "sum": b"]" + value + b"a.",
    }


@pytest.mark.parametrize("way", ending(b""))
@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_what_is_nested_is_never_hashed_compared_or_shown(tmp_path, way, kind):
    """300,000 deep it would end the process; 60 pairs of the pair before would take 2^60 steps."""
    for value in (DEEP, PAIRS):
        path = hostile(tmp_path, ending(value)[way], kind)
        start = time.process_time()
        with pytest.raises(Refused) as caught:
            read_torch(path)
        assert time.process_time() - start < 2
        assert len(str(caught.value)) < 200 and "(((" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (b"}" + b")" * 400_000 + b".", "more than 300000 instructions"),
        (b"}" + b"(" * 400_000 + b".", "more than 300000 instructions"),
        # A list in itself, and lists that are put into each other from the outside in.
        (b"]q\0h\0a.", "adds to a container that is already part of another"),
        (b"]q\0]q\1ah\1]a.", "adds to a container that is already part of another"),
        (b"}q\0" + KEY + b"h\0s.", "adds to a container that is already part of another"),
        (b"]" * 20 + b"a" * 19 + b".", "nested more than 16 deep"),
        (b"}" + b"".join(KEY + b"}" for _ in range(20)) + b"s" * 20 + b".", "nested more than 16 deep"),
        (b"\x8b\xff\xff\xff\x7f.", "uses the instruction LONG4"),
        (b"\x8a\xff" + bytes(255) + b".", "a number of 255 bytes"),
        (b"I" + b"9" * 20_000 + b"\n.", "uses the instruction INT"),
        (b"X\xff\xff\xff\xffa.", "has no end"),
        (b"ccollections", "has no end"),
        (b"X\2\0\0\0\xff\xfe.", "not UTF-8"),
        (b"}K\1Ns.", "not a state dict: 1 is not a tensor"),
        (b"}NNs.", "a key is neither a string nor an integer"),
        (b"}\x88Ns.", "a key is neither a string nor an integer"),
        (b"}G" + bytes(8) + b"Ns.", "a key is neither a string nor an integer"),
        (b"}(Nu.", "a key is neither"),
        (b"(N.", "not a state dict"),
        (b"\x80\x06}.", "the unknown protocol 6"),
        (b"\x95" + b"\xff" * 8 + b"}.", "a frame of its description of the tensors has no end"),
        (b"\x95\x02" + bytes(7) + KEY + b".", "across the end of its frame"),
        (b"\x95\x20" + bytes(7) + b"\x95" + bytes(40), "across the end of its frame"),
        (b".", "finds nothing to work on"),
        (b"h\7.", "finds nothing to work on"),
        (b"Na.", "finds nothing to work on"),
        (b"t.", "finds nothing to work on"),
        (b"(\x85.", "finds nothing to work on"),
        (b"}(b.", "finds nothing to work on"),
        (b"}(N(s.", "finds nothing to work on"),
        (b"](a.", "finds nothing to work on"),
        (b"(q\0h\0.", "finds nothing to work on"),
        (b"](e(.", "finds nothing to work on"),
    ],
)
def test_descriptions_that_are_too_large_or_make_no_sense(tmp_path, instructions, message):
    for kind in ("legacy", "zip"):
        path = hostile(tmp_path, instructions, kind)
        with pytest.raises(Refused, match=message) as caught:
            read_torch(path)
        assert len(str(caught.value)) < 200


@pytest.mark.unchecked
def test_long_lists_are_not_used_again_and_again(tmp_path):
    """A few instructions that take as long as a list would take the square of the file's size."""
    pairs = b"](" + (KEY + b"N\x86") * 40_000 + b"e\x85q\1"
    words = b"(X\7\0\0\0storage" + b"N" * 90_000 + b"tq\1"
    for start, again in ((pairs, ORDERED + b"h\1R"), (words, b"h\1Q")):
        path = hostile(tmp_path, start + again * 30_000 + b".")
        began = time.process_time()
        with pytest.raises(Refused, match="other than tensors|not a storage of a tensor"):
            read_torch(path)
        assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "words", ["a\x1b[31mRED\x1b]0;pwned\x07", "w" * 1_000_000, "\x9b31m\u202e", "a\nb"], ids=range(4)
)
def test_words_of_the_file_are_shown_short_and_without_escapes(tmp_path, torch_names, words):
    text = words.encode()
    word = b"X" + struct.pack("<I", len(text)) + text
    storage = Storage([1.0, 2.0], key=words[:100])
    made = [
        hostile(tmp_path, ending(word)[way]).read_bytes()
        for way in ending(b"")
        if way not in ("state", "storage")
    ]
    made.append(hostile(tmp_path, word + word + b"\x93.").read_bytes())
    made.append(hostile(tmp_path, b"c" + text.replace(b"\n", b"") + b"\nsystem\n.").read_bytes())
    for root in ({words: 3}, {words: Tensor(storage, 9)}, {"a": Tensor(storage, 9)}):
        made.append(zip_file(tmp_path / "x.pth", root, torch_names, [storage]).read_bytes())
        made.append(legacy_file(tmp_path / "x.pth", root, torch_names, [storage]).read_bytes())
    made.append(legacy_file(tmp_path / "x.pth", {"a": Tensor(storage)}, torch_names, []).read_bytes())
    path = tmp_path / "x.pth"
    for data in made:
        path.write_bytes(data)
        with pytest.raises(Refused) as caught:
            read_torch(path)
        message = str(caught.value)
        assert len(message) < 300 and message.isprintable(), message
