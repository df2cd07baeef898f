"""Safetensors files: what the format's own library accepts is read, anything else is refused in words."""

import itertools
import json
import struct

import ml_dtypes
import numpy as np
import pytest
import tiny_weights
from safetensors import SafetensorError
from safetensors.numpy import load, save, save_file

from jaxai.weights_convert.safetensors_file import read_safetensors
from jaxai.weights_convert.stored import FLOATS, Refused


def read(path, data=None):
    if data is not None:
        path.write_bytes(data)
    with path.open("rb") as file:
        arrays = read_safetensors(file).arrays
        return {key: array.read() if array.dtype in FLOATS else array for key, array in arrays.items()}


STATE = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(3, dtype=np.float64),
    "c": np.array(2, np.float16),
    "d": np.arange(4).astype(ml_dtypes.bfloat16),
    "e": np.zeros((0, 3), np.float32),
    "f": np.arange(3, dtype=np.int64),
}


def test_arrays_as_the_library_writes_them(tmp_path):
    path = tmp_path / "x"
    save_file(STATE, path, {"key": "word"})
    for key, array in read(path).items():
        assert array.shape == STATE[key].shape
        if key == "f":
            assert array.dtype == "int64"
        else:
            assert array.dtype == STATE[key].dtype
            np.testing.assert_array_equal(array, STATE[key])


def table():
    return tiny_weights.safetensors_parts({"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "F33"}, "has the unknown type F33"),
        ({"dtype": "\x1b[31m" * 99}, r"has the unknown type \?\[31m"),
        ({"dtype": 3}, "has the unknown type"),
        ({"dtype": None}, "has the unknown type"),
        ({"dtype": ["F32"]}, "has the unknown type"),
        ({"dtype": "F64"}, "a has a size that does not fit its shape"),
        ({"shape": [2, 4]}, "a has a size that does not fit its shape"),
        ({"shape": [1 << 62, 1 << 62]}, "a has a size that does not fit"),
        ({"shape": [1 << 70]}, "a has no shape or no place"),
        ({"shape": [-2, -3]}, "a has no shape or no place"),
        ({"shape": [True, 6]}, "a has no shape or no place"),
        ({"shape": [2.0, 3]}, "a has no shape or no place"),
        ({"shape": ["2", 3]}, "a has no shape or no place"),
        ({"shape": 6}, "a has no shape or no place"),
        ({"shape": "23"}, "a has no shape or no place"),
        ({"shape": {"0": 2}}, "a has no shape or no place"),
        ({"shape": [1] * 9}, "a has no shape or no place"),
        ({"shape": [[2, 3]]}, "a has no shape or no place"),
        ({"data_offsets": [0]}, "a has no shape or no place"),
        ({"data_offsets": [0, 24, 0]}, "a has no shape or no place"),
        ({"data_offsets": [24, 0]}, "a has a size that does not fit"),
        ({"data_offsets": [-24, 0]}, "a has no shape or no place"),
        ({"data_offsets": [4, 28]}, "overlap or leave a gap"),
        ({"data_offsets": [32, 56]}, "overlap or leave a gap"),
        ({"data_offsets": [8, 32]}, "overlap or leave a gap"),
        ({"data_offsets": [0, 1 << 80]}, "a has no shape or no place"),
        ({"more": 1}, "a is not described by dtype, shape and data_offsets"),
    ],
)
def test_descriptions_that_make_no_sense(tmp_path, change, message):
    header, data = table()
    header["a"].update(change)
    with pytest.raises(Refused, match=message) as caught:
        read(tmp_path / "x", tiny_weights.safetensors_file(header, data))
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "truncated"),
        (b"{", "its header is not JSON"),
        (b"[]", "is not a table of arrays"),
        (b"3", "is not a table of arrays"),
        (b'"{"', "is not a table of arrays"),
        (b"{" * 100_000, "its header is not JSON"),
        (b"[" * 1_000_000, "its header is not JSON"),
        (b'{"a":' + b"[" * 1_000_000, "its header is not JSON"),
        (b'{"a":' + b'{"a":' * 500_000, "its header is not JSON"),
        (b'{"a":' + b"9" * 100_000 + b"}", "its header is not JSON"),
        (b'{"a":NaN}', "a is not described"),
        (b'{"a":{},"a":{}}', "a name appears twice"),
        (b'{"__metadata__":{"x":"1","x":"2"}}', "a name appears twice"),
        (b'{"__metadata__":{"x":1}}', "metadata is not a table of strings"),
        (b'{"__metadata__":[]}', "metadata is not a table of strings"),
        (b'{"\xff":{}}', "its header is not JSON"),
        (b'{"\\u001b[31m":1}', r"damaged: \?\[31m is not described"),
        (b'{"\\ud800":{}}', "its header is not JSON"),
        (b'{"__metadata__":{"x":"\\ud800"}}', "its header is not JSON"),
        (b'{"a":null}', "a is not described"),
        (b'{"a":"dtype"}', "a is not described"),
    ],
)
def test_headers_that_are_none(tmp_path, text, message):
    with pytest.raises(Refused, match=message) as caught:
        read(tmp_path / "x", tiny_weights.safetensors_file(text, b""))
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()


@pytest.mark.parametrize("length", [0, 1 << 22, (1 << 22) + 1, 100_000_000, (1 << 63) - 1, (1 << 64) - 1])
def test_lengths_of_headers_that_lie(tmp_path, length):
    with pytest.raises(Refused, match="truncated or damaged"):
        read(tmp_path / "x", struct.pack("<Q", length) + b"{" + bytes(100))


def test_truncated_or_longer(tmp_path):
    whole = save(STATE)
    for data in (*(whole[:n] for n in range(0, len(whole), 7)), whole[:-1], whole + b"x"):
        with pytest.raises(Refused, match="truncated or damaged"):
            read(tmp_path / "x", data)


def test_what_is_read_is_what_the_library_reads(tmp_path):
    """Any bit flipped: both refuse the file, or it is refused here, or both give the same arrays."""
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    whole, accepted = save(state), 0
    for position, bit in itertools.product(range(len(whole)), (0, 3, 5, 7)):
        data = bytearray(whole)
        data[position] ^= 1 << bit
        try:
            arrays = read(tmp_path / "x", bytes(data))
        except Refused:
            continue
        try:
            expected = load(bytes(data))
        except SafetensorError:
            pytest.fail(f"the library refuses bit {bit} of byte {position}: {json.dumps(str(data[:200]))}")
        assert arrays.keys() == expected.keys()
        for key, array in arrays.items():
            if hasattr(array, "tobytes"):
                assert array.tobytes() == expected[key].tobytes() and array.shape == expected[key].shape
        accepted += 1
    # All of the numbers, and some names.
    assert accepted >= 4 * 32
