"""Files around conversions: other kinds are refused, results are whole or not there; the commands."""

import json
import os
import resource
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_weights
from safetensors.numpy import save_file
from tiny_weights import state_file
from typer.testing import CliRunner

import jaxai
from jaxai.weights_convert import convert

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def tiny():
    """The zoo with networks of some hundred weights, and a vgg11_bn for them."""
    with tiny_weights.small_zoo():
        yield tiny_weights.torchvision(norm=True)


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
