"""Torch files read without torch: what is right comes out right, what is wrong is said in words."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from jaxai.weights_convert.pickles import read_torch

GOLDENS = Path(__file__).parent / "goldens"


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
    with pytest.raises(ValueError, match=r"x\.pth: it tries to run code \((posix|nt)\.system\)"):
        read_torch(path)
    assert not trace.exists()
    # The file is a real attack: pickle itself would have run it.
    pickle.loads(pickle.dumps(Command(trace)))
    assert trace.exists()


@pytest.mark.parametrize("text", [b"cbuiltins\neval\n(S'1'\ntR.", b"(X\x04\0\0\0trueios\nsystem\n."])
def test_other_ways_to_call_code(tmp_path, text):
    path = tmp_path / "x.pth"
    path.write_bytes(b"\x80\x02" + text)
    with pytest.raises(ValueError, match="tries to run code|uses the instruction (INST|STRING)"):
        read_torch(path)


@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_truncated_anywhere(tmp_path, kind):
    data = (GOLDENS / f"tiny_{kind}.pth").read_bytes()
    path = tmp_path / "x.pth"
    for length in range(0, len(data), 61):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"x\.pth: ") as caught:
            read_torch(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="truncated"):
        read_torch(path)


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
            except ValueError as error:
                assert str(error).startswith("x.pth: ") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(Storage([1, 2]), 1), "reaches number 2 of a storage of 2"),
        (Tensor(Storage([1, 2]), 0, (2,), (9,)), "reaches number 9"),
        (Tensor(Storage([1, 2]), 0, (1 << 40,), (0,)), "more numbers than its storage"),
        (Tensor(Storage([1, 2]), -1), "damaged: a tensor of shape"),
        (Tensor(Storage([1, 2]), 0, (2,), (-1,)), "damaged: a tensor of shape"),
        (Tensor(Storage([1, 2]), 0, (2,), (1, 1)), "damaged: a tensor of shape"),
        (Tensor(Storage([1, 2], total=5)), "truncated|expected 5|expected 20"),
        (Tensor(Storage([1, 2], kind="QuantumStorage")), r"run code \(torch\.QuantumStorage\)"),
    ],
)
@pytest.mark.parametrize("write", [legacy_file, zip_file])
def test_tensors_outside_their_storage(tmp_path, torch_names, tensor, message, write):
    path = write(tmp_path / "x.pth", {"a": tensor}, torch_names, [tensor.parts[0]])
    with pytest.raises(ValueError, match=message):
        read_torch(path)


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
