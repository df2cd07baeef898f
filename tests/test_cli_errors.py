"""Whatever is wrong with the input: photos of every kind are taken, the rest is one clear line and code 2."""

import errno
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from common import slow_but
from PIL import Image

from jaxai.cli import main
from jaxai.report import _writer as report


@pytest.fixture(scope="module", autouse=True)
def started():
    jax.devices()


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Run the command, which must say one line, return 2 and leave the folder as it was; return the line."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        before = sorted(tmp_path.rglob("*"))
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("jaxai: error: ") and err.count("\n") == 1, err
        assert "Traceback" not in out + err
        assert sorted(tmp_path.rglob("*")) == before
        return err.removeprefix("jaxai: error: ").strip()

    return call


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Files that are not photos."""
    folder = tmp_path_factory.mktemp("broken")
    photo = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(photo).save(folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(photo).save(folder / "whole.jpg")
    jpeg = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    nan = np.full((8, 8), 0.5, np.float32)
    nan[2, 3] = np.nan
    Image.fromarray(nan).save(folder / "nan.tif")
    return folder


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated.png", "truncated.png cannot be read as an image"),
        ("truncated.jpg", "truncated.jpg cannot be read as an image"),
        ("text.jpg", "text.jpg is not an image"),
        ("empty.png", "empty.png is not an image"),
        ("nan.tif", "nan.tif has 1 NaN"),
        ("missing.png", "no such image"),
    ],
)
def test_files_that_are_no_photos(refused, broken, name, message):
    assert message in refused("explain", broken / name)
    assert message in refused("dream", broken / name, "--model", "efficientnet_lite0", "--layer", "stem")


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explain", "dog"), "no such image: dog (the samples are cat, coffee, rocket, astronaut)"),
        (("explain", "."), ". holds no image"),
        (
            ("explain", "cat", "--model", "resnet9"),
            "unknown model 'resnet9'; did you mean resnet18, resnet34 or resnet50?",
        ),
        (("explain", "cat", "--method", "nope"), "unknown method 'nope'; the methods are"),
        (("explain", "cat", "--layer", "conv9"), "unknown layer 'conv9'; did you mean conv_head?"),
        (
            ("explain", "cat", "--layer", "pool", "--method", "grad_cam"),
            "grad_cam: `layer` must have activations",
        ),
        (("explain", "cat", "--target", "1000"), "must be a class from 0 to 999; got 1000"),
        (("explain", "cat", "--target=-1"), "must be a class from 0 to 999; got -1"),
        (("explain", "cat", "--target", "moggy"), "unknown class 'moggy'"),
        (("explain", "cat", "--target", "crane"), "2 classes are called 'crane': give an index, 134 or 517"),
        (("explain", "cat", "--option", "lime.nope=1"), "lime has the options"),
        (
            ("explain", "cat", "--option", "lime.num_samples=1", "--method", "lime"),
            "lime: `num_samples` must be at least 2; got 1",
        ),
        (("explain", "cat", "--segments", "voronoi"), "unknown method 'voronoi'; the methods are quickshift"),
        (("explain", "cat", "--batch-size", "0"), "Invalid value for '--batch-size'"),
        (("explain", "cat", "--seed", "-1"), "Invalid value for '--seed'"),
        (("explain", "cat", "--precision", "float8"), "Invalid value for '--precision'"),
        (("explain", "cat", "--device", "abacus"), "Invalid value for '--device'"),
        (("explain",), "Missing argument 'IMAGE...'"),
        (("explain", "cat", "--colour"), "No such option: --colour"),
        (("describe", "cat"), "No such command 'describe'"),
        (("layers", "resnet9"), "unknown model 'resnet9'"),
        (("dream", "cat", "--layer", "mixed4a", "--model", "efficientnet_lite0"), "unknown layer 'mixed4a'"),
        (("dream", "cat", "--octaves", "0"), "Invalid value for '--octaves'"),
        (("dream", "dog"), "no such image: dog"),
        (("convert", "no.pth", "--model", "vgg16"), "no.pth: no such file"),
        (("convert", "no.pth", "--model", "vgg17"), "unknown model 'vgg17'"),
        (("convert", "no.pth"), "Missing option '--model'"),
    ],
)
def test_what_does_not_exist(refused, words, message):
    assert message in refused(*words)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="has the device that must be missing")
def test_a_device_that_is_not_there(refused):
    assert "there is no gpu that JAX can use" in refused("explain", "cat", "--device", "gpu")


def test_a_network_without_classes(refused):
    line = refused("compare", "cat", "--model", "vgg16_features")
    assert "vgg16_features has no classes to explain; `jaxai explain` explains its map, 7 x 7 x 512" in line


def test_weights_that_are_of_another_network(refused, broken, tmp_path):
    from jaxai.models.zoo import entry

    source = entry("efficientnet_lite1").source.find()
    line = refused("convert", source, "--model", "efficientnet_lite0", "--out", tmp_path / "x.safetensors")
    assert "does not fit efficientnet_lite0" in line
    for name in ("text.jpg", "empty.png"):
        assert name in refused("convert", broken / name, "--model", "vgg16", "--out", tmp_path / "x")


@pytest.mark.slow
def test_photos_of_every_kind_are_taken(tmp_path, capsys):
    colors = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    rgb = Image.fromarray(colors)
    rgb.convert("L").save(tmp_path / "grey.png")
    rgb.convert("RGBA").save(tmp_path / "rgba.png")
    rgb.convert("P").save(tmp_path / "palette.gif")
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(colors[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(tmp_path / "turned.jpg", exif=turned)
    Image.new("RGB", (1, 1), (200, 30, 30)).save(tmp_path / "one.png")
    Image.new("RGB", (8000, 6000), (30, 90, 200)).save(tmp_path / "large.jpg")
    words = ["explain", str(tmp_path), "--method", "grad_cam", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    stems = {"grey", "rgba", "palette", "cmyk", "deep", "turned", "one", "large"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == stems
    assert len(capsys.readouterr().out.splitlines()) == len(stems) + 1
    maps = {stem: np.load(tmp_path / "out" / stem / "maps.npz") for stem in stems}
    assert all(np.isfinite(found["grad_cam"]).all() for found in maps.values())
    np.testing.assert_allclose(
        maps["one"]["photo"], np.broadcast_to([200 / 255, 30 / 255, 30 / 255], (224, 224, 3))
    )


@pytest.mark.slow
def test_a_photo_of_one_colour_has_superpixels(tmp_path, capsys):
    Image.new("RGB", (1, 1), (90, 90, 90)).save(tmp_path / "one.png")
    out = tmp_path / "out"
    words = ["explain", str(tmp_path / "one.png"), "--segments", "felzenszwalb", "--out", str(out)]
    assert main([*words, "--method", "lime", "-o", "lime.num_samples=200"]) == 0
    assert '"method": "grid"' in (out / "explanation.json").read_text()
    # Hiding a superpixel by its own colour changes nothing.
    np.testing.assert_allclose(np.load(out / "maps.npz")["lime_weights"], 0, atol=1e-6)


CAM = ("explain", "cat", "--method", "grad_cam")


def test_output_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "file is a file; expected a folder" in refused(*CAM, "--out", "file")
    assert "file is a file; expected a folder" in refused(*CAM, "coffee", "--out", "file")
    assert "file is a file; expected a folder" in refused(*CAM, "--out", "file/out")
    dream = ("dream", "cat", "--model", "efficientnet_lite0", "--layer", "stem")
    assert "is not a regular file" in refused(*dream, "--out", tmp_path)
    assert "file is a file; expected a folder" in refused(*dream, "--out", "file/dream.png")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(refused, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    assert "shut" in refused(*CAM, "--out", "shut")
    assert "shut" in refused(*CAM, "--out", "shut/out")
    assert "shut" in refused(*CAM, "coffee", "--out", "shut")


@pytest.mark.slow
@pytest.mark.parametrize("out", slow_but("new/out", ["out", "new/out"]))
def test_a_full_disk_leaves_nothing(refused, monkeypatch, out):
    def full(path, **arrays):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(report.np, "savez_compressed", full)
    for images in ((), ("coffee",)):
        line = refused(*CAM, *images, "--out", out)
        assert line == "no space left to write the output; only what was finished is kept"


@pytest.mark.slow
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, capsys):
    def stop(path, **arrays):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(report.np, "savez_compressed", stop)
    assert main([*CAM, "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "jaxai: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_our_own_mistakes_are_not_hidden(tmp_path, monkeypatch):
    def write(*arguments):
        raise KeyError("ours")

    monkeypatch.setattr(report.Writer, "add", write)
    with pytest.raises(KeyError, match="ours"):
        main([*CAM, "--out", str(tmp_path / "out")])
    monkeypatch.setenv("JAXAI_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["explain", "dog"])


# Writes of more than 200 kB fail, as on a full disk.
SMALL_FILES = """
import resource, sys
from jaxai.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_files_that_cannot_grow(tmp_path, lite0):
    words = [*CAM, "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", SMALL_FILES, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "jaxai: error: no space left to write the output; only what was finished is kept\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")
def test_an_answer_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jaxai", "methods"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "jaxai: error: no space left to write the output; only what was finished is kept\n"
