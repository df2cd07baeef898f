"""The one call for people: its maps are those of the pure functions, and its results show themselves."""

import dataclasses
import json
import os
import re
import signal
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from PIL import Image
from tiny_network import LABELS, SIZE, tiny

import jaxai
from jaxai._program.listing import Tree
from jaxai.report import _calibrate as calibrate
from jaxai.report import _progress as progress
from jaxai.report import _record as record
from jaxai.report import _waiting as waiting

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def net():
    return tiny()


@pytest.fixture(scope="module")
def pixels():
    down, across = np.mgrid[:SIZE, :SIZE] * (255 / SIZE)
    return np.stack([down, across, (down * across) % 200], -1).astype(np.uint8)


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


BAD = [
    ({"methods": "gradcam"}, "unknown method 'gradcam'; did you mean grad_cam"),
    ({"methods": {"lime": {"samples": 3}}}, "lime has no option 'samples'; did you mean num_samples"),
    ({"methods": []}, "`methods` is empty"),
    ({"methods": "saliency,saliency"}, "names saliency twice"),
    ({"methods": [3]}, "a method must be a name, a function or a pair with options; got int"),
    ({"targets": "grean"}, "unknown class 'grean'; did you mean green"),
    ({"targets": 5}, "`targets` must be a class from 0 to 4; got 5"),
    ({"targets": "top9"}, "`targets` must be top1 to top5"),
    ({"targets": ["red", len]}, "got a mixture"),
    ({"photos": "dog"}, "no such image: dog"),
    ({"photos": []}, "`photos` is empty"),
    ({"photos": [None]}, "a photo must be a path, a sample, a PIL image or an array"),
    ({"photos": np.full((8, 8, 3), 7.0)}, "7"),
    ({"segments": "slick"}, "unknown method 'slick'"),
    ({"layer": "mixxed"}, "unknown layer 'mixxed'; did you mean mixed"),
    ({"labels": ("a",)}, "`labels` is for files and models; efficientnet_lite0 brings its own"),
    ({"net": 3}, "`net` must be a name, a Pretrained or a model; got int"),
    ({"net": "resnet"}, "unknown model 'resnet'"),
    ({"methods": {"occlusion": {"window": -1}}}, "`window`"),
    ({"batch_size": 0}, "`batch_size` must be a positive integer; got 0"),
    ({"batch_size": 1.5}, "`batch_size` must be a positive integer; got 1.5"),
    ({"seed": -1}, "`seed` must be an integer of at least 0; got -1"),
    ({"seed": 1.5}, "`seed` must be an integer of at least 0; got 1.5"),
    ({"seed": 2**32}, "`seed` must be at most 4294967295"),
    ({"segments": 3}, "`segments`: a method is named by a word; got 3"),
    ({"layer": len}, "a layer is named by a word; got <built-in function len>"),
]


@pytest.mark.parametrize("given, message", BAD, ids=lambda x: str(x)[:40] if isinstance(x, str) else "")
def test_bad_input_is_one_line(net, pixels, given, message):
    given = {"net": net, "photos": pixels, "methods": "saliency", **given}
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
        jaxai.explain(given.pop("net"), given.pop("photos"), **given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_fails_stops_no_other(net, pixels, tmp_path, monkeypatch):
    (tmp_path / "bad.png").write_bytes(b"no photo")
    Image.fromarray(pixels).save(tmp_path / "good.png")
    with pytest.warns(UserWarning, match="bad.png"):
        e = jaxai.explain(net, [tmp_path / "bad.png", tmp_path / "good.png"], methods="saliency")
    assert len(e) == 1 and "bad.png" in e.failed[0] and "bad.png" in e._repr_html_()
    with pytest.raises(ValueError, match="bad.png"):
        jaxai.explain(net, tmp_path / "bad.png", methods="saliency")


@pytest.fixture
def half_failed(net, photos, monkeypatch):
    """Six photos of which LIME has explained the last alone, and no method the first four."""
    from jaxai.report import _methods as methods

    whole, calls = methods.run, []

    def run(method, about):
        calls.append(method.name)
        if len(calls) <= 8 or (method.name == "lime" and len(calls) <= 10):
            raise OSError(f"batch {(len(calls) - 1) // 2} is bad")
        return whole(method, about)

    monkeypatch.setattr(methods, "run", run)
    given = [*photos, *photos, *photos]
    with pytest.warns(UserWarning, match="is bad"):
        return jaxai.explain(
            net,
            given,
            methods={"saliency": {}, "lime": {"num_samples": 200}},
            segments="grid",
            batch_size=1,
        )


@pytest.mark.slow
def test_what_failed_keeps_its_place(half_failed):
    e = half_failed
    weights = e.weights["lime"]
    assert len(weights) == len(e) == 6 and len({one.shape for one in weights}) == 1
    assert np.isnan(np.stack(weights[:5])).all() and np.isfinite(weights[5]).all()
    assert np.isnan(e.maps["saliency"][:4]).all() and np.isfinite(e.maps["saliency"][4:]).all()
    # Four photos without a map are no reason to show none.
    assert e._repr_png_()[1:4] == b"PNG" and e[:4]._repr_png_() is None


def test_failures_stand_with_their_photos(half_failed):
    assert len(half_failed.failed) == 9
    assert half_failed[1].failed == ("saliency: batch 1 is bad", "lime: batch 1 is bad")
    assert half_failed[5].failed == () and half_failed[4:].failed == ("lime: batch 4 is bad",)
    assert "is bad" not in half_failed[5].to_html()
    assert half_failed[4].to_html().count("batch 4 is bad") == 2 and "batch 3" not in half_failed[4].to_html()


def test_targets_that_are_not_finite(net, photos):
    def odd(scores):
        return jnp.where(scores[:, 0] == scores[0, 0], scores[:, 1], jnp.nan)

    with pytest.warns(UserWarning, match="the target 'odd' returns a number that is not finite for array 2"):
        e = jaxai.explain(net, photos, methods="saliency", targets=odd)
    assert e.names == ("array 1",) and np.isfinite(e.maps["saliency"]).all()
    with pytest.raises(ValueError, match="the target 'gone' returns a number that is not finite for array"):
        jaxai.explain(net, photos[0], methods="saliency", targets={"gone": lambda s: s[:, 0] * jnp.nan})


def test_a_photo_that_cannot_be_framed_leaves_nothing(net, photos, monkeypatch):
    from jaxai.report._photos import Photo

    whole = Photo.framed

    def framed(photo, *given):
        if photo.source == "array 1":
            raise OSError("array 1 is gone")
        return whole(photo, *given)

    monkeypatch.setattr(Photo, "framed", framed)
    with pytest.warns(UserWarning, match="array 1 is gone"):
        e = jaxai.explain(net, photos, methods="saliency")
    assert e.names == ("array 2",)
    np.testing.assert_array_equal(e.photos[0], photos[1] / np.float32(255))


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


@pytest.fixture
def heeded_by_command():
    """Signals as the command takes them."""
    from jaxai.cli import errors

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with errors._stoppable(errors.Outcome()):
        yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(net, pixels, monkeypatch):
    from jaxai.report import _methods as methods

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    whole, released = methods.run, []

    def slow(method, about):
        if method.name == "lime":
            os.kill(os.getpid(), signal.SIGINT)
            while not released:
                time.sleep(0.01)
        return whole(method, about)

    monkeypatch.setattr(methods, "run", slow)
    try:
        begin = time.monotonic()
        with pytest.warns(UserWarning, match="interrupted"):
            e = jaxai.explain(net, pixels, methods="saliency,lime")
        assert time.monotonic() - begin < 2 and e.methods == ("saliency",)
        assert waiting.abandoned()
        with pytest.raises(KeyboardInterrupt):
            jaxai.explain(net, pixels, methods="lime")
    finally:
        released.append(True)
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 5
    while waiting.abandoned() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not waiting.abandoned()


def test_a_signal_is_obeyed_where_its_exception_is_lost(heeded_by_command):
    import gc
    import weakref

    class Thing:
        pass

    def work():
        os.kill(os.getpid(), signal.SIGINT)
        while not released:
            time.sleep(0.01)

    released, lost = [], []
    hook, sys.unraisablehook = sys.unraisablehook, lambda about: lost.append(about.exc_type)
    try:
        # The signal arrives while a callback runs, from which no exception comes out.
        thing = Thing()
        kept = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.01)))
        del thing
        gc.collect()
        assert kept() is None and lost == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            waiting.patiently(work)
    finally:
        released.append(True)
        sys.unraisablehook = hook


def test_settings_of_this_thread_hold(net, pixels):
    here = []
    with jax.default_matmul_precision("highest"):
        waiting.patiently(lambda: here.append(jax.config.jax_default_matmul_precision))
    waiting.patiently(lambda: here.append(jax.config.jax_default_matmul_precision))
    assert here == ["highest", jax.config.jax_default_matmul_precision]


def test_the_time_left_is_that_of_the_passes_left():
    now = [0.0]
    bar = progress.Progress(False, clock=lambda: now[0])
    bar.expect(2, {"short": 100.0, "long": 900.0})
    assert bar.state()[1:] == (0.0, None)
    with bar.step("short", 2):
        now[0] = 4.0  # 0.02 s a pass
        assert bar.state() == ("short", 0.0, None)
    assert bar.state()[1] == pytest.approx(0.1) and bar.state()[2] == pytest.approx(36.0)
    with bar.step("long", 2):
        now[0] = 22.0
        name, done, left = bar.state()
        assert name == "long" and done == pytest.approx(0.55) and left == pytest.approx(18.0)
        now[0] = 76.0  # twice as long as was thought
        assert bar.state()[1] == pytest.approx(0.1 + 0.9 * 0.99) and bar.state()[2] is None
    assert bar.state()[1] == pytest.approx(1.0)
    # What compiles longer than it runs says nothing; a pass that was timed does.
    bar = progress.Progress(False, clock=lambda: now[0])
    bar.expect(1, {"one": 3.0, "many": 997.0})
    bar.calibrate(2, 0.1)
    with bar.step("one", 1):
        now[0] += 5.0
    assert bar.state()[2] == pytest.approx(997 * 0.05)


def test_a_run_that_draws_knows_the_time_left_from_the_start(net):
    bar = progress.Progress(False, clock=lambda: 0.0)
    bar.expect(1, {"drawing": 1000.0})
    calibrate.calibrate(bar, net, SIZE, passes=100)
    assert bar.state()[2] is None  # too little to be worth it
    calibrate.calibrate(bar, net, SIZE, passes=1000)
    left = bar.state()[2]
    assert 0 < left < 60
    # A network that takes no image of this size says nothing.
    bar = progress.Progress(False, clock=lambda: 0.0)
    bar.expect(1, {"drawing": 1000.0})
    fixed = dataclasses.replace(net, model=lambda x: x.reshape(-1, SIZE, SIZE, 3).sum((1, 2)))
    calibrate.calibrate(bar, fixed, SIZE - 1, passes=1000)
    assert bar.state()[2] is None


@pytest.mark.slow
def test_results_have_short_texts(net, photos):
    assert (
        repr(net)
        == "Pretrained(efficientnet_lite0: 5 classes, photos of 32 px, 0.0 M parameters, sha256 00000000)"
    )
    x, key = net.preprocess(list(photos)), jax.random.key(0)
    segments = jaxai.segment(net.crop(list(photos)), method="grid")
    lime = jaxai.lime(net.model, x, segments=segments, key=key, num_samples=200)
    assert repr(lime).startswith(f"LimeExplanation(2 images, {lime.weights.shape[1]} superpixels, R^2 ")
    assert lime._repr_html_().count("<tr>") == 3
    traced = []
    jax.eval_shape(lambda one: traced.append((repr(one), one._repr_html_())), lime)
    assert traced == [(f"LimeExplanation(2 images, {lime.weights.shape[1]} superpixels)", None)]
    made = jaxai.visualize(net.model, ["logits:0", "logits:1"], key=key, size=SIZE, steps=2)
    assert repr(made).startswith("Visualization(2 images of 32 x 32, 2 steps, objective ")
    assert made._repr_png_()[1:4] == b"PNG"
    table = jaxai.metrics.compare(
        net.model,
        x,
        methods={"<b>m</b>": lambda m, x, t: jaxai.saliency(m, x, t).sum(-1)},
        metrics=("gini",),
        key=key,
    )
    assert repr(table) == "Comparison(<b>m</b> beside 4 references; gini; 2 images)"
    assert "&lt;b&gt;m&lt;/b&gt;" in table._repr_html_() and "<b>" not in table._repr_html_()
    assert (
        dataclasses.replace(net, labels=None, name="x").__repr__().startswith("Pretrained(x: no classifier")
    )


def test_results_draw_themselves_and_write_files(net, photos, tmp_path):
    x, key = net.preprocess(list(photos)), jax.random.key(0)
    segments = jaxai.segment(net.crop(list(photos)), method="grid")
    classes = jnp.tile(jnp.array([0, 1]), (2, 1))
    lime = jaxai.lime(net.model, x, classes, segments=segments, key=key, num_samples=200, fill=0.0)
    made = jaxai.visualize(net.model, ["logits:0", "logits:1"], key=key, size=SIZE, steps=2)
    ratings = jaxai.metrics.compare(
        net.model, x, methods={"<b>m</b>": jaxai.input_x_gradient}, metrics=("gini",), key=key
    )
    for name, result, kept in (
        ("lime", lime, "weights"),
        ("made", made, "images"),
        ("table", ratings, "scores"),
    ):
        assert result.plot()._repr_png_()[1:4] == b"PNG"
        result.save(tmp_path / name)
        result.save(tmp_path / name)  # again
        with Image.open(tmp_path / name / "figure.png") as picture:
            assert min(picture.size) > 100
        with np.load(tmp_path / name / "arrays.npz") as arrays:
            np.testing.assert_array_equal(arrays[kept], getattr(result, kept))
        text = result.to_html(tmp_path / f"{name}.html")
        assert (tmp_path / f"{name}.html").read_text("utf-8") == text
        assert text.count("<img") == 1 and "<b>m" not in text and not re.search(r"https?://", text)
    assert {one.name for one in (tmp_path / "table").iterdir()} == {
        *("figure.png", "arrays.npz", "comparison.json", "comparison.csv")
    }
    bare, over = (jaxai.plots.render(lime.plot(given)) for given in (None, net.crop(list(photos))))
    assert bare.shape == over.shape and (bare != over).any()
    with pytest.raises(ValueError, match=r"`photos` must be \[2, 32, 32, 3\]; got \[1, 32, 32, 3\]"):
        lime.plot(np.zeros((1, SIZE, SIZE, 3)))
    # What is known to be zero is not hatched, nor is anything without a known error.
    assert not record.unsure(np.zeros(2), np.zeros(2)).any()
    assert record.unsure(np.array([1.0, -1.0]), np.array([0.6, np.nan])).tolist() == [True, False]
    assert record.unsure(np.ones(2), np.full(2, np.nan)) is None
    with pytest.raises(ValueError, match="nothing to plot"):
        jax.eval_shape(lambda one: one.plot() and 0, lime)
    labelled = dataclasses.replace(net, labels=("<b>first</b>", "second"))
    assert "&lt;b&gt;first" in labelled._repr_html_() and "<b>" not in labelled._repr_html_()
    assert "mixed, logits" in net._repr_html_()


class Small(nnx.Module):
    def __init__(self, rngs):
        self.conv, self.head = nnx.Conv(3, 4, (3, 3), 2, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs, deterministic=True)  # holds a key

    def __call__(self, x):
        return self.head(self.drop(jax.nn.relu(self.conv(x)).mean((1, 2))))


@pytest.mark.parametrize("found", [False, True])
def test_networks_draw_their_layers_and_write_their_parameters(net, tmp_path, found):
    own = Small(nnx.Rngs(0))
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    model = jaxai.layers.find(own, images) if found else own
    small = dataclasses.replace(net, model=model, name="<b>small</b>")
    axes = small.plot().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv", "drop", "head", "logits"]
    half = SIZE // 2
    sides = [bar.get_width() for bar in axes.patches]
    assert sides == [half * half * 4, 4, 2, 2], "numbers per image"
    filled = [bar.get_facecolor()[:3] != (1, 1, 1) for bar in axes.patches]
    assert filled == [True, False, False, False], "layers without positions are hollow"
    small.save(tmp_path / "net")
    with np.load(tmp_path / "net" / "arrays.npz") as arrays:
        assert set(arrays) == {"conv.kernel", "conv.bias", "head.kernel", "head.bias"}
        kernel = arrays["conv.kernel"]
    np.testing.assert_array_equal(kernel, own.conv.kernel[...])
    text = small.to_html(tmp_path / "net.html")
    assert (tmp_path / "net.html").read_text("utf-8") == text and text.count("<img") == 1
    assert "&lt;b&gt;small" in text and "<b>small" not in text and not re.search(r"https?://", text)


def test_layers_of_tall_networks_fit_on_a_picture():
    shape = jax.ShapeDtypeStruct((1, 2, 2, 8), jnp.float32)
    names = [f"{i}{'x' * i}" for i in range(310)]
    tree = Tree(dict.fromkeys(names, shape), dict.fromkeys(names, "NHWC"), None)
    figure = jaxai.plots.layers(tree)
    assert len(figure.axes[0].patches) == 300
    assert figure.axes[0].get_xlabel().endswith("the first 10 layers are not drawn")
    with pytest.raises(ValueError, match="the network has no layers"):
        jaxai.plots.layers(Tree({}, {}, None))


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


@pytest.mark.slow
def test_other_formats_and_whole_photos(net, pixels, tmp_path, monkeypatch, run):
    Image.fromarray(pixels[:8]).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype=None: net)
    words = ("explain", "a.png", "--method", "saliency", "--fit", "pad", "--whole", "--format", "svg")
    code, _, errors = run(*words)
    assert code == 0 and errors == []
    assert (tmp_path / "out/explanation.svg").read_bytes().startswith(b"<?xml")
    with Image.open(tmp_path / "out/saliency_whole.png") as picture:
        assert picture.size == (SIZE, 8)
    figure = jaxai.explain(net, pixels, methods="saliency").plot()
    assert jaxai.plots.vector(figure, format="pdf")[:5] == b"%PDF-"
    with pytest.raises(ValueError, match="`format` must be 'pdf' or 'svg'; got 'gif'"):
        jaxai.plots.vector(figure, format="gif")
    with pytest.raises(ValueError, match="`fit` must be one of crop, pad, squash, tile; got 'tiles'"):
        jaxai.explain(net, pixels, methods="saliency", fit="tiles")


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
