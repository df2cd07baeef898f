"""Runs of the command on a small network where photos, methods or signals end a part: the rest is kept."""

import dataclasses
import json
import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from command_runs import RECORD, WHOLE, files, photo, record
from PIL import Image
from tiny_network import SIZE

import jaxai
from jaxai.cli import main

pytestmark = pytest.mark.usefixtures("quick_compilation", "on_the_small_network")


@pytest.fixture
def heeded():
    """Heed Ctrl-C, which a process that was started in the background ignores, and the command with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def broken_photos(tmp_path):
    for index in range(5):
        photo(tmp_path / f"in/{index}.png", index)
    (tmp_path / "in/1.png").write_text("no photo")
    (tmp_path / "in/4.png").write_bytes((tmp_path / "in/2.png").read_bytes()[:900])


def test_bad_photos_are_lines_and_the_others_are_explained(run, drawn, tmp_path):
    broken_photos(tmp_path)
    (tmp_path / "in/notes.txt").write_text("")
    code, lines, errors = run("explain", "in", "--method", "grad_cam,saliency", "--batch-size", 2)
    assert code == 2
    assert errors[0] == "jaxai: in: left out .txt (1)"
    assert "in/1.png is not an image" in errors[1] and "in/4.png cannot be read" in errors[2]
    assert errors[3:] == ["jaxai: error: 2 of 5 photos were not explained, or not by all methods"]
    assert [line.split(":")[0] for line in lines] == ["in/0.png", "in/2.png", "in/3.png", "out/"]
    assert files(tmp_path / "out") == sorted(
        f"{stem}/{name}" for stem in "023" for name in (*WHOLE, "grad_cam.png", "saliency.png")
    )
    # Each has its own map, whatever stood beside it.
    assert run("explain", "in/3.png", "--method", "saliency", "--out", "alone")[0] == 0
    alone, among = (np.load(tmp_path / folder / "maps.npz") for folder in ("alone", "out/3"))
    for name in ("photo", "saliency", "targets"):
        np.testing.assert_allclose(among[name], alone[name], atol=1e-6)


def test_nothing_but_bad_photos(run, tmp_path):
    broken_photos(tmp_path)
    code, lines, errors = run("explain", "in/1.png", "in/4.png", "--method", "grad_cam")
    assert (code, lines, len(errors)) == (2, [], 3)
    code, _, errors = run("explain", "in/1.png", "--method", "grad_cam")
    assert code == 2 and len(errors) == 1 and errors[0].startswith("jaxai: error: in/1.png is not an image")
    for words in (
        ("atlas", "in/1.png"),
        ("visualize", "efficientnet_lite0", "mixed:0", "--photos", "in/1.png"),
    ):
        code, _, errors = run(*words)
        assert code == 2 and len(errors) == 1 and errors[0].startswith("jaxai: error: in/1.png is not")
    assert not any((tmp_path / name).exists() for name in ("out", "atlas", "features"))


@pytest.mark.slow
def test_an_atlas_and_a_sheet_leave_bad_photos_out(run, tmp_path, monkeypatch, small_network):
    from jaxai.cli import atlas, visualize

    broken_photos(tmp_path)
    good = [f"in/{index}.png" for index in (0, 2, 3)]
    given = []

    def made(model, cropped, **options):
        given.append(cropped)
        counts, points = np.full((1, 1), 6), np.zeros((6, 2))
        about = {"counts": counts, "directions": points, "points": points, "sources": points}
        about["classes"] = np.zeros((1, 1), int)
        return SimpleNamespace(
            cells=np.arange(1),
            draw=lambda numbers: np.zeros((len(numbers), 8, 8, 3)),
            finish=lambda images: SimpleNamespace(images=images[None], **about),
        )

    def excited(model, objectives, cropped, **options):
        given.append(np.asarray(cropped))
        return SimpleNamespace(indices=np.array([[2, 0, 1]]), values=np.array([[3.0, 2.0, 1.0]]))

    monkeypatch.setattr(atlas, "prepare", made)
    monkeypatch.setattr(visualize.features, "exemplars", excited)
    code, lines, errors = run("atlas", "in", "--layer", "mixed")
    assert code == 2 and len(errors) == 2 and lines[0].startswith("mixed of efficientnet_lite0: 3 photos, 6")
    assert np.load(tmp_path / "atlas/atlas.npz")["photos"].tolist() == good
    words = ("visualize", "efficientnet_lite0", "mixed:0", "--steps", 1, "--recipe", "pixels", "--photos")
    code, _, errors = run(*words, "in")
    assert code == 2 and len([line for line in errors if "error" in line]) == 2
    shown = json.loads((tmp_path / "features/visualization.json").read_text())["images"][0]["photos"]
    assert [item["photo"] for item in shown] == ["in/3.png", "in/0.png", "in/2.png"]
    for pixels in given:
        np.testing.assert_array_equal(pixels, small_network.crop([str(tmp_path / name) for name in good]))


@pytest.mark.slow
def test_scores_that_are_not_finite_concern_their_photo_alone(
    run, drawn, tmp_path, small_network, monkeypatch
):
    for index in range(3):
        photo(tmp_path / f"in/{index}.png", index)
    Image.new("RGB", (SIZE, SIZE), (255, 255, 255)).save(tmp_path / "in/1.png")
    features, head = small_network.model.stages

    def unless_white(x):
        return jax.numpy.where(x.min((1, 2, 3), keepdims=True) == 1, jax.numpy.nan, features(x))

    model = jaxai.chain({"mixed": unless_white, "logits": head})
    spoilt = dataclasses.replace(small_network, model=model)
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype: spoilt)
    code, lines, errors = run("explain", "in", "--method", "grad_cam")
    assert (code, len(lines)) == (2, 3)
    assert errors[0] == "jaxai: error: efficientnet_lite0 returns scores that are not finite for in/1.png"
    assert {path.split("/")[0] for path in files(tmp_path / "out")} == {"0", "2"}
    assert record(tmp_path / "out/2")["image"]["source"] == "in/2.png"
    assert run("explain", "in/2.png", "--method", "grad_cam", "--out", "alone")[0] == 0
    alone, among = (np.load(tmp_path / folder / "maps.npz") for folder in ("alone", "out/2"))
    for name in ("photo", "grad_cam", "targets"):
        np.testing.assert_allclose(among[name], alone[name], atol=1e-6)
    code, lines, errors = run("explain", "in/1.png", "--method", "grad_cam", "--out", "none")
    assert (code, lines, len(errors)) == (2, [], 1) and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_method_that_fails_leaves_the_others(run, drawn, tmp_path):
    photo(tmp_path / "a.png")
    words = ("explain", "a.png", "--method", "grad_cam,kernel_shap,saliency", "--segments", "grid")
    code, lines, errors = run(*words, "-o", "kernel_shap.num_samples=2")
    assert code == 2 and lines[-1] == "out/"
    (line,) = errors
    failed = line.removeprefix("jaxai: error: ")
    assert failed.startswith("kernel_shap: 2 masks do not tell") and "raise `num_samples`" in failed
    assert files(tmp_path / "out") == sorted([*WHOLE, "grad_cam.png", "saliency.png"])
    facts = record(tmp_path / "out")
    assert list(facts["methods"]) == ["grad_cam", "saliency"]
    assert facts["failed"] == {"kernel_shap": failed}
    assert set(np.load(tmp_path / "out/maps.npz")) == {"photo", "targets", "segments", "grad_cam", "saliency"}
    # Alone it leaves nothing.
    words = ("explain", "a.png", "--method", "kernel_shap", "--segments", "grid", "--out", "none")
    code, lines, errors = run(*words, "-o", "kernel_shap.num_samples=2")
    assert code == 2 and len(errors) == 1 and not (tmp_path / "none").exists()


def test_an_inner_error_says_that_it_is_one(run, drawn, tmp_path, monkeypatch):
    photo(tmp_path / "a.png"), photo(tmp_path / "b.png")

    def broken(model, images, targets, *, batch_size=None):
        return np.zeros(3) + np.zeros(2)

    monkeypatch.setattr(
        "jaxai.report._methods.perturbation.segment", lambda *a, **o: np.zeros((2, SIZE, SIZE), int)
    )
    from jaxai.report._methods import METHODS

    broken.__name__ = "saliency"
    monkeypatch.setitem(METHODS, "saliency", dataclasses.replace(METHODS["saliency"], function=broken))
    code, _, errors = run("explain", "a.png", "b.png", "--method", "saliency,grad_cam")
    assert code == 2
    assert errors[0].startswith(
        "jaxai: error: saliency: unexpected ValueError: operands could not be broadcast"
    )
    assert errors[0].endswith("(JAXAI_DEBUG=1 shows where)") and len(errors) == 2
    assert files(tmp_path / "out/b") == sorted([*WHOLE, "grad_cam.png"])
    monkeypatch.setenv("JAXAI_DEBUG", "1")
    with pytest.raises(ValueError, match="broadcast"):
        main(["explain", "a.png", "--method", "saliency"])


@pytest.mark.parametrize(
    ("number", "code", "line"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_what_is_finished_is_kept(run, drawn, heeded, tmp_path, monkeypatch, number, code, line):
    photo(tmp_path / "a.png")
    before = {name: signal.getsignal(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP")}
    from jaxai.report import _methods as methods

    whole = methods.run

    def stop(method, *arguments, **options):
        if method.name == "saliency":
            os.kill(os.getpid(), getattr(signal, number))
        return whole(method, *arguments, **options)

    monkeypatch.setattr(methods, "run", stop)
    # Another photo's files, which must not stay beside the new ones.
    (tmp_path / "out").mkdir()
    for name in ("layer_cam.png", "explanation.png"):
        (tmp_path / "out" / name).write_text("")
    old = {"image": {"sha256": "0"}, "methods": {"layer_cam": {}}}
    (tmp_path / "out" / RECORD).write_text(json.dumps(old))
    result, lines, errors = run("explain", "a.png", "--method", "grad_cam,saliency")
    assert (result, errors) == (code, [f"jaxai: {line}"])
    assert "out/grad_cam.png" in lines[-1]
    assert files(tmp_path / "out") == ["explanation.json", "grad_cam.png", "maps.npz"]
    assert list(record(tmp_path / "out")["methods"]) == ["grad_cam"]
    assert set(np.load(tmp_path / "out/maps.npz")) == {"photo", "targets", "grad_cam"}
    assert {name: signal.getsignal(getattr(signal, name)) for name in before} == before


@pytest.mark.slow
def test_images_that_are_finished_are_kept(run, tmp_path, monkeypatch):
    from jaxai.cli import visualize

    whole = visualize.features.visualize
    calls = []

    def stop(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*arguments, **options)

    monkeypatch.setattr(visualize.features, "visualize", stop)
    words = (
        "visualize",
        "efficientnet_lite0",
        "mixed:0-2",
        "--steps",
        1,
        "--recipe",
        "pixels",
        "--batch-size",
        2,
    )
    code, lines, _ = run(*words)
    assert code == 143 and lines[-1].startswith("2 images in ")
    names = ["history.npz", "mixed_0.png", "mixed_1.png", "sheet.png", "visualization.json"]
    assert files(tmp_path / "features") == names


def test_a_dream_is_kept_where_its_pair_cannot_be_drawn(run, tmp_path, monkeypatch):
    photo(tmp_path / "a.png")
    monkeypatch.setattr(jaxai.plots, "pair", lambda *a, **o: (_ for _ in ()).throw(OSError("no font")))
    words = ("--model", "efficientnet_lite0", "--layer", "mixed", "--steps", 1, "--octaves", 1, "--jitter", 0)
    code, lines, errors = run("dream", "a.png", *words, "--pair", "pair.png")
    assert (code, errors) == (2, ["jaxai: error: no font"])
    assert files(tmp_path) == ["a.png", "dream.png"] and lines[0].endswith("dream.png")
