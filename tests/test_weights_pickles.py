"""Torch files read without torch: what is right comes out right, what is wrong is said in words."""

import io
import os
import pickle
import pickletools
import resource
import struct
import sys
import time
import types
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from jaxai.weights_convert import pickles, torch_file
from jaxai.weights_convert.stored import FLOATS, Refused

GOLDENS = Path(__file__).parent / "goldens"


def read_torch(path):
    """Return the arrays of a file; those of types that are no weights as they are described."""
    with path.open("rb") as file:
        state = torch_file.read_torch(file)
        return {key: array.read() if array.dtype in FLOATS else array for key, array in state.items()}


class Storage:
    """Stands for a torch storage in the pickles that the tests write."""

    def __init__(self, numbers, key="0", kind="FloatStorage", total=None, view=None):
        self.numbers = np.asarray(numbers, np.float32)
        total = len(self.numbers) if total is None else total
        self.identity = ["storage", kind, key, "cpu", total]
        self.view = view


class Tensor:
    """Stands for a torch tensor: a storage, an offset, a shape and strides."""

    def __init__(self, storage, offset=0, shape=(2,), strides=(1,)):
        self.parts = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


@pytest.fixture
def torch_names(monkeypatch):
    """Modules that have torch's names, so that pickle can write references to them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for module in (torch, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for kind in ("FloatStorage", "QuantumStorage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *a: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    return torch


def pickled(root, torch, *, legacy=True, protocol=2):
    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, Storage):
                kind = getattr(torch, item.identity[1])
                view = [item.view] if legacy else []
                return ("storage", kind, *item.identity[2:], *view)
            return None

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(root)
    return buffer.getvalue()


def legacy_file(path, root, torch, storages, **options):
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        file.write(pickled(root, torch, **options))
        pickle.dump([storage.identity[2] for storage in storages], file, protocol=2)
        for storage in storages:
            file.write(struct.pack("<q", len(storage.numbers)) + storage.numbers.tobytes())
    return path


def zip_file(path, root, torch, storages, byteorder="little", **options):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(root, torch, legacy=False, **options))
        archive.writestr("archive/byteorder", byteorder)
        for storage in storages:
            numbers = storage.numbers if byteorder == "little" else storage.numbers.byteswap()
            archive.writestr(f"archive/data/{storage.identity[2]}", numbers.tobytes())
    return path


@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_files_written_by_torch_are_read_exactly(kind):
    expected = np.load(GOLDENS / "tiny_pth.npz")
    state = read_torch(GOLDENS / f"tiny_{kind}.pth")
    assert set(state) == set(expected) - {"provenance"}
    for key, value in state.items():
        want = expected[key]
        assert value.shape == want.shape, key
        if key in ("1.num_batches_tracked", "integer", "flag"):
            assert value.dtype == want.dtype.name, key
            continue
        if key == "bfloat":
            assert value.dtype.name == "bfloat16"
            value = value.astype(np.float32)
        assert value.dtype == want.dtype, key
        np.testing.assert_array_equal(value, want, err_msg=key)


@pytest.mark.parametrize("write", [legacy_file, zip_file])
@pytest.mark.parametrize("protocol", [2, 4])
def test_offsets_strides_and_shared_storages(tmp_path, torch_names, write, protocol):
    storage = Storage(np.arange(12))
    root = OrderedDict(
        whole=Tensor(storage, 0, (3, 4), (4, 1)),
        turned=Tensor(storage, 0, (4, 3), (1, 4)),
        corner=Tensor(storage, 5, (2, 2), (4, 1)),
    )
    path = write(tmp_path / "x.pth", root, torch_names, [storage], protocol=protocol)
    state = read_torch(path)
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(state["whole"], whole)
    np.testing.assert_array_equal(state["turned"], whole.T)
    np.testing.assert_array_equal(state["corner"], whole[1:, 1:3])


def test_legacy_views_of_a_storage(tmp_path, torch_names):
    storage = Storage(np.arange(8), view=("v", 3, 4))
    path = legacy_file(tmp_path / "x.pth", {"a": Tensor(storage, 1)}, torch_names, [storage])
    np.testing.assert_array_equal(read_torch(path)["a"], [4, 5])


def test_big_endian_zip(tmp_path, torch_names):
    storage = Storage([1.5, -2.0])
    root = {"a": Tensor(storage)}
    path = zip_file(tmp_path / "x.pth", root, torch_names, [storage], byteorder="big")
    np.testing.assert_array_equal(read_torch(path)["a"], [1.5, -2.0])


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_checkpoint_around_the_state_dict(tmp_path, torch_names, wrapper):
    storage = Storage([1.0, 2.0])
    root = {"epoch": 3, wrapper: {"a": Tensor(storage)}, "best": 0.5}
    path = zip_file(tmp_path / "x.pth", root, torch_names, [storage])
    np.testing.assert_array_equal(read_torch(path)["a"], [1.0, 2.0])


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
ORDERED = b"ccollections\nOrderedDict\n"
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


@contextmanager
def memory(megabytes):
    """Let this process take only so much memory more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.sampled
@pytest.mark.parametrize("bomb", ["data.pkl", "byteorder", "data/0"])
def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path, torch_names, bomb):
    storage, path, zeros = Storage([1.0, 2.0]), tmp_path / "x.pth", bytes(1 << 20)
    size = 200 << 20
    if bomb == "data/0":
        storage.identity[4] = size // 4
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (
            ("data.pkl", pickled({"a": Tensor(storage)}, torch_names, legacy=False)),
            ("byteorder", b"little"),
            ("data/0", storage.numbers.tobytes()),
        ):
            if name != bomb:
                archive.writestr(f"a/{name}", data)
        info = zipfile.ZipInfo(f"a/{bomb}")
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w") as member:
            for _ in range(size >> 20):
                member.write(zeros)
    assert path.stat().st_size < 500_000
    with (
        memory(50),
        pytest.raises(Refused, match="a/(data.pkl|byteorder|data/0) (is compressed|has 209715200)"),
    ):
        read_torch(path)


def test_a_list_of_a_million_files_is_not_read(tmp_path):
    path = tmp_path / "x.pth"
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entry) * 1_000_000, 4, 0)
    path.write_bytes(b"PK\3\4" + entry * 1_000_000 + end)
    with memory(50), pytest.raises(Refused, match="list of files has more than"):
        read_torch(path)


def test_a_file_twice_or_that_no_tensor_uses(tmp_path, torch_names):
    storage, path = Storage([1.0, 2.0]), tmp_path / "x.pth"
    zip_file(path, {"a": Tensor(storage)}, torch_names, [storage])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", bytes(8))
    with pytest.raises(Refused, match="appears twice in its zip archive"):
        read_torch(path)
    zip_file(path, {"a": Tensor(storage)}, torch_names, [storage, Storage([1.0], key="1")])
    with pytest.raises(Refused, match="no tensor uses its storage 1"):
        read_torch(path)
    zip_file(path, {"a": Tensor(storage)}, torch_names, [])
    with pytest.raises(Refused, match="it lacks storage 0"):
        read_torch(path)


def test_archives_that_contradict_themselves(tmp_path, torch_names):
    """An encrypted file, one that overlaps the next, and one that has another name where it stands."""
    storage, path = Storage([1.0, 2.0]), tmp_path / "x.pth"
    zip_file(path, {"a": Tensor(storage)}, torch_names, [storage])
    whole = path.read_bytes()
    listed = whole.index(b"PK\1\2")
    for bit in (0x01, 0x20, 0x40, 0x2000):
        data = bytearray(whole)
        struct.pack_into("<H", data, listed + 8, bit)
        path.write_bytes(data)
        with pytest.raises(Refused, match="is encrypted, or kept in another way"):
            read_torch(path)
    # Its place in the local header grows, so that its bytes would be those of what follows.
    data = bytearray(whole)
    struct.pack_into("<H", data, whole.index(b"archive/data.pkl") - 2, 99)
    path.write_bytes(data)
    with pytest.raises(Refused, match="archive/data.pkl overlaps what follows it"):
        read_torch(path)
    path.write_bytes(whole.replace(b"archive/data/0", b"archive/data/1", 1))
    with pytest.raises(Refused, match="archive/data/0 has another name where it stands"):
        read_torch(path)


def test_damage_of_what_is_not_a_weight_is_noticed(tmp_path, torch_names):
    """A counter's storage, of which nothing becomes a weight."""
    data = bytearray((GOLDENS / "tiny_zip.pth").read_bytes())
    with zipfile.ZipFile(GOLDENS / "tiny_zip.pth") as archive:
        info = archive.getinfo("tiny_zip/data/6")
    start = info.header_offset + 30 + sum(struct.unpack_from("<HH", data, info.header_offset + 26))
    data[start] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(Refused, match="the checksum of tiny_zip/data/6 is another"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("order", ["Little", "", "little\0", "x" * 17])
def test_an_order_of_bytes_that_is_none(tmp_path, torch_names, order):
    storage = Storage([1.0, 2.0])
    path = tmp_path / "x.pth"
    zip_file(path, {"a": Tensor(storage)}, torch_names, [storage], byteorder=order)
    with pytest.raises(Refused, match="byte order is neither|at most 16"):
        read_torch(path)


def test_legacy_files_end_where_their_storages_end(tmp_path, torch_names):
    storage = Storage([1.0, 2.0])
    path = legacy_file(tmp_path / "x.pth", {"a": Tensor(storage)}, torch_names, [storage])
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(Refused, match="4 bytes follow its last storage"):
        read_torch(path)


@pytest.mark.parametrize("write", [legacy_file, zip_file])
def test_a_checkpoint_may_hold_other_tensors(tmp_path, torch_names, write):
    """Of an optimizer, whose states have numbers for keys."""
    ours, others = Storage([1.0, 2.0], key="0"), Storage([3.0, 4.0], key="1")
    root = {"model": {"a": Tensor(ours)}, "optimizer": {"state": {0: {"step": Tensor(others)}}}}
    path = write(tmp_path / "x.pth", root, torch_names, [ours, others])
    np.testing.assert_array_equal(read_torch(path)["a"], [1.0, 2.0])


def test_dictionaries_as_python_2_pickled_them(tmp_path, torch_names):
    """A list of pairs is an argument of OrderedDict, and words are bytes."""
    storage, path = Storage([1.0, 2.0]), tmp_path / "x.pth"
    whole = pickled({"a": Tensor(storage)}, torch_names, legacy=False)
    tensor = whole[whole.index(b"ctorch._utils") : whole.rindex(b"s.")]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\2" + ORDERED + b"](](U\1a" + tensor + b"ee\x85R.")
        archive.writestr("a/data/0", storage.numbers.tobytes())
    np.testing.assert_array_equal(read_torch(path)["a"], [1.0, 2.0])


@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_truncated_anywhere(tmp_path, kind):
    data = (GOLDENS / f"tiny_{kind}.pth").read_bytes()
    path = tmp_path / "x.pth"
    for length in range(0, len(data), 61):
        path.write_bytes(data[:length])
        with pytest.raises(Refused) as caught:
            read_torch(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="truncated"):
        read_torch(path)


@pytest.mark.slow
def test_bits_flipped_anywhere_never_crash(tmp_path):
    """Damage is an error or other numbers, never another exception."""
    path = tmp_path / "x.pth"
    for kind in ("legacy", "zip"):
        data = (GOLDENS / f"tiny_{kind}.pth").read_bytes()
        for position in range(0, len(data), 13):
            broken = bytearray(data)
            broken[position] ^= 1 << position % 8
            path.write_bytes(broken)
            try:
                read_torch(path)
            except Refused as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(Storage([1, 2]), 1), "reaches number 2 of a storage of 2"),
        (Tensor(Storage([1, 2]), 0, (2,), (9,)), "reaches number 9"),
        (Tensor(Storage([1, 2]), 0, (1 << 40,), (0,)), "more than its storage"),
        (Tensor(Storage([1, 2]), -1), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), 0, (2,), (-1,)), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), 0, (2,), (1, 1)), "damaged: a tensor has a shape"),
        (
            Tensor(Storage([1, 2]), 0, (2,), (1 << 62,)),
            "reaches number 4611686018427387904 of a storage of 2",
        ),
        (Tensor(Storage([1, 2]), 0, (2,), (1 << 70,)), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), 0, (1 << 70,), (0,)), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), 0, (True,), (1,)), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), 0, (2,), (True,)), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), False, (2,), (1,)), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), 0.0, (2,), (1,)), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2]), 0, (1,) * 9, (1,) * 9), "damaged: a tensor has a shape"),
        (Tensor(Storage([1, 2], total=5)), "truncated|expected 5|expected 20"),
        (Tensor(Storage([1, 2], total=True)), "not a storage of a tensor"),
        (Tensor(Storage([1, 2], total=1 << 70)), "a number of|not a storage of a tensor"),
        (Tensor(Storage([1, 2], total=1 << 62)), "truncated|has 8 bytes, expected"),
        (Tensor(Storage([1, 2], kind="QuantumStorage")), r"run code \(torch\.QuantumStorage\)"),
    ],
)
@pytest.mark.parametrize("write", [legacy_file, zip_file])
def test_tensors_outside_their_storage(tmp_path, torch_names, tensor, message, write):
    path = write(tmp_path / "x.pth", {"a": tensor}, torch_names, [tensor.parts[0]])
    with pytest.raises(ValueError, match=message):
        read_torch(path)


@pytest.mark.parametrize(
    "view", [("v", 1.0, 1), ("v", True, 1), ("v", -1, 1), ("v", 0, 3), ("v", 1, 1 << 70), "v"]
)
def test_views_outside_of_a_storage(tmp_path, torch_names, view):
    storage = Storage([1, 2], view=view)
    path = legacy_file(tmp_path / "x.pth", {"a": Tensor(storage)}, torch_names, [storage])
    with pytest.raises(Refused, match="a view outside of storage 0|other than tensors"):
        read_torch(path)


def test_strides_of_axes_with_one_position_say_nothing(tmp_path, torch_names):
    storage = Storage([1.0, 2.0])
    root = {"a": Tensor(storage, 0, (1, 2), (1 << 62, 1))}
    path = zip_file(tmp_path / "x.pth", root, torch_names, [storage])
    np.testing.assert_array_equal(read_torch(path)["a"], [[1.0, 2.0]])


@pytest.mark.parametrize("root", [{}, [1, 2], {"a": 3}, {"a": {"b": 1}}, "words"])
def test_not_a_state_dict(tmp_path, torch_names, root):
    path = zip_file(tmp_path / "x.pth", root, torch_names, [])
    with pytest.raises(ValueError, match="not a state dict"):
        read_torch(path)


def test_not_a_torch_file(tmp_path):
    path = tmp_path / "x.pth"
    with path.open("wb") as file:
        pickle.dump({"weights": [1.0]}, file)
    with pytest.raises(ValueError, match="not a torch file"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(ValueError, match=r"without one data\.pkl"):
        read_torch(path)
    path.write_bytes(b"PK\3\4" + b"PK\5\6" + bytes(18))
    with pytest.raises(Refused, match=r"without one data\.pkl"):
        read_torch(path)
