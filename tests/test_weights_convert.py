"""Converters: every key finds its place, every parameter its array, and files are whole or not there."""

import hashlib
import json
import os
import resource
import runpy
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_weights
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from skimage import data
from typer.testing import CliRunner

import jaxai
from jaxai.models import VGG, parameters, zoo
from jaxai.weights_convert import convert, files, layouts, mappings
from jaxai.weights_convert.stored import FLOATS, Refused, stored

GOLDENS = Path(__file__).parent / "goldens"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
random_vgg = runpy.run_path(str(GOLDENS / "random_vgg.py"))["state_dict"]


def centre(photo, size):
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    return photo[top : top + size, left : left + size]


def normalized(*photos):
    return jnp.asarray((np.stack(photos) / 255 - MEAN) / STD, jnp.float32)


@jax.jit
def forward(model, x):
    return model(x)


def relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDENS / "vgg_random.npz")


@pytest.fixture(scope="module")
def small_state():
    """torchvision's VGG11 with batch norms and a small classifier."""
    return random_vgg(11, norm=True, dense=(64, 32, 10), seed=11)


SMALL = partial(VGG, 11, classes=10, hidden=(64, 32))


@pytest.fixture
def small_vgg(monkeypatch):
    """The zoo's vgg11_bn and vgg11, with a small classifier so that files stay small."""
    for name in ("vgg11", "vgg11_bn"):
        known = zoo.ZOO[name]
        small = {**known.__dict__, "make": SMALL}
        monkeypatch.setitem(zoo.ZOO, name, type(known)(**small))


def as_timm(state):
    """The same weights under timm's names and shapes."""
    renamed = {}
    for key, value in state.items():
        if key == "classifier.0.weight":
            value = value.reshape(-1, 512, 7, 7)
        elif key == "classifier.3.weight":
            value = value[..., None, None]
        for ours, timm in zip((0, 3, 6), ("pre_logits.fc1", "pre_logits.fc2", "head.fc"), strict=True):
            key = key.replace(f"classifier.{ours}.", f"{timm}.")
        renamed[key] = np.ascontiguousarray(value)
    return renamed


def test_random_weights_are_those_of_the_golden(golden):
    state = random_vgg(16, norm=False, dense=(2, 2, 2), seed=16)
    np.testing.assert_allclose(
        np.float64(state["features.0.weight"]).sum(), golden["weights_check"][0], rtol=1e-9
    )


@pytest.mark.slow
def test_vgg16_of_torchvision_gives_pytorchs_logits_and_grad_cam(golden):
    """The whole network with random weights: 1e-4 relative leaves room for another order of sums."""
    state = random_vgg(16, norm=False, dense=(4096, 4096, 1000), seed=16)
    make = partial(VGG, 16)
    network = parameters.abstract(make)
    rules = layouts.vgg(network.layer_names, list(state), norm=False)
    described = {key: stored(array) for key, array in state.items()}
    model = parameters.build(make, mappings.apply(rules, described, parameters.shapes(network)))
    x = normalized(centre(data.chelsea(), 224))

    assert relative(forward(model, x), golden["vgg16_logits"]) < 1e-4
    target = int(golden["vgg16_target"])
    cam = jaxai.grad_cam(model, x, target, layer="conv5_3", relu=False, upsample=False)
    assert relative(cam[0], golden["vgg16_cam"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("rename", [dict, as_timm], ids=["torchvision", "timm"])
def test_batch_norms_are_folded_and_both_names_serve(golden, small_state, rename, small_vgg, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(rename(small_state), source)
    path = convert(source, "vgg11_bn", tmp_path / "out" / "y.safetensors")
    shapes = parameters.shapes(parameters.abstract(SMALL))
    model = parameters.build(SMALL, files.read(path, model="vgg11_bn", shapes=shapes).arrays)
    x = normalized(centre(data.chelsea(), 224), centre(data.rocket(), 224))
    assert relative(forward(model, x), golden["vgg11_bn_logits"]) < 1e-4
    larger = normalized(centre(data.coffee(), 288))
    assert relative(forward(model, larger), golden["vgg11_bn_larger"]) < 1e-4


def test_a_norm_after_the_relu_folds_into_the_next_dense_layer():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    scale, shift, x = rng.normal(size=5), rng.normal(size=5), rng.normal(size=(4, 5))
    made = mappings.dense_after_norm(kernel, bias, scale, shift)
    np.testing.assert_allclose(x @ made["kernel"] + made["bias"], (x * scale + shift) @ kernel + bias)


def test_a_norm_folds_into_the_convolution_before_it():
    """One pixel, so that the convolution is a matrix product, by the definition of batch norm."""
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(4, 3, 1, 1)), rng.normal(size=3)
    scale, shift, mean, bias = rng.normal(size=(4, 4))
    variance = rng.uniform(0.1, 2, 4)
    made = mappings.folded_convolution(weight, scale, shift, mean, variance, bias, epsilon=1e-3)
    expected = (weight[..., 0, 0] @ x + bias - mean) / np.sqrt(variance + 1e-3) * scale + shift
    np.testing.assert_allclose(x @ made["kernel"][0, 0] + made["bias"], expected)


def test_depthwise_kernels_keep_their_window():
    weight = np.arange(2 * 9.0).reshape(2, 1, 3, 3)
    kernel = mappings.convolution(weight, np.zeros(2))["kernel"]
    assert kernel.shape == (3, 3, 1, 2)
    np.testing.assert_array_equal(kernel[:, :, 0, 1], weight[1, 0])


@pytest.fixture
def tiny():
    """The zoo with networks of some hundred weights, and a vgg11_bn for them."""
    with tiny_weights.small_zoo():
        yield tiny_weights.torchvision(norm=True)


def converted(path, name="vgg11_bn"):
    return files.read(path, model=name, shapes=tiny_weights.shapes(name)).arrays


def state_file(path, state, kind):
    """Write a state dict as a file of one of the kinds."""
    if kind == "safetensors":
        path.write_bytes(tiny_weights.safetensors_file(*tiny_weights.safetensors_parts(state)))
        return path
    description = tiny_weights.Description(state)
    parts = (description.instructions, description.storages)
    data = (
        tiny_weights.zip_file(*parts)
        if kind == "zip"
        else tiny_weights.legacy_file(*parts, description.counts)
    )
    path.write_bytes(data)
    return path


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


COUNTER = "num_batches_tracked"


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


def test_the_digest_in_a_torch_name_is_verified(tmp_path):
    source = tmp_path / "vgg16-12345678.pth"
    source.write_bytes((GOLDENS / "tiny_zip.pth").read_bytes())
    with pytest.raises(ValueError, match="its SHA-256 starts with 12345678; got"):
        convert(source, "vgg16", tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vgg16", b"", "neither a torch .pth nor a safetensors"),
        ("vgg16", b"hello, world!", "neither a torch .pth nor a safetensors"),
        ("vgg16", struct.pack("<Q", 50) + b"{", "truncated or damaged"),
        ("vgg16_features", b"hello, world!", "not an ONNX file"),
        ("vgg16_features", b"", "another network"),
        ("resnet51", b"", "unknown model 'resnet51'; the models are efficientnet_lite0, "),
    ],
)
def test_files_of_other_kinds(tmp_path, name, content, message):
    source = tmp_path / "x.bin"
    source.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        convert(source, name, tmp_path / "y.safetensors")
    assert list(tmp_path.iterdir()) == [source]


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    for source in (tmp_path / "x.pth", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match="is not a regular file"):
            convert(source, "vgg16", tmp_path / "y")


def test_a_file_that_is_far_too_large_is_not_read(tiny, tmp_path):
    source = tmp_path / "x.pth"
    with source.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        ValueError, match="x.pth: it has 1099511627776 bytes; a file with the weights of vgg11_bn"
    ):
        convert(source, "vgg11_bn", tmp_path / "y")


def test_the_source_is_never_overwritten(tiny, tmp_path):
    source = state_file(tmp_path / "x", tiny, "zip")
    (tmp_path / "link").symlink_to(source)
    before = source.read_bytes()
    for out in (source, tmp_path / "link", tmp_path / "." / "x"):
        with pytest.raises(ValueError, match="is the source itself"):
            convert(source, "vgg11_bn", out)
    assert source.read_bytes() == before


def test_a_full_disk_leaves_nothing(tiny, tmp_path):
    """A limit on the size of files stops the writing halfway, as a full disk does."""
    source, out = tmp_path / "x.safetensors", tmp_path / "out" / "y.safetensors"
    save_file(tiny, source)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*y\.safetensors"):
            convert(source, "vgg11_bn", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [source]


def test_an_old_file_survives_a_failed_conversion(tiny, tmp_path, monkeypatch):
    source, out = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    save_file(tiny, source)
    out.write_bytes(b"old")

    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        convert(source, "vgg11_bn", out)
    assert out.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2


class TestCommand:
    def run(self, *arguments):
        import typer

        from jaxai.weights_convert.__main__ import main

        app = typer.Typer()
        app.command()(main)
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def test_it_converts_into_the_cache(self, monkeypatch, tmp_path, tiny):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        save_file(tiny, tmp_path / "x.st")
        result = self.run(tmp_path / "x.st", "--model", "vgg11_bn")
        assert result.exit_code == 0
        assert result.output.strip() == str(tmp_path / "vgg11_bn.safetensors")
        assert jaxai.models.load("vgg11_bn").name == "vgg11_bn"

    @pytest.mark.parametrize(
        ("source", "model", "message"),
        [
            ("nowhere.pth", "vgg16", "No such file"),
            ("tiny_zip.pth", "vgg16", "tiny_zip.pth does not fit vgg16: it lacks"),
            ("tiny_zip.pth", "lenet", "unknown model 'lenet'"),
        ],
    )
    def test_bad_input_is_one_line_and_code_two(self, tmp_path, source, model, message):
        out = tmp_path / "y.safetensors"
        result = self.run(GOLDENS / source, "--model", model, "--out", out)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ") and message in result.stderr
        assert result.stderr.count("\n") == 1 and not out.exists()

    @pytest.mark.slow
    def test_it_is_a_module_to_run(self):
        command = [sys.executable, "-m", "jaxai.weights_convert", "nowhere.pth", "--model", "vgg16"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ") and "nowhere.pth" in result.stderr


def test_labels_script_takes_the_first_name_in_the_order_of_the_classes(tmp_path):
    script = Path(__file__).parents[1] / "weights_convert" / "imagenet_labels.py"
    (tmp_path / "imagenet_synsets.txt").write_text("n2\nn1\n")
    (tmp_path / "imagenet_synset_to_lemma.txt").write_text("n1\ttabby, tabby cat\nn2\tcrane\n")
    first_names = runpy.run_path(str(script))["first_names"]
    assert first_names(tmp_path) == ["crane", "tabby"]
    assert json.dumps(first_names(tmp_path))
