"""`jaxai compare` and `jaxai explain --scores`, on the real EfficientNet-Lite0; pictures of comparisons."""

import csv
import json
import os
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

import jaxai
from jaxai import plots
from jaxai.cli import compare
from jaxai.metrics import Comparison
from jaxai.report import _masks
from jaxai.report import _scores as scores

QUICK = ("--metric", "relevance_gain,gini", "-o", "relevance-gain.steps=2")


@pytest.fixture(scope="module", autouse=True)
def started():
    """Start JAX with the tests' settings, so that the command leaves them alone."""
    jax.devices()


def table(methods=3, references=2, metrics=3, images=6):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(methods + references, metrics, images))
    values[methods:, -1] = np.nan
    names = [f"method_{i}" for i in range(methods)]
    return Comparison(
        tuple(names),
        tuple(f"reference {i}" for i in range(references)),
        tuple(f"metric_{i}" for i in range(metrics)),
        ("higher", "lower", "higher", "lower", "higher")[:metrics],
        values,
        {"metric_0": 0.1},
        dict.fromkeys(names, 0.5),
        rng.integers(0, images, (50, images)),
        0.95,
        {},
        dict.fromkeys(names, "1 + 1 backward"),
    )


@pytest.mark.slow
def test_compare_writes_table_picture_json_and_csv(run, tmp_path, lite0, photos):
    out = tmp_path / "new" / "out"
    words = (
        "compare",
        "cat",
        "coffee",
        "--method",
        "saliency,grad-cam",
        "--references",
        "centre",
        "--out",
        out,
    )
    code, lines, errors = run(*words, *QUICK)
    assert (code, errors) == (0, [])
    assert lines[0].startswith("cat: Egyptian cat (285) ") and lines[1].startswith("coffee: espresso (967) ")
    assert "relevance_gain (max)" in lines[2] and lines[2].endswith("passes")
    assert lines[4].startswith("saliency ") and lines[4].endswith("1 + 1 backward")
    assert lines[-1] == f"{out}{os.sep}"
    assert sorted(os.listdir(out)) == ["comparison.csv", "comparison.json", "comparison.png"]
    pixels = np.asarray(Image.open(out / "comparison.png"))
    assert pixels.shape[0] > 150 and pixels.shape[1] > 600 and pixels.std() > 10
    found = json.loads((out / "comparison.json").read_text())
    assert found["rows"] == ["saliency", "grad_cam", "centre"]
    assert found["settings"]["options"]["relevance_gain"] == {"steps": 2}
    assert found["settings"]["photos"] == ["cat", "coffee"] and found["settings"]["targets"] == [285, 967]
    x = jax.numpy.concatenate([lite0.preprocess(photos[name]) for name in ("cat", "coffee")])
    maps = jaxai.grad_cam(lite0.model, x, jax.numpy.array([285, 967]))
    gain = jaxai.metrics.relevance_gain(lite0.model, x, maps, np.array([285, 967]), steps=2).gain
    np.testing.assert_allclose(found["scores"][1][0], gain, atol=1e-3)
    np.testing.assert_allclose(found["scores"][1][1], jaxai.metrics.gini(maps), atol=1e-3)
    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert len(rows) == 6 and float(rows[2]["mean"]) == pytest.approx(float(gain.mean()), abs=1e-3)


def test_photos_of_images(lite0, photos):
    for normalize in (lite0.normalize, jaxai.models.normalization.caffe):
        photo = jax.numpy.asarray(lite0.crop(photos["cat"]))
        net = type("Net", (), {"normalize": staticmethod(normalize)})
        np.testing.assert_allclose(compare._photos(net, normalize(photo)), photo, atol=1e-5)


@pytest.mark.slow
def test_explain_writes_scores(run, tmp_path, lite0, photos):
    out = tmp_path / "out"
    code, _, errors = run(
        "explain", "cat", "--method", "grad_cam", "--scores", "--target", "top2", "--out", out
    )
    assert (code, errors) == (0, [])
    found = json.loads((out / "explanation.json").read_text())["methods"]["grad_cam"]["scores"]
    assert list(found) == list(scores.DEFAULT) and all(len(values) == 2 for values in found.values())
    maps = np.load(out / "maps.npz")
    np.testing.assert_allclose(found["gini"], jaxai.metrics.gini(maps["grad_cam"]), atol=1e-5)
    gain = jaxai.metrics.relevance_gain(
        lite0.model,
        lite0.preprocess(photos["cat"]),
        maps["grad_cam"][None],
        maps["targets"][None],
        steps=28,
    ).gain
    np.testing.assert_allclose(found["relevance_gain"], gain[0], atol=1e-3)
    plain = tmp_path / "plain"
    assert run("explain", "cat", "--method", "grad_cam", "--target", "top2", "--out", plain)[0] == 0
    assert "scores" not in json.loads((plain / "explanation.json").read_text())["methods"]["grad_cam"]
    high, low = (len(np.asarray(Image.open(folder / "explanation.png"))) for folder in (out, plain))
    assert high > low, "there is room for the scores"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metric", "beauty"), "unknown metric 'beauty'"),
        (("--metric", "mass_accuracy"), "mass_accuracy needs masks: `jaxai compare --masks FOLDER`"),
        (("--metric", "gini", "-o", "gini.steps=2"), "gini has no option 'steps'; it has none"),
        (("-o", "insertion.steps=many"), "`--option insertion.steps=many`: expected"),
        (("-o", "lime.num_samples=3", "--method", "saliency"), "'lime' is not among the methods saliency"),
        (("--references", "noise"), "`--references`: unknown reference 'noise'"),
        (("--target", "top2"), "`--target` must be one class for `jaxai compare`; got top2"),
        (("--segments", "hexagons"), "unknown method 'hexagons'"),
    ],
)
def test_mistakes_give_a_line(run, tmp_path, words, message):
    code, lines, errors = run("compare", "cat", "--out", tmp_path / "out", *words)
    assert code == 2 and lines == [] and len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "out").exists()


def _mask(folder, name, shape, box, **how):
    pixels = np.zeros(shape, np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 255
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).convert(how.pop("mode", "L")).save(folder / name)


@pytest.mark.slow
def test_masks_tell_where_the_evidence_is(run, tmp_path, lite0):
    # Chelsea is 451 x 300, so that the network sees columns 75 to 375.
    folder = tmp_path / "masks"
    _mask(folder, "cat.png", (300, 451), (225, 0, 451, 300), mode="1")
    out = tmp_path / "out"
    words = (
        "--metric",
        "mass_accuracy,pointing_game",
        "--references",
        "centre",
        "--method",
        "saliency,grad_cam",
    )
    code, _, errors = run("compare", "cat", "--masks", folder, "--out", out, *words)
    assert (code, errors) == (0, [])
    found = json.loads((out / "comparison.json").read_text())
    assert found["rows"] == ["saliency", "grad_cam", "centre", "truth"]
    x = lite0.preprocess(jaxai.report._photos.find(["cat"]).photos[0].read())
    half = np.zeros((1, 224, 224), bool)
    half[:, :, 112:] = True
    heat = jaxai.grad_cam(lite0.model, x, 285)
    assert found["scores"][1][0][0] == pytest.approx(
        float(jaxai.metrics.mass_accuracy(heat, half)[0]), abs=1e-3
    )
    assert found["scores"][3][0][0] == 1.0 and found["chance"]["mass_accuracy"] == pytest.approx(
        0.5, abs=0.01
    )


def test_masks_are_fitted_as_photos_are(tmp_path, lite0):
    photo = jaxai.report._photos.find(["cat"]).photos[0]
    _mask(tmp_path, "all.png", (300, 451), (0, 0, 451, 300))
    read = partial(_masks.read, photo=photo, net=lite0)
    assert read(tmp_path / "all.png", reading={}).all()
    padded = read(tmp_path / "all.png", reading={"fit": "pad"})
    assert padded.mean() == pytest.approx(round(224 * 300 / 451) / 224, abs=0.01) and not padded[0].any()
    np.save(tmp_path / "part.npy", np.eye(300, 451) + (np.arange(451) > 300))
    assert 0.2 < read(tmp_path / "part.npy", reading={}).mean() < 0.3
    palette = Image.fromarray(np.full((300, 451), 3, np.uint8), "P")
    palette.putpalette([0] * 768)
    palette.save(tmp_path / "palette.png")
    assert read(tmp_path / "palette.png", reading={}).all()


def test_masks_that_do_not_fit_give_a_line(run, tmp_path):
    words = ("compare", "cat", "--metric", "mass_accuracy", "--out", tmp_path / "out", "--masks")
    folder = tmp_path / "masks"
    code, _, errors = run(*words, folder)
    assert code == 2 and "`--masks`: there is no folder " in errors[0]
    _mask(folder, "dog.png", (300, 451), (0, 0, 9, 9))
    code, _, errors = run(*words, folder)
    assert (
        code == 2
        and "expected one mask for cat in" in errors[0]
        and "such as cat.png; found none" in errors[0]
    )
    _mask(folder, "cat.png", (30, 45), (0, 0, 9, 9))
    code, _, errors = run(*words, folder)
    assert code == 2 and "is 45 x 30 pixels; expected those of cat, 451 x 300" in errors[-1]
    _mask(folder, "cat.png", (300, 451), (0, 0, 60, 300))
    code, _, errors = run(*words, folder)
    assert code == 2 and "marks nothing of what efficientnet_lite0 sees of cat" in errors[-1]
    (folder / "cat.png").write_bytes(b"no picture")
    code, _, errors = run(*words, folder)
    assert code == 2 and "cannot be read as a mask" in errors[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_pictures_of_comparisons():
    figure = plots.comparison(table(), title="a $title_1$")
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == ["metric 0", "metric 1", "metric 2"]
    means = table().means
    drawn = [line.get_xdata()[0] for line in panels[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(drawn, means[:, 0])
    ends = sorted(tuple(seg[:, 0]) for bars in panels[0].collections for seg in bars.get_segments())
    np.testing.assert_allclose(ends, sorted(map(tuple, table().intervals[:, 0])))
    best = [line.get_color() for line in panels[1].lines if line.get_marker() == "o"]
    assert best.count("#c2410c") == 1 and best.index("#c2410c") == means[:3, 1].argmin()
    texts = [text.get_text() for text in panels[2].texts]
    assert texts.count("–") == 2, "a reference is no method"
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("1 + 1 backward") == 3
    dashed = [line for line in panels[0].lines if line.get_linestyle() == "--"]
    assert len(dashed) == 1 and dashed[0].get_xdata()[0] == 0.1
    wide, tall = (plots.render(plots.comparison(table(metrics=5), columns=c)).shape for c in (5, 2))
    assert wide[1] > tall[1] and wide[0] < tall[0]
    alone = plots.render(plots.comparison(table(methods=1, references=0, metrics=1)))
    # Nothing is cut off: the edge of the picture is white.
    assert all((edge == 255).all() for edge in (alone[0], alone[-1], alone[:, 0], alone[:, -1]))


def test_the_time_left_is_that_of_the_rows_left():
    from jaxai.cli.compare import _Rows
    from jaxai.report._progress import Progress

    now = [0.0]
    rows = _Rows(Progress(False, clock=lambda: now[0]), 2)
    rows.expect({"one": 100.0, "two": 300.0}, 50.0, 3)  # 150, and 300 + 4 * 50 passes for each photo
    assert rows.progress.state()[1:] == (0.0, None)
    with rows:
        rows.begin("one")
        now[0] = 30.0
        rows.begin("one")
        rows.begin("two")
        name, done, left = rows.progress.state()
        assert name == "two" and done == pytest.approx(300 / 1300) and left == pytest.approx(100.0)
        now[0] = 80.0
        assert rows.progress.state()[2] == pytest.approx(50.0)
    assert rows.progress.state()[1] == pytest.approx(1.0)
