"""The one call for people where something fails or takes long: lines, what is kept, Ctrl-C, time left."""

import dataclasses
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_network import SIZE, ramps, tiny

import jaxai
from jaxai.report import _calibrate as calibrate
from jaxai.report import _progress as progress
from jaxai.report import _waiting as waiting

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
