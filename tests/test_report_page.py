"""The page: whole, without network, and what others wrote in it is data."""

import base64
import json
import re
import time
import zlib

import jax
import numpy as np
import pytest
from browsing import Elements, visited
from PIL import Image
from tiny_network import SIZE, tiny

import jaxai
from jaxai.report import _page as page

ATTACK = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>"
FILE = "a<script>document.title='owned'<&\">.png"
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    import dataclasses

    folder = tmp_path_factory.mktemp("photos")
    down, across = np.mgrid[:SIZE, :SIZE] * (255 / SIZE)
    pixels = np.stack([down, across, (down * across) % 200], -1).astype(np.uint8)
    for name, one in zip((FILE, "b.png"), (pixels, 255 - pixels), strict=True):
        Image.fromarray(one).save(folder / name)
    net = tiny()
    net = dataclasses.replace(net, labels=(ATTACK, *net.labels[1:]), name=f"net {ATTACK}")
    methods = {"grad_cam": {"relu": False}, "input_x_gradient": {}, "occlusion": {"window": 8, "strides": 4}}
    return jaxai.explain(net, folder, methods=methods, targets=[0, 1], scores=True)


@pytest.fixture(scope="module")
def elements(explained):
    parser = Elements()
    parser.feed(explained.to_html())
    return parser


def test_names_and_labels_are_data(elements):
    text = "".join(elements.texts)
    assert ATTACK in text and FILE in text
    scripts = [about for tag, about in elements.found if tag == "script"]
    assert [about.get("type") for about in scripts if about.get("type") != "text/plain"] == [
        "application/json",
        None,
    ]
    assert not any(name.startswith("on") for _, about in elements.found for name in about)
    assert "onerror" not in {name for _, about in elements.found for name in about}


def test_nothing_is_fetched(explained, elements):
    for tag, about in elements.found:
        for name in ("src", "href"):
            assert not about.get(name) or about[name].startswith(("data:", "#")), (tag, about)
    assert not re.search(r"url\(|@import|https?://", page.file("page.css") + page.file("page.js"))
    policy = next(about["content"] for tag, about in elements.found if about.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_everything_is_there(explained, elements):
    text = "".join(elements.texts)
    for record in explained.records:
        assert record["image"]["sha256"] in text and record["model"]["weights_sha256"] in text
    for words in (
        "Grad-CAM",
        "occlusion",
        "window: 8, strides: 4",
        "relevance gain",
        "jaxai.explain(",
        "green (1)",
    ):
        assert words in text, words
    maps = [about for tag, about in elements.found if "data-about" in about]
    assert len(maps) == 2 * 2 * 3
    ids = [about["id"] for _, about in elements.found if "id" in about]
    assert len(ids) == len(set(ids))
    named = {about["aria-label"] for tag, about in elements.found if tag == "input" and "aria-label" in about}
    assert len(named) == 2 * 3


def test_maps_come_back_from_the_page():
    values = np.random.default_rng(0).normal(size=(7, 5))
    values[2, 3], values[4, 4] = np.nan, np.inf
    text, low, high = page._packed(values)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(np.int64)
    levels = np.cumsum(planes[:35] + 256 * planes[35:]) % 65536
    found = np.where(levels == 0, np.nan, low + (levels - 1) / 65534 * (high - low)).reshape(7, 5)
    finite = np.isfinite(values)
    assert (np.isnan(found) == ~finite).all()
    np.testing.assert_allclose(found[finite], values[finite], atol=0.51 * (high - low) / 65534)
    assert page._packed(np.zeros((2, 2)))[1:] == (0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_without_a_number_is_data_too(explained, bad):
    import dataclasses

    from jaxai.report._explanation import Explanation

    subject, parts = explained.results[0]
    gone = [dataclasses.replace(part, maps=np.full_like(part.maps, bad)) for part in parts]
    parser = Elements()
    parser.feed(Explanation(((subject, tuple(gone)),)).to_html())
    abouts = [about["data-about"] for _, about in parser.found if "data-about" in about]

    def refuse(word):
        raise AssertionError(word)

    read = [json.loads(about, parse_constant=refuse) for about in abouts]
    assert len(read) == 6 and all(one["from"] < one["to"] for one in read)


@pytest.mark.slow
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (390, "light")])
def test_in_a_browser(explained, browser, axe, tmp_path, width, scheme):
    explained.to_html(tmp_path / "page.html")
    context, shown, said = visited(browser, tmp_path / "page.html", width, scheme)
    shown.wait_for_selector("figure.map[data-drawn]")
    assert said == [] and shown.title() == "2 photos explained"
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert axe(shown) == []
    # The value under the pointer is the map's, for all methods at once.
    figures = shown.locator("figure.map[data-photo='0']")
    canvas = figures.nth(0).locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    shown.mouse.move(box["x"] + (5.5 / SIZE) * box["width"], box["y"] + (9.5 / SIZE) * box["height"])
    occlusion = explained.maps["occlusion"][0]
    for place, values in ((0, explained.maps["grad_cam"][0, 0]), (2, occlusion[0]), (5, occlusion[1])):
        figures.nth(place).scroll_into_view_if_needed()
        figures.nth(place).locator("canvas").focus()
        shown.wait_for_function("(f) => f.dataset.drawn", arg=figures.nth(place).element_handle())
        shown.keyboard.press("ArrowRight")
        shown.keyboard.press("ArrowLeft")
        value, _, at = figures.nth(place).locator("output").inner_text().partition(" at ")
        column, row = (int(number) for number in at.split(", "))
        tolerance = 1e-3 * np.abs(values).max() + 1e-9
        assert abs(float(value.replace("\N{MINUS SIGN}", "-")) - values[row, column]) <= tolerance
    # Opacity by keyboard, of one map and of all; methods go and come.
    slider = figures.nth(0).locator("input")
    slider.focus()
    shown.keyboard.press("Home")
    assert figures.nth(0).locator("canvas").evaluate("(c) => getComputedStyle(c).opacity") == "0"
    shown.locator("#opacity").focus()
    shown.keyboard.press("End")
    opacities = shown.evaluate(
        "[...document.querySelectorAll('canvas')].map((c) => getComputedStyle(c).opacity)"
    )
    assert set(opacities) == {"1"}
    shown.locator("input[data-method='input_x_gradient']").focus()
    shown.keyboard.press("Space")
    assert not figures.nth(1).is_visible() and figures.nth(0).is_visible()
    dark = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(dark.replace("rgb(", "[").replace(")", "]"))) < 200) == (scheme == "dark")
    # Paper has all maps, those too that nobody has looked at.
    shown.goto((tmp_path / "page.html").as_uri())
    shown.wait_for_selector("html[data-unpacked]")
    shown.evaluate("for (const f of figures) { seen.unobserve(f); delete f.dataset.drawn; }")
    shown.pdf()
    assert shown.locator("figure.map[data-drawn]").count() == 2 * 2 * 3
    assert said == []
    context.close()


@pytest.mark.slow
def test_twenty_photos_and_ten_methods_open_within_a_second(explained, browser, tmp_path):
    import dataclasses

    from jaxai.report import _methods as methods
    from jaxai.report._explanation import Explanation

    rng, ((subject, (part, *_)), _) = np.random.default_rng(0), explained.results
    chosen = methods.pick([name for name, one in methods.METHODS.items() if one.result == "heatmap"][:10])
    results = []
    for _ in range(20):
        # Noise over a gradient, as large in the file as a photo is.
        pixels = np.linspace(0, 1, 224 * 224 * 3, dtype=np.float32).reshape(224, 224, 3)
        pixels = np.clip(pixels + rng.normal(0, 0.05, pixels.shape), 0, 1)
        one = dataclasses.replace(subject, pixels=pixels, named=subject.named[:1], segments=None)
        # Gradients of networks are noise with heavy tails, and fill 0.1 MB; maps of layers are smooth, and
        # fill 15 kB; so do these. Of the first there are as many as of the second.
        rough = rng.normal(size=(5, 1, 224, 224)) ** 3
        smooth = jax.image.resize(rng.normal(size=(5, 1, 7, 7)), (5, 1, 224, 224), "bilinear")
        maps = np.concatenate([rough, smooth]).astype(np.float32)
        parts = [dataclasses.replace(part, method=m, maps=x) for m, x in zip(chosen, maps, strict=True)]
        results.append((one, tuple(parts)))
    Explanation(tuple(results)).to_html(tmp_path / "page.html")
    seconds = []
    for _ in range(6):
        page, begin = browser.new_page(), time.perf_counter()
        page.goto((tmp_path / "page.html").as_uri(), wait_until="commit")
        # Asked at every frame; a selector would be looked for after 0.27 s, then after 0.77 s.
        page.wait_for_function("() => document.querySelector('figure.map[data-drawn]') !== null")
        page.wait_for_function("() => document.readyState == 'complete'")
        seconds.append(time.perf_counter() - begin)
        assert page.locator("figure.map").count() == 200
        page.close()
    assert min(seconds) < 1, seconds


@pytest.mark.slow
def test_superpixels_that_may_weigh_nothing_are_hatched(browser, tmp_path):
    import dataclasses

    from jaxai.report._explanation import Explanation

    photo = np.linspace(0, 1, SIZE * SIZE * 3, dtype=np.float32).reshape(SIZE, SIZE, 3)
    e = jaxai.explain(tiny(), photo, methods={"lime": {"num_samples": 200}}, segments="grid")
    ((subject, (part,)),) = e.results
    weights = np.linspace(0.1, 1, part.weights.size, dtype=np.float32)[None]
    part = dataclasses.replace(part, weights=weights, errors=weights * np.linspace(0.1, 0.9, weights.size))
    Explanation(((subject, (part,)),)).to_html(tmp_path / "page.html")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("figure.map[data-drawn]")
    drawn = page.evaluate("Array.from(state.get(figures[0]).context.getImageData(0, 0, 1e3, 1e3).data)")
    drawn = np.array(drawn).reshape(1000, 1000, 4)[:SIZE, :SIZE]
    place = np.add.outer(np.arange(SIZE), np.arange(SIZE)) % 8
    unsure = part.unsure(0)[subject.segments]
    assert 0 < unsure.mean() < 1
    assert (drawn[unsure & (place == 0), 3] >= 0.75 * 255 - 1).all()
    light = drawn[unsure & (place == 1), :3].mean() - drawn[unsure & (place == 0), :3].mean()
    assert light > 60
    sure = drawn[~unsure & (place == 1), :3].mean(0) - drawn[~unsure & (place == 0), :3].mean(0)
    assert np.abs(sure).max() < 25
    page.close()
