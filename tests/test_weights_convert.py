"""Converters: every key finds its place, every parameter its array, of the right type, length and order."""

import hashlib
import json

import numpy as np
import pytest
import tiny_weights
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_weights import state_file

from jaxai.models import parameters, zoo
from jaxai.weights_convert import convert, files, layouts, mappings
from jaxai.weights_convert.stored import FLOATS, Refused, stored


@pytest.fixture
def tiny():
    """The zoo with networks of some hundred weights, and a vgg11_bn for them."""
    with tiny_weights.small_zoo():
        yield tiny_weights.torchvision(norm=True)


def converted(path, name="vgg11_bn"):
    return files.read(path, model=name, shapes=tiny_weights.shapes(name)).arrays


KINDS = ("zip", "legacy", "safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_arrays_by_the_definitions_of_the_layers(tiny, tmp_path, kind, name):
    """In float32, after sums in float64: half a unit in the last place, doubled where a norm is folded."""
    norm = name.endswith("bn")
    state = tiny_weights.torchvision(norm=norm)
    arrays = converted(convert(state_file(tmp_path / "x", state, kind), name, tmp_path / "y"), name)
    expected = tiny_weights.folded(state, norm=norm)
    assert arrays.keys() == expected.keys()
    for key, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[key].astype(np.float32), err_msg=key)


def test_the_file_says_where_it_comes_from(tiny, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(tiny, source)
    path = convert(source, "vgg11_bn", tmp_path / "y.safetensors")
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "jaxai" and metadata["model"] == "vgg11_bn"
    assert metadata["source"] == "x.safetensors"
    assert metadata["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    arrays = load_file(path)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert arrays["conv1_1.kernel"].shape == (3, 3, 3, tiny_weights.WIDTHS[0])


def test_headers_whose_length_looks_like_a_pickle(tiny, tmp_path):
    """Of 0x...80 bytes: a pickle starts with this byte, too."""
    header, data = tiny_weights.safetensors_parts(tiny)
    text = json.dumps(header).encode()
    source = tmp_path / "x"
    source.write_bytes(tiny_weights.safetensors_file(text + b" " * ((0x80 - len(text)) % 256), data))
    assert source.read_bytes()[0] == 0x80
    assert (
        converted(convert(source, "vgg11_bn", tmp_path / "y")).keys()
        == tiny_weights.shapes("vgg11_bn").keys()
    )


def typed(state, dtype):
    return {key: value if value.dtype == np.int64 else value.astype(dtype) for key, value in state.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(tiny, tmp_path, kind, dtype):
    state = typed(tiny, FLOATS[dtype])
    arrays = converted(convert(state_file(tmp_path / "x", state, kind), "vgg11_bn", tmp_path / "y"))
    expected = tiny_weights.folded(state, norm=True)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, expected[key].astype(np.float32), err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "bool", "complex64"])
def test_types_that_are_no_weights_are_refused(tiny, tmp_path, kind, dtype):
    """Raw integers of a quantised file would be off by thousands."""
    source = state_file(tmp_path / "x", typed(tiny, dtype), kind)
    message = f"features.0.weight holds {dtype}, expected float16, bfloat16, float32, float64"
    with pytest.raises(ValueError, match=message):
        convert(source, "vgg11_bn", tmp_path / "y")
    one = {**tiny, "features.5.running_var": tiny["features.5.running_var"].astype(dtype)}
    with pytest.raises(ValueError, match=f"features.5.running_var holds {dtype}"):
        convert(state_file(tmp_path / "x", one, kind), "vgg11_bn", tmp_path / "y")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("F8_E4M3", "features.0.weight holds float8_e4m3, expected float16, bfloat16, float32, float64"),
        ("F8_E5M2", "features.0.weight holds float8_e5m2, expected"),
        ("F8_E8M0", "features.0.weight holds float8_e8m0, expected"),
        ("F4", "has a size that does not fit its shape"),
        ("U16", "has a size that does not fit its shape"),
        ("Q7\x1b", r"has the unknown type Q7\?"),
    ],
)
def test_other_types_of_safetensors_are_refused(tiny, tmp_path, code, message):
    header, data = tiny_weights.safetensors_parts(typed(tiny, np.uint8))
    for entry in header.values():
        entry["dtype"] = code if entry["dtype"] == "U8" else entry["dtype"]
    (tmp_path / "x").write_bytes(tiny_weights.safetensors_file(header, data))
    with pytest.raises(ValueError, match="x.*" + message):
        convert(tmp_path / "x", "vgg11_bn", tmp_path / "y")


def test_every_vector_has_exactly_its_layers_length(tiny):
    """One number, or one row or column, would be broadcast without a word."""
    network = parameters.abstract(zoo.entry("vgg11_bn").make)
    rules, shapes = layouts.vgg(network.layer_names, list(tiny), norm=True), parameters.shapes(network)
    state = {key: stored(array) for key, array in tiny.items()}
    mappings.apply(rules, state, shapes)
    for key, whole in tiny.items():
        longer = np.append(whole, whole.ravel()[:1])
        others = (
            (whole[:1], whole[None], whole[:, None], whole[:-1], longer, whole[0]) if whole.ndim == 1 else ()
        )
        for other in others:
            with pytest.raises(Refused) as caught:
                mappings.apply(rules, {**state, key: stored(other)}, shapes)
            assert str(caught.value) == f"{key} is {other.shape}, expected {whole.shape}"


def test_dense_weights_have_one_of_two_orders(tiny, tmp_path):
    """[out, in] or the convolution that it equals; nothing else of as many numbers."""
    expected = tiny_weights.folded(tiny, norm=True)
    first, second = tiny["classifier.0.weight"], tiny["classifier.3.weight"]
    width = tiny_weights.WIDTHS[-1]
    for changed in (
        {"classifier.0.weight": first.reshape(-1, width, 7, 7)},
        {"classifier.3.weight": second[..., None, None]},
    ):
        source = state_file(tmp_path / "x", {**tiny, **changed}, "safetensors")
        arrays = converted(convert(source, "vgg11_bn", tmp_path / "y"))
        for name in ("fc6", "fc7"):
            np.testing.assert_array_equal(
                arrays[f"{name}.kernel"], expected[f"{name}.kernel"].astype(np.float32)
            )
    for key, other in (
        ("classifier.0.weight", first.T),
        ("classifier.0.weight", first.reshape(-1, 7, 7, width)),
        ("classifier.0.weight", first[..., None, None]),
        ("classifier.0.weight", first.reshape(-1, width, 49)),
        ("classifier.3.weight", second.T),
        ("classifier.3.weight", second[..., None]),
        ("classifier.3.weight", second[None]),
        ("features.8.weight", np.moveaxis(tiny["features.8.weight"], 1, 3)),
        ("features.8.weight", tiny["features.8.weight"].swapaxes(0, 1)),
    ):
        source = state_file(tmp_path / "x", {**tiny, key: np.ascontiguousarray(other)}, "safetensors")
        with pytest.raises(ValueError, match=f"{key} is .*, expected"):
            convert(source, "vgg11_bn", tmp_path / "y")


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "features.4.bias"), "it lacks features.4.bias$"),
        (lambda s: {**s, "extra.weight": np.zeros(2)}, "it has no place for extra.weight$"),
        (lambda s: {**s, "\x1b]0;x\x07": np.zeros(2)}, r"it has no place for \?\]0;x\?$"),
        (lambda s: {**s, "x" * 9999: np.zeros(2)}, r"it has no place for x{77}\.\.\.$"),
        (
            lambda s: {**s, "x.num_batches_tracked": np.zeros((), np.int64)},
            "no place for x.num_batches_tracked$",
        ),
        (
            lambda s: {**s, "features.1.num_batches_tracked": np.zeros(4)},
            "no place for features.1.num_batches",
        ),
        (lambda s: {**s, "classifier.6.bias": np.full(6, np.nan)}, "NaN or infinite numbers in logits.bias"),
        (lambda s: {**s, "classifier.6.bias": np.full(6, 1e39)}, "NaN or infinite numbers in logits.bias"),
        (
            lambda s: {**s, "features.1.running_var": np.full(3, np.nan)},
            "NaN or infinite numbers in conv1_1.kernel",
        ),
        (lambda s: {**s, "features.1.running_var": np.full(3, -1e-7)}, "a batch norm has negative variances"),
        (lambda s: {k: v for k, v in s.items() if "features" in k}, "it lacks classifier.0.bias, "),
    ],
)
def test_both_directions_are_checked(tiny, tmp_path, change, message):
    source, out = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    save_file(change(tiny), source)
    with pytest.raises(ValueError, match=r"x\.safetensors does not fit vgg11_bn: .*" + message):
        convert(source, "vgg11_bn", out)
    assert list(tmp_path.iterdir()) == [source]


def test_another_architecture_is_refused_in_one_line(tiny, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(tiny, source)
    for name in ("efficientnet_lite0", "vgg16", "vgg11"):
        with pytest.raises(ValueError, match=f"does not fit {name}: it lacks .* more") as caught:
            convert(source, name, tmp_path / "y.safetensors")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
