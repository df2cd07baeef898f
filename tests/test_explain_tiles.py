"""Large photos in tiles, superpixels whose weights may be zero, and bars in notebooks."""

import dataclasses
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_network import SIZE, tiny

import jaxai
from jaxai.report import _bars as bars
from jaxai.report import _figures as figures
from jaxai.report import _progress as progress
from jaxai.report import _tiles as tiles
from jaxai.report._explanation import Explanation

pytestmark = pytest.mark.usefixtures("quick_compilation")
# The network sees means of 8 x 8 pixels, which the mean colour of a superpixel would not change.
DARK = {"num_samples": 200, "fill": 0.0}
LIKEWISE = {**DARK, "sampling": "stratified"}


@pytest.fixture(scope="module")
def net():
    return tiny()


@pytest.fixture(scope="module")
def wide():
    """A photo of 70 x 40 pixels: three tiles across, two down."""
    down, across = np.mgrid[:40, :70]
    return np.stack([255 - across * 3, down * 6, (down * across) % 200], -1).astype(np.uint8)


@pytest.mark.slow
def test_maps_are_those_of_the_tiles(net, wide):
    e = jaxai.explain(
        net,
        wide,
        methods={"input_x_gradient": {}, "lime": DARK, "grad_cam": {"upsample": False}},
        segments="grid",
        fit="tile",
        batch_size=4,
        seed=5,
    )
    rows, columns = (0, 8), (0, 19, 38)
    assert tiles._starts(40, SIZE) == list(rows) and tiles._starts(70, SIZE) == list(columns)
    whole = wide / np.float32(255)
    cut = np.stack([whole[r : r + SIZE, c : c + SIZE] for r in rows for c in columns])
    chance = np.asarray(jax.nn.softmax(net.model(jnp.asarray(cut)))).mean(0)
    top = int(chance.argmax())
    (target,) = e.targets[0]
    assert target["index"] == top and target["probability"] == pytest.approx(chance[top], rel=1e-5)
    assert target["logit"] == pytest.approx(float(net.model(jnp.asarray(cut))[:, top].mean()), rel=1e-5)
    targets = jnp.full(6, top, jnp.int32)
    segments = jaxai.segment(cut, method="grid")
    lime = jaxai.lime(
        net.model, jnp.asarray(cut), targets, segments=segments, key=jax.random.key(5), **LIKEWISE
    )
    assert np.abs(lime.weights).max() > 1e-3
    cams = jaxai.grad_cam(net.model, jnp.asarray(cut), targets, upsample=False)
    expected = {
        "input_x_gradient": np.asarray(jaxai.input_x_gradient(net.model, jnp.asarray(cut), targets)),
        "lime": np.asarray(lime.heatmap),
        "grad_cam": np.asarray(jaxai.maps.upsample(cams, (SIZE, SIZE))),
    }
    for name, maps in expected.items():
        found = e.maps[name][0]
        assert found.shape[:2] == (40, 70)
        # One tile alone lies in the corner; in the middle, tiles are weighted by the distance to their edges.
        np.testing.assert_allclose(found[:8, :19], maps[0][:8, :19], rtol=1e-4, atol=1e-6)
        place, total, weights = (20, 25), 0.0, 0.0
        for one, (r, c) in zip(maps, [(r, c) for r in rows for c in columns], strict=True):
            y, x = place[0] - r, place[1] - c
            if 0 <= y < SIZE and 0 <= x < SIZE:
                near = min(y + 1, SIZE - y, x + 1, SIZE - x)
                total, weights = total + near * one[y, x], weights + near
        np.testing.assert_allclose(found[place], total / weights, rtol=1e-4, atol=1e-6)
    image = e.records[0]["image"]
    assert (image["tiles"], image["tile"], image["box"]) == (6, SIZE, [0, 0, 70, 40])
    assert e.weights == {} and e.overlay("lime").shape == (40, 70, 3)
    assert e.plot()._repr_png_()[1:4] == b"PNG" and 'width="70" height="40"' in e.to_html()


@pytest.mark.slow
def test_maps_of_tiles_do_not_depend_on_the_batch(net, wide):
    given = {"methods": "occlusion,lime", "segments": "grid", "fit": "tile", "targets": ["red", "blue"]}
    given["methods"] = {"occlusion": {"window": 8, "strides": 8}, "lime": {"num_samples": 200}}
    one, all_ = (jaxai.explain(net, wide, batch_size=size, **given) for size in (1, None))
    for name, maps in all_.maps.items():
        assert maps.shape == (1, 2, 40, 70)
        np.testing.assert_allclose(one.maps[name], maps, rtol=1e-4, atol=1e-5)


def test_functions_of_the_outputs_of_tiles(net, wide):
    e = jaxai.explain(net, wide, methods="saliency", fit="tile", targets={"red": lambda scores: scores[:, 0]})
    by_class = jaxai.explain(net, wide, methods="saliency", fit="tile", targets="red")
    np.testing.assert_allclose(e.maps["saliency"], by_class.maps["saliency"], atol=1e-7)
    assert e.targets[0][0]["value"] == pytest.approx(by_class.targets[0][0]["logit"], rel=1e-5)


def test_photos_of_several_sizes(net, wide, tmp_path, monkeypatch, run):
    for name, pixels in (("a.png", wide), ("b.png", wide[:, :40]), ("c.png", wide[:20])):
        Image.fromarray(pixels).save(tmp_path / name)
    with pytest.warns(
        UserWarning, match="c.png has 70 x 20 pixels, less than a tile, 32 x 32; use `fit` pad"
    ):
        e = jaxai.explain(net, tmp_path, methods="saliency", fit="tile")
    assert [one.maps["saliency"].shape for one in e] == [(1, 40, 70, 3), (1, 40, 40, 3)]
    for what in ("maps", "photos"):
        with pytest.raises(ValueError, match=rf"several sizes: take `explanation\[i\].{what}`"):
            getattr(e, what)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype=None: net)
    code, _, errors = run("explain", "a.png", "--method", "saliency", "--fit", "tile", "--whole")
    assert (code, errors) == (0, [])
    with Image.open(tmp_path / "out/saliency_whole.png") as picture:
        assert picture.size == (70, 40)


def test_what_tiles_refuse(net, wide):
    with pytest.raises(ValueError, match="maps of tiles have no scores"):
        jaxai.explain(net, wide, methods="saliency", fit="tile", scores=True)
    with pytest.raises(ValueError, match="crops photos in its own way, which knows no tiles"):
        jaxai.explain(lambda x: x.mean((1, 2)), wide, methods="saliency", fit="tile")
    with pytest.raises(ValueError, match="scores that are not finite for array"):
        jaxai.explain(net, wide, methods="saliency", fit="tile", targets=lambda s: s[:, 0] * jnp.nan)


@pytest.mark.parametrize("size", [(10, 4000), (4000, 3000), (900, 700), (32, 32), (33, 5000)])
def test_there_are_at_most_64_tiles(size):
    longest = max(size)
    while longest > 32 and tiles._count(*size, longest, 32) > tiles._MOST:
        longest = max(32, int(longest * 0.97))
    assert 1 <= tiles._count(*size, longest, 32) <= 64


def test_a_photo_of_too_many_tiles_is_reduced(net):
    pixels = np.tile(np.linspace(0, 1, 600, dtype=np.float32)[:, None, None], (1, 400, 3))
    with pytest.warns(UserWarning, match=r"array: read at \d+ x \d+, of 400 x 600, for at most 64 tiles"):
        e = jaxai.explain(net, pixels, methods="saliency", fit="tile")
    height, width = e.photos.shape[1:3]
    assert e.records[0]["image"]["tiles"] <= 64 and height / width == pytest.approx(1.5, rel=0.01)
    assert e.overlay("saliency").shape == (600, 400, 3)


@pytest.mark.slow
def test_superpixels_that_may_weigh_nothing_are_hatched(net, wide):
    e = jaxai.explain(net, wide, methods={"lime": DARK}, segments="grid")
    x = net.preprocess(wide)
    segments = jaxai.segment(net.crop(wide), method="grid")
    lime = jaxai.lime(net.model, x, segments=segments, key=jax.random.key(0), **LIKEWISE)
    assert np.abs(lime.standard_error).max() > 1e-5
    np.testing.assert_allclose(e.standard_errors["lime"][0], lime.standard_error[0], rtol=1e-3)
    ((subject, (part,)),) = e.results
    # Of every second one, the error is large.
    weights = np.linspace(-1, 1.13, part.weights.size, dtype=np.float32)[None]
    errors = np.abs(weights) * np.where(np.arange(weights.size) % 2, 0.49, 0.51)
    errors[0, 0] = np.nan
    part = dataclasses.replace(part, weights=weights, errors=errors)
    unsure = part.unsure(0)
    assert unsure.tolist() == [False, *(i % 2 == 0 for i in range(1, unsure.size))]
    page = Explanation(((subject, (part,)),)).to_html()
    assert f"hatched: {unsure.sum()} of {unsure.size} superpixels within two standard errors" in page
    panel = figures._map_panel(subject, part, 0, "")
    plain = jaxai.plots.heatmap_overlay(
        subject.pixels, part.maps[0], signed=True, bounds=figures.shown_values(subject, part, 0)[2]
    )
    changed = (panel.image != plain).any(-1)
    assert not changed[~unsure[subject.segments]].any() and changed[unsure[subject.segments]].mean() > 0.15
    assert "hatched" in figures.panel(subject, part, 0, "").caption
    # The caption speaks of what is shown: the five largest weights, none of which may be zero here.
    sure = dataclasses.replace(part, errors=np.where(weights > 0, 0.1, 0.51) * np.abs(weights))
    assert sure.unsure(0).any() and not figures.panel(subject, sure, 0, "").caption
    whole = figures.on_photo(subject, part, 0), figures.on_photo(subject, sure, 0)
    assert (whole[0] != whole[1]).any()
    mask = jaxai.plots.segment_mask(subject.pixels, subject.segments, part.weights[0], regions=99)
    hatched = jaxai.plots.segment_mask(
        subject.pixels, subject.segments, part.weights[0], regions=99, hatched=unsure
    )
    shown = (
        np.isin(subject.segments, np.flatnonzero(unsure & (part.weights[0] > 0))).repeat(3, 0).repeat(3, 1)
    )
    assert not (mask != hatched).any(-1)[~shown].any() and ((mask != hatched).any() == shown.any())


@pytest.mark.slow
def test_maps_hold_the_errors(net, wide, tmp_path):
    jaxai.explain(net, wide, methods={"lime": DARK}, segments="grid").save(tmp_path / "out")
    found = np.load(tmp_path / "out/maps.npz")
    assert found["lime_standard_error"].shape == found["lime_weights"].shape


def test_every_bar_has_a_label(net, wide):
    e = jaxai.explain(net, wide, methods="grad_cam,saliency,lime,occlusion", segments="grid")
    subject, parts = e.results[0]
    for part in parts:
        assert figures._map_panel(subject, part, 0, "").bar.label


class Shell:
    kernel = object()


@pytest.mark.parametrize("widgets", [True, False])
def test_a_bar_in_a_notebook(monkeypatch, widgets):
    shown = []

    class Handle:
        def update(self, html):
            shown.append(html)

    class Bar:
        def __init__(self, **about):
            self.n = 0.0
            self.words = ["", ""]

        def set_description_str(self, text, refresh):
            self.words[0] = text

        def set_postfix_str(self, text, refresh):
            self.words[1] = text

        def refresh(self):
            shown.append(f"{self.words[0]} {self.n:.3f} {self.words[1]}")

        def close(self):
            shown.append("")

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = Shell
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = str, lambda html, display_id: Handle()
    tqdm = types.ModuleType("tqdm.auto")
    tqdm.tqdm = Bar
    for name, module in (("IPython", ipython), ("IPython.display", display), ("tqdm.auto", tqdm)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(bars, "_has_tqdm", lambda: widgets)
    now = [0.0]
    with progress.Progress(clock=lambda: now[0]) as bar:
        bar.expect(1, {"one": 100.0, "<two>": 300.0})
        with bar.step("one", 1):
            now[0] = 1.0
            bar.tick()
            assert shown == []
            now[0] = 10.0
        with bar.step("<two>", 1):
            bar.tick()
            now[0] = 25.0
            bar.tick()
    name = "<two>" if widgets else "&lt;two&gt;"
    assert any(name in text and "0.625" in text and "about 15 s left" in text for text in shown), shown
    assert shown[-1] == ""
    shown.clear()
    with progress.Progress(False, clock=lambda: now[0]) as bar, bar.step("one", 1):
        now[0] += 10
        bar.tick()
    assert shown == []


def test_what_takes_nobody_knows_how_long_moves_too(monkeypatch):
    shown = []

    class Bar:
        def show(self, name, done, left, *, known):
            shown.append((name, left, known))

        def stop(self):
            shown.append("gone")

    monkeypatch.setattr(bars, "place", lambda: Bar)
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)
    monkeypatch.setattr(progress, "_PAUSE", 0.02)
    with pytest.raises(OSError), progress.moving("fetching"):
        time.sleep(0.4)
        raise OSError
    assert len(shown) > 3 and set(shown[:-1]) == {("fetching", "", False)} and shown[-1] == "gone"


def test_squares_have_a_bar_without_a_negative_half(net, wide):
    methods = {"smooth_grad_squared": {"num_samples": 4}, "saliency": {}}
    e = jaxai.explain(net, wide, methods=methods)
    (subject, (squares, plain)) = e.results[0]
    bar = figures.panel(subject, squares, 0, "").bar
    assert bar.cmap == jaxai.plots.SEQUENTIAL and 0 <= bar.low < bar.high
    bar = figures.panel(subject, plain, 0, "").bar
    assert bar.cmap == jaxai.plots.DIVERGING and bar.low == -bar.high
    assert e.to_html().count("&quot;signed&quot;: false") == 1
