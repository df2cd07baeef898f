"""The page of concepts: whole, without network, with the numbers of the sheets, and others' names as data."""

import json
import re

import numpy as np
import pytest
from browsing import Elements, visited

import jaxai
from jaxai.concepts import ConceptSheet
from jaxai.report import _page as page

ATTACK = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>"
SIDE, TOP = 24, 3
RNG = np.random.default_rng(0)
PHOTOS = RNG.random((5, SIDE, SIDE, 3)).astype(np.float32)
LABELS = [ATTACK, "green", "blue_thing"]


def sheet(concept, indices, classify=True, drawn=True):
    curves = RNG.random((4, 2)) / 2
    parts = (np.array([0, 2]), np.array([1.5, -0.25]), np.array([0.5, 0.1]))
    return ConceptSheet(
        concept,
        PHOTOS[indices],
        np.array(indices),
        np.array([3.0, 2.0, 1.0]),
        RNG.random((TOP, SIDE, SIDE)) * 3,
        RNG.random((SIDE, SIDE, 3)) if drawn else None,
        *(parts if classify else (None,) * 3),
        np.array([0.0, 1.0, 2.0, 4.0]),
        *((curves, curves / 10) if classify else (None,) * 2),
    )


SHEETS = [sheet(7, [4, 0, 2]), sheet(1, [0, 4, 3]), sheet(3, [1, 2, 0], classify=False, drawn=False)]
NAMES = [f"{i}.png" for i in range(4)] + [ATTACK]


@pytest.fixture(scope="module")
def text():
    return jaxai.plots.concept_page(SHEETS, labels=LABELS, photos=NAMES, title=f"page {ATTACK}")


@pytest.fixture(scope="module")
def elements(text):
    parser = Elements()
    parser.feed(text)
    return parser


def test_names_and_labels_are_data(elements):
    text = "".join(elements.texts)
    assert text.count(ATTACK[:30]) >= 4 and f"page {ATTACK}" in text
    kinds = [about.get("type") for tag, about in elements.found if tag == "script"]
    assert [kind for kind in kinds if kind != "text/plain"] == ["application/json", None]
    assert not any(name.startswith("on") for _, about in elements.found for name in about)


def test_nothing_is_fetched(elements):
    for tag, about in elements.found:
        for name in ("src", "href"):
            assert not about.get(name) or about[name].startswith(("data:", "#")), (tag, about)
    assert not re.search(r"url\(|@import|https?://", page.file("concepts.css"))
    policy = next(about["content"] for tag, about in elements.found if about.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data: ;")


def test_every_sheet_is_there(elements):
    maps = [about for _, about in elements.found if "data-about" in about]
    assert [about["data-photo"] for about in maps] == list("402043120")
    shown = json.loads(maps[0]["data-about"])
    values = SHEETS[0].maps
    np.testing.assert_allclose([shown["low"], shown["high"]], [values[0].min(), values[0].max()])
    # One range of colours for all photos of a concept.
    assert shown["from"] == 0 and np.isclose(shown["to"], values.max())
    ids = [about["id"] for _, about in elements.found if "id" in about]
    assert len(ids) == len(set(ids)) and {"concept7", "concept1", "concept3"} < set(ids)
    # The pixels of a photo are there once.
    assert sum(name.startswith("pixels") for name in ids) == 5
    assert sum("data-same" in about for _, about in elements.found) == 4
    assert sum(tag == "svg" for tag, _ in elements.found) == 2 * 2


def test_the_numbers_are_those_of_the_sheets(elements):
    text = "".join(elements.texts)
    minus = "\N{MINUS SIGN}"
    assert "1.5 ± 0.5" in text and f"{minus}0.25 ± 0.1" in text
    for mean, error in zip(SHEETS[1].curves.ravel(), SHEETS[1].curve_errors.ravel(), strict=True):
        assert f"{mean:.3g} ± {error:.3g}".replace("-", minus) in text


def test_a_page_without_sheets_is_refused():
    with pytest.raises(ValueError, match="at least one; got none"):
        jaxai.plots.concept_page([])


def test_the_page_is_a_file(tmp_path):
    found = jaxai.plots.concept_page(SHEETS[:1], path=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8") == found and "class 0" in found


@pytest.mark.slow
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (390, "light")])
def test_in_a_browser(text, browser, tmp_path, width, scheme):
    (tmp_path / "page.html").write_text(text, "utf-8")
    context, shown, said = visited(browser, tmp_path / "page.html", width, scheme)
    shown.wait_for_selector("html[data-unpacked]")
    assert said == [] and shown.title() == f"page {ATTACK}"
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    # A value under the pointer is the map's, for all concepts of the same photo.
    figures = shown.locator("figure.map[data-photo='4']")
    canvas = figures.nth(0).locator("canvas")
    canvas.scroll_into_view_if_needed()
    shown.wait_for_function("(f) => f.dataset.drawn", arg=figures.nth(0).element_handle())
    box = canvas.bounding_box()
    shown.mouse.move(box["x"] + 5.5 / SIDE * box["width"], box["y"] + 9.5 / SIDE * box["height"])
    for place, values in ((0, SHEETS[0].maps[0]), (1, SHEETS[1].maps[1])):
        value, _, at = figures.nth(place).locator("output").inner_text().partition(" at ")
        assert at == "5, 9" and abs(float(value) - values[9, 5]) < 1e-3
    shown.locator("#opacity").focus()
    shown.keyboard.press("Home")
    opacities = "[...document.querySelectorAll('canvas')].map((c) => getComputedStyle(c).opacity)"
    assert set(shown.evaluate(opacities)) == {"0"}
    # Every photo has its pixels, those too that are on the page once and shown several times.
    assert shown.evaluate("[...document.images].every((i) => i.src.startsWith('data:') && i.naturalWidth)")
    assert not shown.locator("table").first.is_visible()
    shown.locator("summary").first.focus()
    shown.keyboard.press("Enter")
    assert shown.locator("table").first.is_visible()
    dark = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(dark.replace("rgb(", "[").replace(")", "]"))) < 200) == (scheme == "dark")
    assert said == []
    context.close()
