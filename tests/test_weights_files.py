"""The converted file and the cache: damage of every kind is noticed, and nothing is left behind."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxai.weights_convert import files
from jaxai.weights_convert.files import Weights

ARRAYS = {"a.kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(3, np.float32)}
SHAPES = {"a.kernel": (2, 3), "a.bias": (3,)}
WHOLE = Weights(ARRAYS, "m", "s.pth", "0" * 64)


@pytest.fixture
def path(tmp_path):
    files.write(tmp_path / "x.safetensors", WHOLE)
    return tmp_path / "x.safetensors"


def read(path, *, model="m", shapes=SHAPES):
    return files.read(path, model=model, shapes=shapes)


def test_what_was_written_is_read(path):
    weights = read(path)
    assert weights.arrays.keys() == ARRAYS.keys()
    for key, array in weights.arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[key])
    assert (weights.model, weights.source, weights.source_sha256) == ("m", "s.pth", "0" * 64)
    assert weights.digest == WHOLE.digest == files.sha256(path)


def test_words_that_no_file_can_be_written_with(path):
    table, data = header(path)
    table["__metadata__"]["source"] = "\ud800"
    put(path, table, data)
    with pytest.raises(ValueError, match="is damaged"):
        read(path)


def test_others_can_read_it(path):
    for key, array in load_file(path).items():
        np.testing.assert_array_equal(array, ARRAYS[key])


def test_equal_weights_make_equal_files(tmp_path):
    """The digest of a file is the weights' name in what `jaxai explain` writes."""
    arrays = {name: np.arange(3, dtype=np.float32) for name in ("b.kernel", "a.bias", "c")}
    for name, order in (("x", sorted(arrays)), ("y", list(arrays))):
        files.write(tmp_path / name, Weights({key: arrays[key] for key in order}, "m", "s", "0"))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_any_bit_that_flips_is_noticed(path):
    whole = path.read_bytes()
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="x.safetensors is damaged, or made by another version"
        ) as caught:
            read(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [0, 7, 8, 9, 100, -4, -1])
def test_truncated(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged"):
        read(path)


def header(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put(path, table, data):
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["a.kernel"].update(dtype="I32"),
        lambda table: table["a.kernel"].update(dtype="U32"),
        lambda table: table["a.kernel"].update(shape=[3, 2]),
        lambda table: table["a.kernel"].update(shape=[6]),
        lambda table: table["a.kernel"].update(dtype="F64", shape=[3]),
        lambda table: table["a.kernel"].update(dtype="F16", shape=[4, 3]),
        lambda table: table["__metadata__"].update(model="n"),
        lambda table: table["__metadata__"].update(format="other"),
        lambda table: table["__metadata__"].update(format_version="1"),
        lambda table: table["__metadata__"].update(checksum="0" * 8),
        lambda table: table["__metadata__"].update(more="x"),
        lambda table: table.pop("__metadata__"),
        lambda table: table.update(b=table.pop("a.bias")),
    ],
)
def test_types_shapes_and_names_belong_to_the_checksum(path, change):
    table, data = header(path)
    put(path, table, data)
    read(path)
    change(table)
    put(path, table, data)
    with pytest.raises(ValueError, match="is damaged, or made by another version"):
        read(path)


def test_the_checksum_tells_types_and_shapes_apart():
    """Of equal bytes."""
    kernel = ARRAYS["a.kernel"]
    others = (kernel.view(np.int32), kernel.reshape(3, 2), kernel.ravel())
    assert len({files.checksum({"a": array}) for array in (kernel, *others)}) == 4
    assert files.checksum({"a": kernel}) != files.checksum({"b": kernel})


def test_a_converted_file_of_another_model_or_format(path):
    with pytest.raises(ValueError, match="it holds m, expected n"):
        read(path, model="n")
    with pytest.raises(ValueError, match="its arrays are not those of m in float32"):
        read(path, shapes={"a.kernel": (2, 3)})
    save_file(ARRAYS, path)
    with pytest.raises(ValueError, match="it is not in the format of this version"):
        read(path)


def test_what_a_damaged_file_says_is_not_shown_raw(tmp_path):
    files.write(tmp_path / "x", Weights(ARRAYS, "\x1b[31m" + "m" * 999, "s", "0"))
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "x")
    assert "it holds ?[31mmm" in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is not a regular file"):
            read(path)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    with pytest.raises(ValueError, match="is damaged"):
        read(tmp_path / "sparse")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from jaxai.weights_convert import files

class Weights(files.Weights):
    def chunks(self):
        yield b"half"
        os.kill(os.getpid(), signal.SIGKILL)

files.write(Path(sys.argv[1]), Weights({}, "m", "s", "0"))
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "x.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".jaxai-")
    files.write(path, WHOLE)
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXAI_CACHE", str(tmp_path / "there"))
    assert files.cache_path("vgg16") == tmp_path / "there" / "vgg16.safetensors"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAXAI_CACHE", "~/there")
    assert files.cache_path("vgg16") == tmp_path / "there" / "vgg16.safetensors"
    monkeypatch.delenv("JAXAI_CACHE")
    assert files.cache_path("vgg16").parent.name == "jaxai"


def test_home_folders_that_are_not_known(monkeypatch):
    monkeypatch.setenv("JAXAI_CACHE", "~nosuchuser/x")
    with pytest.raises(
        OSError, match="`JAXAI_CACHE` is ~nosuchuser/x, and the home folder of ~nosuchuser is not"
    ):
        files.cache_path("vgg16")
    monkeypatch.delenv("JAXAI_CACHE")
    monkeypatch.setattr(files.platformdirs, "user_cache_path", lambda _: Path("~/.cache/jaxai"))
    with pytest.raises(OSError, match="`JAXAI_CACHE` is not set, and the home folder of ~ is not known"):
        files.cache_folder()
