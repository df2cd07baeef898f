"""The one call for people: its maps are those of the pure functions, and its results show themselves."""

import dataclasses
import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image
from tiny_network import LABELS, SIZE, ramps, tiny

import jaxai

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def net():
    return tiny()


@pytest.fixture(scope="module")
def pixels():
    return ramps()


@pytest.fixture(scope="module")
def photos(pixels):
    return np.stack([pixels, 255 - pixels])


@pytest.fixture(scope="module")
def explained(net, photos):
    return jaxai.explain(
        net,
        photos,
        methods={
            "grad_cam": {"relu": False},
            # The network sees means of 8 x 8 pixels, which the mean colour of a superpixel would not change.
            "lime": {"num_samples": 200, "fill": 0.0},
            "input_x_gradient": {},
        },
        targets="top2",
        segments="grid",
        scores=True,
        seed=3,
    )


def normalized(net, scale):
    """The network with a softmax at its end."""
    model = Partial(lambda model, x: jax.nn.softmax(scale * model(x)), net.model)
    return dataclasses.replace(net, model=model)


def test_probabilities_are_told_as_they_are_and_flat_ones_are_noted(net, pixels):
    """A softmax that float32 rounds to 1 has no gradient, and no map: both are said."""
    told = {}
    for scale in (1, 1e4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            told[scale] = jaxai.explain(normalized(net, scale), pixels, methods="saliency")
        lines = "\n".join(str(one.message) for one in caught)
        assert bool(re.search("returns probabilities, and that of .* is 1, where it is flat", lines)) == (
            scale > 1
        )
        assert ("the map of saliency is zero everywhere" in lines) == (scale > 1)
        assert np.any(told[scale].maps["saliency"]) == (scale == 1)
    share = float(jax.nn.softmax(net.model(net.normalize(net.crop([pixels])))).max())
    assert told[1].targets[0][0]["probability"] == pytest.approx(share, rel=1e-5)
    assert told[1e4].targets[0][0]["probability"] == 1


def test_maps_are_those_of_the_functions(net, photos, explained):
    x = net.normalize(net.crop(list(photos)))
    classes = np.argsort(-np.asarray(net.model(x)), axis=-1)[:, :2].astype(np.int32)
    assert [[item["index"] for item in row] for row in explained.targets] == classes.tolist()
    segments = jaxai.segment(net.crop(list(photos)), method="grid")
    options = {"num_samples": 200, "fill": 0.0, "sampling": "stratified"}
    lime = jaxai.lime(net.model, x, classes, segments=segments, key=jax.random.key(3), **options)
    assert np.abs(lime.weights).max() > 1e-3
    expected = {
        "grad_cam": jaxai.grad_cam(net.model, x, classes, relu=False),
        "lime": lime.heatmap,
        "input_x_gradient": jaxai.input_x_gradient(net.model, x, classes),
    }
    assert explained.methods == tuple(expected)
    for name, maps in expected.items():
        assert explained.maps[name].shape == maps.shape
        np.testing.assert_allclose(explained.maps[name], maps, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.stack(explained.weights["lime"]), lime.weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(explained.segments, segments)
    np.testing.assert_allclose(explained.photos, photos / np.float32(255), atol=1e-7)


def test_records_say_how(net, explained):
    first, second = explained.records
    assert first["methods"]["lime"]["options"]["num_samples"] == 200
    assert first["methods"]["grad_cam"]["layer"] == "mixed" and first["random"]["seed"] == 3
    assert (
        first["image"]["sha256"] != second["image"]["sha256"]
        and first["model"]["weights_sha256"] == net.digest
    )
    assert set(first["methods"]["input_x_gradient"]["scores"]) == {"relevance_gain", "insertion", "gini"}
    assert all(record["methods"]["lime"]["seconds_of_batch"] > 0 for record in explained.records)
    json.dumps(explained.records, allow_nan=False)


@pytest.mark.parametrize("kind", ["path", "pil", "array", "float", "list", "folder"])
def test_photos_of_every_kind(net, pixels, tmp_path, kind):
    path = tmp_path / "one.png"
    Image.fromarray(pixels).save(path)
    given = {
        "path": path,
        "pil": Image.fromarray(pixels),
        "array": pixels,
        "float": pixels / np.float32(255),
        "list": [str(path)],
        "folder": tmp_path,
    }[kind]
    e = jaxai.explain(net, given, methods=jaxai.saliency)
    expected = jaxai.saliency(net.model, net.preprocess([pixels]))
    np.testing.assert_allclose(e.maps["saliency"], expected, atol=1e-6)
    assert e.names == ({"pil": "image", "array": "array", "float": "array"}.get(kind, str(path)),)


def test_a_sample(net):
    e = jaxai.explain(net, "cat", methods="input_x_gradient")
    assert e.names == ("cat",) and e.maps["input_x_gradient"].shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    "targets, wanted", [("blue", [2]), (1, [1]), (np.int64(1), [1]), (["red", 3], [0, 3])]
)
def test_classes(net, pixels, targets, wanted):
    e = jaxai.explain(net, pixels, methods="saliency", targets=targets)
    assert [item["index"] for item in e.targets[0]] == wanted
    assert [item["label"] for item in e.targets[0]] == [LABELS[i] for i in wanted]


@pytest.mark.slow
def test_functions_of_the_outputs(net, photos):
    targets = {"red - blue": jaxai.targets.difference(0, 2), "violet": lambda scores: scores[:, 3]}
    e = jaxai.explain(
        net,
        photos,
        methods=["input_x_gradient", ("lime", {"num_samples": 200})],
        targets=targets,
        scores=True,
    )
    x = net.preprocess(list(photos))
    for k, function in enumerate(targets.values()):
        expected = jaxai.input_x_gradient(net.model, x, function)
        np.testing.assert_allclose(e.maps["input_x_gradient"][:, k], expected, rtol=1e-5, atol=1e-7)
        assert e.targets[1][k]["value"] == pytest.approx(float(function(net.model(x))[1]), rel=1e-5)
    assert e.maps["lime"].shape == (2, 2, SIZE, SIZE)
    assert "red - blue = " in e.to_html() and len(e.records[0]["methods"]["lime"]["scores"]["gini"]) == 2


def test_a_model_alone(pixels):
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
    model = jax.tree_util.Partial(lambda kernel, x: jnp.tanh(x).mean((1, 2)) @ kernel, kernel)
    wide = pixels[:20]
    e = jaxai.explain(model, wide, methods="saliency", normalize="tf")
    x = wide[None] / np.float32(255) * 2 - 1
    np.testing.assert_allclose(e.maps["saliency"], jaxai.saliency(model, x), atol=1e-6)
    assert e.targets[0][0]["label"].startswith("class ")
    assert jaxai.explain(model, "cat", methods="saliency", input_size=16).photos.shape == (1, 16, 16, 3)
    grey = jaxai.explain(lambda x: x.mean((1, 2)) * jnp.ones(2), wide[..., :1], methods="saliency", targets=1)
    assert grey.maps["saliency"].shape == (1, 20, SIZE, 1)


def test_it_shows_itself(explained, net, photos):
    assert repr(explained) == "Explanation(2 photos (array 1, array 2): grad_cam, lime, input_x_gradient)"
    assert repr(explained[1]).startswith("Explanation(1 photo (array 2)") and len(explained[:1]) == 1
    assert [one.names for one in explained] == [("array 1",), ("array 2",)]
    one = jaxai.explain(net, photos[0], methods="grad_cam")
    assert one._repr_html_().count("<img") == 1 and one._repr_png_()[1:4] == b"PNG"
    assert one.plot()._repr_png_()[1:4] == b"PNG"


@pytest.mark.slow
def test_it_saves_what_the_command_writes(net, pixels, tmp_path, monkeypatch, run):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype=None: net)
    code, *_ = run(
        "explain", "a.png", "--method", "grad_cam,saliency", "--out", "by_command", "--html", "page.html"
    )
    assert code == 0 and "a.png" in (tmp_path / "page.html").read_text("utf-8")
    jaxai.explain("efficientnet_lite0", "a.png", methods="grad_cam,saliency").save("by_call")
    ours, theirs = (tmp_path / name for name in ("by_call", "by_command"))
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    for name, values in np.load(theirs / "maps.npz").items():
        np.testing.assert_array_equal(np.load(ours / "maps.npz")[name], values)
    with pytest.raises(ValueError, match="would replace"):
        jaxai.explain(net, "a.png", methods="saliency").to_html("a.png")


def test_a_network_by_name_configures_the_cpu(net, pixels, monkeypatch):
    from jaxai._cpu import configure

    called, text = [], configure.configure_cpu.__doc__
    monkeypatch.setattr(configure, "backend_started", lambda: False)
    monkeypatch.setattr(configure, "configure_cpu", lambda: called.append(True))
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype=None: net)
    jaxai.explain(net, pixels, methods="saliency")
    assert not called
    jaxai.explain("efficientnet_lite0", pixels, methods="saliency")
    assert called and "so does `jaxai.explain`" in text


@pytest.mark.parametrize(
    "fit, box", [("crop", (32, 0, 64, 32)), ("pad", (0, 0, 96, 32)), ("squash", (0, 0, 96, 32))]
)
def test_maps_lie_where_they_belong(net, fit, box):
    left, top, right, bottom = box
    photo = np.tile(np.linspace(0.2, 0.8, 96, dtype=np.float32)[None, :, None], (32, 1, 3))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        e = jaxai.explain(net, photo, methods={"occlusion": {"window": 8, "strides": 8}}, fit=fit)
    notes = [str(one.message) for one in said]
    expected = "array: the network sees the centre 32 x 32 of 96 x 32; `fit` pad or squash shows it all"
    assert notes == ([expected] if fit == "crop" else [])
    image = e.records[0]["image"]
    assert image["original_size"] == [96, 32] and image["box"] == list(box) and image["fit"] == fit
    np.testing.assert_array_equal(e.photos, net.crop(photo, fit=fit))
    picture = e.overlay("occlusion")
    assert picture.shape == (32, 96, 3) and picture.dtype == np.uint8
    outside = np.ones((32, 96), bool)
    outside[top:bottom, left:right] = False
    pale = np.round((0.4 * photo + 0.6) * 255)
    np.testing.assert_allclose(picture[outside], pale[outside], atol=1)
    values, inner = e.maps["occlusion"][0], image["place"]
    seen = jaxai.maps.upsample(
        jnp.asarray(values[inner[1] : inner[3], inner[0] : inner[2]]), (bottom - top, right - left)
    )
    bounds = jaxai.plots.limits(values, signed=True)
    drawn = jaxai.plots.heatmap_overlay(photo[top:bottom, left:right], seen, signed=True, bounds=bounds)
    np.testing.assert_array_equal(picture[top:bottom, left:right], drawn)
    with pytest.raises(ValueError, match="unknown method 'lime'; the methods are occlusion"):
        e.overlay("lime")


def test_the_classes_of_a_photo_share_the_ends_of_the_colours(explained):
    from jaxai.report import _figures as figures

    subject, parts = explained.results[0]
    for part in parts:
        ends = [figures.shown_values(subject, part, k)[2] for k in range(2)]
        assert ends[0] == ends[1]
        if part.method.result == "heatmap":
            largest = np.abs(part.maps).max()
            assert ends[0] == pytest.approx((-largest, largest))
            panels = [figures.panel(subject, part, k, "") for k in range(2)]
            assert [panel.bar.high for panel in panels] == pytest.approx([largest] * 2)
