"""Torch files read without torch: what is right comes out right, what is damaged is said in words."""

import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from torch_files import ORDERED, Storage, Tensor, legacy_file, named_torch, pickled, read_torch, zip_file

from jaxai.weights_convert.stored import Refused

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def torch_names(monkeypatch):
    """Modules that have torch's names."""
    return named_torch(monkeypatch)


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
