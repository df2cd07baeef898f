"""Runs of the command on a small network: what is lost, mixed or left behind when something goes wrong."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_network import LABELS, SIZE, tiny

import jaxai
from jaxai import _files, cam
from jaxai.cli import main
from jaxai.report import _outputs as outputs
from jaxai.report import _writer as report

pytestmark = pytest.mark.usefixtures("quick_compilation")
RECORD = "explanation.json"


@pytest.fixture(scope="module")
def network():
    jax.devices()
    return tiny()


@pytest.fixture
def run(network, monkeypatch, tmp_path, capsys):
    """Run the command in a folder of its own: the code, the lines it printed, the lines of its errors."""
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype: network)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


@pytest.fixture
def drawn(monkeypatch):
    """Leave out the drawing, which is what takes time."""
    monkeypatch.setattr(report.plots, "png", lambda figure: b"\x89PNG")


@pytest.fixture
def heeded():
    """Heed Ctrl-C, which a process that was started in the background ignores, and the command with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def photo(path, seed=0):
    """Write a photo of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "png")
    return path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def record(folder):
    return json.loads((folder / RECORD).read_text())


WHOLE = ["explanation.json", "explanation.png", "maps.npz"]


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
def test_an_atlas_and_a_sheet_leave_bad_photos_out(run, tmp_path, monkeypatch, network):
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
        np.testing.assert_array_equal(pixels, network.crop([str(tmp_path / name) for name in good]))


@pytest.mark.slow
def test_scores_that_are_not_finite_concern_their_photo_alone(run, drawn, tmp_path, network, monkeypatch):
    for index in range(3):
        photo(tmp_path / f"in/{index}.png", index)
    Image.new("RGB", (SIZE, SIZE), (255, 255, 255)).save(tmp_path / "in/1.png")
    features, head = network.model.stages

    def unless_white(x):
        return jax.numpy.where(x.min((1, 2, 3), keepdims=True) == 1, jax.numpy.nan, features(x))

    model = jaxai.chain({"mixed": unless_white, "logits": head})
    spoilt = dataclasses.replace(network, model=model)
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


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("occlusion", "occlusion.fill=noise"),
        ("feature_ablation", "feature_ablation.fill=noise"),
        ("owen_values", "owen_values.fill=noise"),
        ("sobol", "sobol.fill=noise"),
        ("hsic", "hsic.sampler=latin_hypercube"),
        ("grad_cam", "grad_cam.upsample=False"),
    ],
)
def test_options_that_need_what_the_command_has(run, tmp_path, method, option):
    photo(tmp_path / "a.png")
    small = {
        "occlusion": ["-o", "occlusion.window=16"],
        "hsic": ["-o", "hsic.num_designs=16", "-o", "hsic.grid=2"],
    }
    small["sobol"] = ["-o", "sobol.num_designs=2", "-o", "sobol.grid=2"]
    words = ("--method", method, "--segments", "grid", "-o", option, *small.get(method, []))
    code, _, errors = run("explain", "a.png", *words)
    assert (code, errors) == (0, [])
    name, value = option.split(".")[1].split("=")
    assert str(record(tmp_path / "out")["methods"][method]["options"][name]) == value
    assert np.isfinite(np.load(tmp_path / "out/maps.npz")[method]).all()


@pytest.mark.sampled
@pytest.mark.parametrize(
    "method", ["conductance", "deep_lift_shap", "expected_gradients", "forgrad", "fused_cam"]
)
def test_methods_that_need_more_than_a_photo(run, drawn, tmp_path, network, method):
    photo(tmp_path / "a.png")
    small = {"conductance": "steps=4", "expected_gradients": "num_samples=4"}
    words = ["-o", f"{method}.{small[method]}"] if method in small else []
    code, _, errors = run("explain", "a.png", "--method", method, *words)
    assert (code, errors) == (0, [])
    found = np.load(tmp_path / "out/maps.npz")[method]
    assert found.shape[:2] == (SIZE, SIZE) and np.isfinite(found).all()
    assert np.ptp(found) > 0 or method == "forgrad"  # The gradient of this network has no pattern.
    if method == "deep_lift_shap":
        corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(8, 1, 1, 3)
        baselines = jax.numpy.asarray(np.broadcast_to(corners, (8, SIZE, SIZE, 3)), jax.numpy.float32)
        target = int(np.load(tmp_path / "out/maps.npz")["targets"][0])
        images = network.preprocess(str(tmp_path / "a.png"))
        expected = jaxai.deep_lift_shap(network.model, images, target, baselines=baselines)[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


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


@pytest.mark.slow
def test_sheets_of_two_networks_do_not_mix(run, tmp_path, network, monkeypatch):
    words = ("visualize", "efficientnet_lite0", "--steps", 1, "--recipe", "pixels")
    assert run(*words, "mixed:0")[0] == 0
    assert run(*words, "mixed:1")[0] == 0
    assert {"mixed_0.png", "mixed_1.png"} <= set(files(tmp_path / "features"))
    other = dataclasses.replace(network, digest="1" * 64)
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


def test_a_dream_is_kept_where_its_pair_cannot_be_drawn(run, tmp_path, monkeypatch):
    photo(tmp_path / "a.png")
    monkeypatch.setattr(jaxai.plots, "pair", lambda *a, **o: (_ for _ in ()).throw(OSError("no font")))
    words = ("--model", "efficientnet_lite0", "--layer", "mixed", "--steps", 1, "--octaves", 1, "--jitter", 0)
    code, lines, errors = run("dream", "a.png", *words, "--pair", "pair.png")
    assert (code, errors) == (2, ["jaxai: error: no font"])
    assert files(tmp_path) == ["a.png", "dream.png"] and lines[0].endswith("dream.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explain", ""), "named by an empty word"),
        (("dream", ""), "named by an empty word"),
        (("atlas", ""), "named by an empty word"),
        (("explain", "cat", "--seed", 2**32), "4294967295"),
        (("explain", "cat", "--seed", 2**63), "4294967295"),
        (("explain", "cat", "--seed", "9" * 5000), "--seed"),
        (("explain", "cat", "--batch-size", 2**31), "2147483647"),
        (("explain", "cat", "--target", "9" * 5000), "a class from 0 to 4; got 999"),
        (("explain", "cat", "--target", "blu"), "unknown class 'blu'; did you mean blue?"),
        (("explain", "cat", "--layer", "mixd"), "unknown layer 'mixd'; did you mean mixed?"),
        (
            ("explain", "cat", "--segments", "slick"),
            "`--segments`: unknown method 'slick'; did you mean slic",
        ),
        (("explain", "cat", "--method", "gradcam"), "did you mean grad_cam"),
        (("explain", "cat", "--model", "efficientnetlite0"), "did you mean efficientnet_lite0"),
        (("explain", "rokcet"), "did you mean rocket?"),
        (("explain", "cat", "-o", "lime.tolerance=nan"), "expected a finite number"),
        (("explain", "cat", "-o", "lime.num_samples=1e3"), "expected a whole number"),
        (("explain", "cat", "--out", "dead"), "dead is a link to something that does not exist"),
        (("dream", "noise", "--out", "dead"), "dead is a link to something that does not exist"),
        (("dream", "noise", "--seed", 2**63), "4294967295"),
        (("dream", "noise", "--step-size", "nan"), "--step-size"),
        (("dream", "noise", "--step-size", "inf"), "255"),
        (("dream", "noise", "--step-size", "1e308"), "255"),
        (("dream", "noise", "--octave-scale", "inf"), "16"),
        (("dream", "noise", "--octave-scale", "nan"), "--octave-scale"),
        (("dream", "noise", "--jitter", "9" * 20), "32768"),
        (("dream", "noise", "--size", 10**9), "32768"),
        (("dream", "noise", "--steps", 2**31), "2147483647"),
        (("dream", "noise", "--layer", "mixd"), "unknown layer 'mixd'; did you mean mixed?"),
        (("visualize", "efficientnet_lite0", "mixed:9"), "channels 0 to 5; got 9"),
        (("visualize", "efficientnet_lite0", f"mixed:{'9' * 5000}"), "channels are written"),
        (("visualize", "efficientnet_lite0", "logits:top3"), "top3 depends on a photo"),
        (("visualize", "efficientnet_lite0", "mixd:1"), "did you mean mixed?"),
        (("visualize", "efficientnet_lite0", "mixed:1", "--steps", 2**31), "2147483647"),
        (("layers", "vgg16_brain"), "did you mean vgg16_brain_mri"),
        (("convert", "x.pth", "--model", "vgg61"), "unknown model 'vgg61'; did you mean vgg1"),
    ],
)
def test_what_is_refused_before_any_work(run, tmp_path, network, monkeypatch, words, message):
    (tmp_path / "dead").symlink_to("nowhere")
    monkeypatch.setattr(network.__class__, "preprocess", None)
    monkeypatch.setattr(network.__class__, "crop", None, raising=False)
    code, lines, errors = run(*words)
    assert (code, lines) == (2, [])
    assert len(errors) == 1 and errors[0].startswith("jaxai: error: ") and message in errors[0]
    assert len(errors[0]) <= 2000 and os.listdir(tmp_path) == ["dead"]


def test_a_reader_who_leaves_changes_nothing(network, drawn, tmp_path, monkeypatch):
    photo(tmp_path / "a.png")
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype: network)
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


@pytest.mark.parametrize(
    "option",
    [
        "integrated_gradients.steps=0",
        "rise.num_masks=-3",
        "lime.num_samples=1",
        "occlusion.window=99",
        "smooth_grad.noise=-1",
        "smooth_grad.num_samples=0",
        "sobol.grid=0",
        "lime.kernel_width=-1",
    ],
)
def test_numbers_that_a_method_refuses_are_refused_before_any_work(run, tmp_path, option):
    photo(tmp_path / "a.png")
    name, number = option.partition(".")[::2]
    code, lines, errors = run("explain", "a.png", "--method", f"grad_cam,{name}", "--option", option)
    assert (code, lines) == (2, []) and files(tmp_path) == ["a.png"]
    (line,) = errors
    assert line.startswith(f"jaxai: error: {name}: `{number.partition('=')[0]}` must ")
