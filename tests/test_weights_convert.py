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
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from skimage import data
from typer.testing import CliRunner

import jaxai
from jaxai.models import VGG, parameters, zoo
from jaxai.weights_convert import convert, files, layouts, mappings
from jaxai.weights_convert.onnx_file import read_onnx_vgg16

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


def test_vgg16_of_torchvision_gives_pytorchs_logits_and_grad_cam(golden):
    """The whole network with random weights: 1e-4 relative leaves room for another order of sums."""
    state = random_vgg(16, norm=False, dense=(4096, 4096, 1000), seed=16)
    make = partial(VGG, 16)
    names = parameters.abstract(make).layer_names
    model = parameters.build(make, mappings.apply(layouts.vgg(names, list(state), norm=False), state))
    x = normalized(centre(data.chelsea(), 224))

    assert relative(forward(model, x), golden["vgg16_logits"]) < 1e-4
    target = int(golden["vgg16_target"])
    cam = jaxai.grad_cam(model, x, target, layer="conv5_3", relu=False, upsample=False)
    assert relative(cam[0], golden["vgg16_cam"]) < 1e-4


@pytest.mark.parametrize("rename", [dict, as_timm], ids=["torchvision", "timm"])
def test_batch_norms_are_folded_and_both_names_serve(golden, small_state, rename, small_vgg, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(rename(small_state), source)
    path = convert(source, "vgg11_bn", tmp_path / "out" / "y.safetensors")
    model = parameters.build(SMALL, files.read(path, model="vgg11_bn"))
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


def test_the_file_says_where_it_comes_from(small_state, small_vgg, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(small_state, source)
    path = convert(source, "vgg11_bn", tmp_path / "y.safetensors")
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "jaxai" and metadata["model"] == "vgg11_bn"
    assert metadata["source"] == "x.safetensors"
    assert metadata["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    arrays = load_file(path)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert arrays["conv1_1.kernel"].shape == (3, 3, 3, 64)


def test_equal_weights_make_equal_files(tmp_path):
    """The digest of a file is the weights' name in what `jaxai explain` writes."""
    arrays = {name: np.arange(3, dtype=np.float32) for name in ("b.kernel", "a.bias", "c")}
    for name, order in (("x", sorted(arrays)), ("y", list(arrays))):
        some = {key: arrays[key] for key in order}
        files.write(tmp_path / name, some, model="m", source="s", source_sha256="0")
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert load_file(tmp_path / "x").keys() == arrays.keys()


def test_half_precision_sources_become_float32(small_state, small_vgg, tmp_path):
    source = tmp_path / "x.safetensors"
    half = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in small_state.items()}
    save_file(half, source)
    arrays = files.read(convert(source, "vgg11_bn", tmp_path / "y.safetensors"), model="vgg11_bn")
    np.testing.assert_array_equal(arrays["logits.bias"], half["classifier.6.bias"].astype(np.float32))


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "features.4.bias"), "it lacks features.4.bias$"),
        (lambda s: {**s, "extra.weight": np.zeros(2)}, "it has no place for extra.weight$"),
        (lambda s: {**s, "classifier.6.bias": np.zeros(11)}, r"logits.bias is \(11,\), expected \(10,\)"),
        (lambda s: {**s, "classifier.0.weight": np.zeros((64, 512))}, "fc6 cannot be made of classifier.0"),
        (lambda s: {**s, "classifier.6.bias": np.full(10, np.nan)}, "NaN or infinite numbers in logits.bias"),
        (lambda s: {k: v for k, v in s.items() if "features" in k}, "it lacks classifier.0.bias, "),
    ],
)
def test_both_directions_are_checked(small_state, small_vgg, tmp_path, change, message):
    source, out = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    save_file(change(small_state), source)
    with pytest.raises(ValueError, match=r"x\.safetensors does not fit vgg11_bn: .*" + message):
        convert(source, "vgg11_bn", out)
    assert list(tmp_path.iterdir()) == [source]


def test_another_architecture_is_refused_in_one_line(small_state, small_vgg, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(small_state, source)
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
        ("resnet50", b"", "unknown model 'resnet50'; the models are efficientnet_lite0, "),
    ],
)
def test_files_of_other_kinds(tmp_path, name, content, message):
    source = tmp_path / "x.bin"
    source.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        convert(source, name, tmp_path / "y.safetensors")
    assert list(tmp_path.iterdir()) == [source]


def test_a_truncated_onnx_file(tmp_path):
    whole = zoo.ZOO["vgg16_features"].source.find().read_bytes()
    source = tmp_path / "x.onnx"
    source.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match="truncated, or not an ONNX file"):
        read_onnx_vgg16(source)


def test_an_onnx_network_that_is_not_vgg16(tmp_path):
    import onnx

    onnx_path = tmp_path / "x.onnx"
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), onnx_path)
    with pytest.raises(ValueError, match=r"expected VGG16 .*; got another network \(1 operations: Relu"):
        read_onnx_vgg16(onnx_path)


def test_onnx_without_the_onnx_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install \"jaxai-explain\[convert\]\""):
        read_onnx_vgg16(tmp_path / "x.onnx")


def test_a_full_disk_leaves_nothing(small_state, small_vgg, tmp_path):
    """A limit on the size of files stops the writing halfway, as a full disk does."""
    source, out = tmp_path / "x.safetensors", tmp_path / "out" / "y.safetensors"
    save_file(small_state, source)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*y\.safetensors"):
            convert(source, "vgg11_bn", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(out.parent.iterdir()) == []


def test_an_old_file_survives_a_failed_conversion(small_state, small_vgg, tmp_path, monkeypatch):
    source, out = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    save_file(small_state, source)
    out.write_bytes(b"old")

    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        convert(source, "vgg11_bn", out)
    assert out.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("position", [20, -3])
def test_a_damaged_converted_file_is_noticed(tmp_path, position):
    path = tmp_path / "x.safetensors"
    arrays = {"a.kernel": np.arange(6, dtype=np.float32)}
    files.write(path, arrays, model="m", source="s", source_sha256="0")
    np.testing.assert_array_equal(files.read(path, model="m")["a.kernel"], arrays["a.kernel"])
    content = bytearray(path.read_bytes())
    content[position] ^= 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged|not a file converted"):
        files.read(path, model="m")


def test_a_converted_file_of_another_model_or_format(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write(path, {"a": np.zeros(1, np.float32)}, model="m", source="s", source_sha256="0")
    with pytest.raises(ValueError, match="holds 'm'; expected 'n'"):
        files.read(path, model="n")
    save_file({"a": np.zeros(1, np.float32)}, path)
    with pytest.raises(ValueError, match="not a file converted by this version"):
        files.read(path, model="m")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXAI_CACHE", str(tmp_path / "there"))
    assert files.cache_path("vgg16") == tmp_path / "there" / "vgg16.safetensors"
    monkeypatch.delenv("JAXAI_CACHE")
    assert files.cache_path("vgg16").parent.name == "jaxai"


class TestCommand:
    def run(self, *arguments):
        import typer

        from jaxai.weights_convert.__main__ import main

        app = typer.Typer()
        app.command()(main)
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def test_it_converts_into_the_cache(self, monkeypatch, tmp_path, small_state, small_vgg):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        save_file(small_state, tmp_path / "x.st")
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
