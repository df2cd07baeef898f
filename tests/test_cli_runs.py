"""Runs of the command on a small network: what they write is not overwritten or mixed; names and streams."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from command_runs import WHOLE, files, photo, record
from PIL import Image
from tiny_network import LABELS, SIZE, tiny

import jaxai
from jaxai import _files, cam
from jaxai.cli import main
from jaxai.report import _outputs as outputs
from jaxai.report import _writer as report

pytestmark = pytest.mark.usefixtures("quick_compilation", "on_the_small_network")


@pytest.mark.parametrize("name", ["grad_cam.png", "explanation.png", "maps.npz", "explanation.json"])
def test_the_photo_is_not_overwritten(run, tmp_path, name):
    whole = photo(tmp_path / "in.png").rename(tmp_path / name).read_bytes()
    code, lines, errors = run("explain", name, "--method", "grad_cam", "--out", ".")
    assert (code, lines) == (2, [])
    assert errors == [
        f"jaxai: error: the output {name} would replace {name}, which is read; choose another --out"
    ]
    assert files(tmp_path) == [name] and (tmp_path / name).read_bytes() == whole


def test_no_photo_of_a_run_is_overwritten_by_any_command(run, tmp_path):
    photo(tmp_path / "out/grad_cam/lime.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").symlink_to(tmp_path / "out/grad_cam/lime.png")
    photo(tmp_path / "in/grad_cam.png")
    for words in (
        ("explain", "in", "out/grad_cam/lime.png", "--method", "saliency,lime"),
        ("dream", "in/a.png", "--out", "out/grad_cam/lime.png"),
        ("dream", "in/a.png", "--pair", "in/a.png"),
        ("visualize", "efficientnet_lite0", "mixed:0", "--photos", "in", "--out", "sheets"),
        ("atlas", "in", "--out", "sheets"),
        ("convert", "in/a.png", "--model", "vgg16", "--out", "out/grad_cam/lime.png"),
        ("dream", "in/a.png", "--out", "x.png", "--pair", "./x.png"),
    ):
        if words[-1] == "sheets":
            (tmp_path / "sheets").mkdir(exist_ok=True)
            for name in ("sheet.png", "atlas.png"):
                (tmp_path / "sheets" / name).unlink(missing_ok=True)
                (tmp_path / "sheets" / name).symlink_to(tmp_path / "in/grad_cam.png")
        before = {path: (tmp_path / path).read_bytes() for path in files(tmp_path)}
        code, _, errors = run(*words)
        assert code == 2 and len(errors) == 1, (words, errors)
        assert "which is read; choose another" in errors[0] or "both name" in errors[0]
        assert {path: (tmp_path / path).read_bytes() for path in files(tmp_path)} == before


def test_a_second_run_does_not_mix_photos(run, drawn, tmp_path):
    photo(tmp_path / "a.jpg", 1), photo(tmp_path / "b.jpg", 2)
    assert run("explain", "a.jpg", "--method", "grad_cam")[0] == 0
    (tmp_path / "out/mine.png").write_text("mine")
    assert run("explain", "a.jpg", "--method", "saliency")[0] == 0
    # The same photo: both methods' pictures, and the record knows of the older one.
    assert files(tmp_path / "out") == sorted([*WHOLE, "grad_cam.png", "mine.png", "saliency.png"])
    assert record(tmp_path / "out")["earlier_pictures"] == ["grad_cam.png"]
    assert list(record(tmp_path / "out")["methods"]) == ["saliency"]
    assert run("explain", "b.jpg", "--method", "layer_cam")[0] == 0
    assert files(tmp_path / "out") == sorted([*WHOLE, "layer_cam.png", "mine.png"])
    assert record(tmp_path / "out")["image"]["source"] == "b.jpg"
    assert "earlier_pictures" not in record(tmp_path / "out")


def test_folders_of_photos_stay_theirs(run, drawn, tmp_path):
    photo(tmp_path / "in/a.jpg", 1), photo(tmp_path / "in/a.png", 2)
    assert run("explain", "in", "--method", "grad_cam", "--out", "o")[0] == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.jpg", "a.png"]
    (tmp_path / "in/a.jpg").unlink()
    photo(tmp_path / "in/b.png", 3)
    assert run("explain", "in", "--method", "saliency", "--out", "o")[0] == 0
    for folder in (tmp_path / "o").iterdir():
        pictures = [name for name in files(folder) if name not in WHOLE]
        assert pictures == [f"{name}.png" for name in record(folder)["methods"]]
    sources = {folder.name: record(folder)["image"]["source"] for folder in (tmp_path / "o").iterdir()}
    assert sources == {"a": "in/a.png", "a.jpg": "in/a.jpg", "a.png": "in/a.png", "b": "in/b.png"}


def test_two_runs_at_once_do_not_mix(run, drawn, tmp_path, monkeypatch):
    photo(tmp_path / "a.jpg", 1), photo(tmp_path / "b.jpg", 2)
    whole = report.Writer.add
    added = []

    def add(writer, part):
        if len(added) == 1:
            added.append("b")
            assert main(["explain", "b.jpg", "--method", "layer_cam"]) == 0
        added.append("a")
        whole(writer, part)

    monkeypatch.setattr(report.Writer, "add", add)
    code, _, errors = run("explain", "a.jpg", "--method", "grad_cam,saliency")
    assert code == 2 and "another run has written to out meanwhile" in errors[-1]
    assert files(tmp_path / "out") == sorted([*WHOLE, "layer_cam.png"])
    assert record(tmp_path / "out")["image"]["source"] == "b.jpg"


@pytest.mark.slow
def test_sheets_of_two_networks_do_not_mix(run, tmp_path, small_network, monkeypatch):
    words = ("visualize", "efficientnet_lite0", "--steps", 1, "--recipe", "pixels")
    assert run(*words, "mixed:0")[0] == 0
    assert run(*words, "mixed:1")[0] == 0
    assert {"mixed_0.png", "mixed_1.png"} <= set(files(tmp_path / "features"))
    other = dataclasses.replace(small_network, digest="1" * 64)
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype: other)
    assert run(*words, "mixed:2")[0] == 0
    assert [name for name in files(tmp_path / "features") if "mixed" in name] == ["mixed_2.png"]


@pytest.mark.slow
def test_leftovers_of_killed_runs_are_removed(run, drawn, tmp_path):
    photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    (tmp_path / "out/a").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "out", tmp_path / "out/a"):
        (folder / ".jaxai-0123abcd.part").mkdir()
        (folder / ".jaxai-0123abcd.part/grad_cam.png").write_text("half")
        (folder / ".jaxai-0123abce.part").write_text("half")
    with _files.temporary(tmp_path) as used:
        assert run("explain", "a.png", "b.png", "--method", "grad_cam")[0] == 0
        assert [path for path in files(tmp_path) if ".part" in path] == [used.name]
    (tmp_path / ".jaxai-0123abcd.part").write_text("half")
    words = ("--layer", "mixed", "--model", "efficientnet_lite0", "--steps", 1, "--octaves", 1, "--jitter", 0)
    assert run("dream", "noise", "--size", 32, *words)[0] == 0
    assert not [path for path in files(tmp_path) if ".part" in path]


@pytest.mark.slow
def test_names_are_data(run, tmp_path, monkeypatch):
    """Escapes, mathematics, line breaks, bytes that are not UTF-8 and the longest names, in every place."""
    names = [
        "b\x1b[31mRED\x1b]0;pwned\a.png",
        "Ba$$in \\frac{.png",
        "$x^2_{$.png",
        "two\nlines.png",
        f"{'n' * 251}.png",
    ]
    names += [os.fsdecode(b"caf\xe9.png"), "...png", "\u202egnp.exe.png"]
    for index, name in enumerate(names):
        photo(tmp_path / "in" / name, index)
    paths = [tmp_path / "in" / name for name in names]
    with monkeypatch.context() as patch:
        patch.setattr(report.plots, "png", lambda figure: b"\x89PNG")
        code, lines, errors = run("explain", *paths, "--method", "grad_cam", "--out", "deep/out")
    assert (code, errors) == (0, [])
    text = "\n".join(lines)
    assert text.isprintable() or all(line.isprintable() for line in lines)
    assert r"caf\xe9.png" in text and r"two\nlines.png" in text and r"\x1b[31mRED" in text
    assert sorted(os.listdir(tmp_path)) == ["deep", "in"] and os.listdir(tmp_path / "deep") == ["out"]
    assert len(os.listdir(tmp_path / "deep/out")) == len(names)
    for folder in (tmp_path / "deep/out").iterdir():
        assert files(folder) == sorted([*WHOLE, "grad_cam.png"])
        record(folder)["image"]["source"].encode()
    words = ("--model", "efficientnet_lite0", "--layer", "mixed", "--steps", 1, "--octaves", 1, "--jitter", 0)
    for index in (0, 1, 2, 3, 5):
        code, _, errors = run("dream", paths[index], *words, "--out", "d.png", "--pair", "pair.png")
        assert (code, errors) == (0, [])
    words = ("visualize", "efficientnet_lite0", "mixed:0", "--steps", 1, "--recipe", "pixels", "--photos")
    assert run(*words, tmp_path / "in")[0] == 0
    missing = tmp_path / "no\x1b[31m\udce9.png"
    code, _, errors = run("explain", missing)
    assert code == 2 and errors[0].isprintable() and r"no\x1b[31m\xe9.png" in errors[0]


def test_a_reader_who_leaves_changes_nothing(drawn, tmp_path, monkeypatch):
    photo(tmp_path / "a.png")
    for words in (["methods"], ["--help"], ["explain", str(tmp_path / "a.png"), "--method", "grad_cam"]):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.chdir(tmp_path)
            assert main(words) == 0
    assert files(tmp_path / "out") == sorted([*WHOLE, "grad_cam.png"])
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert main(["explain", "dog"]) == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no such shell")
def test_streams_that_are_closed(tmp_path):
    script = f'"{sys.executable}" -m jaxai methods >&- 2>&- <&- && echo fine'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr, list(tmp_path.iterdir())) == ("fine\n", "", [])


@pytest.mark.filterwarnings("default")
def test_warnings_are_lines(run, drawn, tmp_path):
    pages = [Image.new("L", (SIZE, SIZE), level) for level in (0, 200)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    code, _, errors = run("explain", "stack.tif", "--method", "grad_cam")
    assert code == 0
    assert len(errors) == 1 and errors[0].startswith("jaxai: warning: stack.tif: ") and "page" in errors[0]
    assert np.load("out/maps.npz")["photo"].max() == 0
    words = ("--method", "grad_cam", "--page", 2, "--white", 200, "--out", "second")
    code, _, errors = run("explain", "stack.tif", *words)
    assert (code, errors) == (0, [])
    np.testing.assert_allclose(np.load("second/maps.npz")["photo"], 1)
    image = record(tmp_path / "second")["image"]
    assert (image["page"], image["white"], "alpha" in image) == (2, 200, False)


def test_labels_are_those_of_the_network(run, drawn, tmp_path):
    photo(tmp_path / "a.png")
    code, lines, _ = run("explain", "a.png", "--method", "grad_cam", "--target", "light_grey,blue")
    assert code == 0 and lines[0] == "a.png as efficientnet_lite0 sees it:"
    assert [item["label"] for item in record(tmp_path / "out")["targets"]] == [LABELS[4], LABELS[2]]
    maps = np.load(tmp_path / "out/maps.npz")["grad_cam"]
    net = tiny()
    expected = cam.grad_cam(net.model, net.preprocess(str(tmp_path / "a.png")), np.array([[4, 2]]))[0]
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_numbers_of_a_record():
    assert outputs.numbers(np.float32("nan")) is None and outputs.numbers(np.array([np.inf, 1])) == [None, 1]
