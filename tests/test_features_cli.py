"""`jaxai visualize` and `jaxai atlas`: what they write, and what they say of mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxai.cli import main
from jaxai.cli.sheets import as_bytes, contact_sheet

pytestmark = pytest.mark.usefixtures("quick_compilation")

VISUALIZE = ["visualize", "efficientnet_lite0"]


def run(*arguments):
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.mark.slow
def test_visualize_writes_a_sheet_images_and_a_record(tmp_path, capsys):
    out = tmp_path / "seen"
    options = ["--size", 32, "--steps", 2, "--batch-size", 2, "--photos", "cat", "--photos", "coffee"]
    code = run(*VISUALIZE, "stem:0,2-3", *options, "--out", out)
    assert code in (0, None)
    names = ["stem_0.png", "stem_2.png", "stem_3.png"]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [*names, "history.npz", "sheet.png", "visualization.json"]
    )
    with Image.open(out / "stem_0.png") as picture:
        assert picture.size == (32, 32)
    record = json.loads((out / "visualization.json").read_text())
    assert [image["file"] for image in record["images"]] == names
    assert record["model"] == "efficientnet_lite0"
    for image in record["images"]:
        first, second = image["photos"]
        assert first["activation"] >= second["activation"]
        assert {first["photo"], second["photo"]} == {"cat", "coffee"}
    with Image.open(out / "sheet.png") as sheet:
        # An image and two photos a row.
        assert sheet.size[0] == 3 * 38 + 6
        assert sheet.size[1] > 3 * 38 + 6
    history = np.load(out / "history.npz")["history"]
    assert history.shape == (3, 2)
    np.testing.assert_allclose([i["activation"] for i in record["images"]], history[:, -1], rtol=1e-6)
    assert "stem:2" in capsys.readouterr().out


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("mystery:1", "unknown layer"),
        ("stem:32", "channels 0 to 31; got 32"),
        ("stem:6-5", "goes upwards"),
        ("stem:red", "channels are written"),
        ("logits:mystery", "unknown class"),
        ("logits:1000", "channels 0 to 999"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, wanted, message):
    assert run(*VISUALIZE, wanted, "--out", tmp_path / "seen") == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "seen").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_warnings_are_lines(tmp_path, capsys):
    arguments = ["--size", 16, "--steps", 1, "--recipe", "pixels", "--no-single", "--out", tmp_path / "seen"]
    assert run(*VISUALIZE, "block2b:0", *arguments) in (0, None)
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert lines == [
        "jaxai: warning: block2b:0: images of 16 x 16 pixels are smaller than what a unit of layer 'block2b'"
        " sees, 19 x 19 pixels: every unit sees padding; choose a larger `size`"
    ]
    assert not list((tmp_path / "seen").glob("block*"))


@pytest.mark.slow
def test_atlas_writes_a_map(tmp_path, capsys):
    out = tmp_path / "atlas"
    arguments = ["--layer", "stem", "--grid", 2, "--samples", 4, "--size", 32, "--steps", 1]
    assert run("atlas", "cat", "coffee", *arguments, "--out", out) in (0, None)
    assert sorted(p.name for p in out.iterdir()) == ["atlas.npz", "atlas.png"]
    assert int(np.load(out / "atlas.npz")["counts"].sum()) == 8
    assert "8 activations" in capsys.readouterr().out
    assert run("atlas", tmp_path / "nowhere") == 2


def test_a_contact_sheet_holds_every_image_in_order():
    images = [np.full((40, 40, 3), level) for level in (0.0, 0.25, 0.5)]
    sheet = np.asarray(contact_sheet(images, columns=2))
    assert sheet.shape == (2 * 46 + 6, 2 * 46 + 6, 3)
    corners = [sheet[6, 6, 0], sheet[6, 52, 0], sheet[52, 6, 0]]
    assert corners == [0, 64, 128]
    named = contact_sheet(images, ["a name that is much too long to fit"] * 3, columns=3)
    assert named.size[1] > 46
    assert as_bytes(np.ones((2, 2, 1))).shape == (2, 2, 3)


@pytest.mark.slow
def test_the_command_dreams_what_the_function_does(run, tmp_path, monkeypatch):
    import dataclasses

    import jax
    from tiny_network import tiny

    import jaxai

    net = dataclasses.replace(tiny(), model=jaxai.chain({"square": lambda x: x**2}))
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype=None: net)
    pixels = (np.arange(40 * 32 * 3) % 200 + 20).astype(np.uint8).reshape(40, 32, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    words = ("--layer", "square", "--octaves", 3, "--steps", 2, "--jitter", 4, "--seed", 7)
    code, _, errors = run("dream", tmp_path / "a.png", "--out", tmp_path / "d.png", *words)
    assert (code, errors) == (0, [])
    expected = jaxai.deep_dream(
        net.model,
        pixels[None] / np.float32(255),
        layer="square",
        key=jax.random.key(7),
        octaves=3,
        steps=2,
        jitter=4,
    )
    found = np.asarray(Image.open(tmp_path / "d.png"), np.float32) / 255
    np.testing.assert_allclose(found, expected[0], atol=0.51 / 255)
