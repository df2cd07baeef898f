"""Pictures: colours that mean what they say, pixels that are where they should be."""

import dataclasses
import io
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from jaxai import plots

LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture
def photo():
    return np.random.default_rng(0).uniform(size=(6, 8, 3))


def test_the_diverging_map_is_perceptually_uniform():
    lightness, a, b = rgb2lab(plots.diverging()(np.linspace(0, 1, 256))[None, :, :3])[0].T
    np.testing.assert_allclose(lightness[:128], np.linspace(38, 97, 128), atol=0.2)
    # Evidence for and against are equally dark.
    np.testing.assert_allclose(lightness, lightness[::-1], atol=0.2)
    assert b[0] < -50 and a[-1] > 50
    steps = np.linalg.norm(np.diff(np.stack([lightness, a, b])[:, :128]), axis=0)
    assert steps.std() < 0.02 * steps.mean()


def test_the_sequential_map_rises_evenly_in_lightness():
    lightness = rgb2lab(plots.colorize(np.arange(256.0)[None])[None, 0] / 255)[0, :, 0]
    # Matplotlib's map is uniform in CAM02-UCS, which CIELAB follows but for the darkest colours.
    steps = np.diff(lightness[::16])
    assert 2.5 < steps.min() and steps.max() < 7.5


def test_limits():
    assert plots.limits([1.0, 5.0, np.nan, np.inf]) == (1.0, 5.0)
    assert plots.limits([-1.0, 5.0], signed=True) == (-5.0, 5.0)
    assert plots.limits(np.arange(101.0), percentile=90) == (0.0, 90.0)
    assert plots.limits(np.arange(-100.0, 1), signed=True, percentile=90) == (-90.0, 90.0)


def test_limits_are_a_range_whatever_the_values():
    assert plots.limits([2.0, 2.0]) == (2.0, 3.0)
    assert plots.limits([0.0], signed=True) == (-1.0, 1.0)
    assert plots.limits([np.nan]) == (0.0, 1.0)
    assert plots.limits([np.nan], signed=True) == (-1.0, 1.0)
    # One pixel stands out of zeros: the percentile is zero, the largest value counts.
    lone = np.zeros(1000)
    lone[3] = 2.0
    assert plots.limits(lone, percentile=99) == (0.0, 2.0)
    assert plots.limits(lone, signed=True, percentile=99) == (-2.0, 2.0)


def test_colorize_takes_the_colours_of_the_map():
    import matplotlib

    colors = plots.colorize([[0.0, 5.0, 10.0, np.nan, 99.0]], cmap="viridis", bounds=(0.0, 10.0))
    viridis = matplotlib.colormaps["viridis"]
    expected = [viridis(value, bytes=True)[:3] for value in (0.0, 0.5, 1.0, 0.0, 1.0)]
    np.testing.assert_array_equal(colors[0], expected)
    assert colors.dtype == np.uint8


def test_heatmap_overlay_mixes_grey_photo_and_colours(photo):
    heatmap = np.arange(48.0).reshape(6, 8)
    grey = np.repeat((photo @ LUMA)[..., None], 3, -1)
    colors = plots.colorize(heatmap) / 255
    for opacity in (0.0, 0.3, 1.0):
        got = plots.heatmap_overlay(photo, heatmap, opacity=opacity)
        np.testing.assert_allclose(got / 255, (1 - opacity) * grey + opacity * colors, atol=0.6 / 255)


def test_signed_overlay_shows_the_photo_where_there_is_no_evidence(photo):
    heatmap = np.zeros((6, 8))
    heatmap[1, 2], heatmap[4, 5] = 2.0, -2.0
    got = plots.heatmap_overlay(photo, heatmap, signed=True) / 255
    grey = np.repeat((photo @ LUMA)[..., None], 3, -1)
    elsewhere = heatmap == 0
    np.testing.assert_allclose(got[elsewhere], grey[elsewhere], atol=0.6 / 255)
    assert got[1, 2, 0] > got[1, 2, 2] + 0.2
    assert got[4, 5, 2] > got[4, 5, 0] + 0.2


def test_overlays_take_jax_arrays_bytes_and_leave_their_inputs(photo):
    heatmap = np.ones((6, 8))
    kept = photo.copy()
    overlay = plots.heatmap_overlay(photo, heatmap)
    np.testing.assert_array_equal(photo, kept)
    np.testing.assert_array_equal(plots.heatmap_overlay(jnp.asarray(photo), jnp.asarray(heatmap)), overlay)
    levels = np.round(photo * 255).astype(np.uint8)
    np.testing.assert_array_equal(
        plots.heatmap_overlay(levels, heatmap), plots.heatmap_overlay(levels / 255, heatmap)
    )


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_flat_and_empty_maps_are_drawn(photo, value):
    heatmap = np.full((6, 8), value)
    for signed in (False, True):
        assert plots.heatmap_overlay(photo, heatmap, signed=signed).shape == (6, 8, 3)
    assert plots.signed_pixels(heatmap[..., None]).shape == (6, 8, 3)


def test_signed_pixels_are_red_for_blue_against_and_white_between():
    values = np.zeros((2, 3, 3))
    values[0, 0] = (2.0, -0.5, 0.5)
    values[1, 2] = (-1.0, -1.0, 0.0)
    got = plots.signed_pixels(values, percentile=100.0)
    end = plots.colorize([[-2.0, 0.0, 2.0]], cmap=plots.DIVERGING, bounds=(-2.0, 2.0))[0]
    np.testing.assert_array_equal(got[0, 0], end[2])
    np.testing.assert_array_equal(got[1, 2], end[0])
    np.testing.assert_array_equal(got[0, 1], end[1])
    assert end[1].min() > 240 and end[2][0] > 150 > end[2][2] and end[0][2] > 150 > end[0][0]


def test_signed_pixels_clip_what_stands_out():
    values = np.ones((10, 10))
    values[0, 0] = 1000.0
    got = plots.signed_pixels(values, percentile=90.0)
    np.testing.assert_array_equal(got[0, 0], got[5, 5])


QUARTERS = np.array([[0, 0, 0, 1, 1, 1]] * 3 + [[2, 2, 2, 3, 3, 3]] * 3)


def test_segment_mask_shows_what_speaks_for_the_class():
    photo = np.random.default_rng(1).uniform(size=(6, 6, 3))
    got = plots.segment_mask(photo, QUARTERS, [0.1, -5.0, 3.0, 0.0], regions=1, scale=4)
    assert got.shape == (24, 24, 3)
    inner = got[2::4, 2::4]  # Pixels' centres, off all lines but those of one pixel's width.
    levels = np.round(photo * 255)
    np.testing.assert_array_equal(inner[4, 1], levels[4, 1])
    for row, column in ((1, 1), (1, 4), (4, 4)):
        pale = np.round((0.35 * (photo[row, column] @ LUMA) + 0.6) * 255)
        np.testing.assert_allclose(inner[row, column], [pale] * 3, atol=1)
    outline = (got == np.round(np.array([1.0, 0.85, 0.1]) * 255)).all(-1)
    assert outline[11:13, :11].all() and outline[13:, 11:13].all()
    assert not outline[:10].any() and not outline[:, 14:].any()


def test_segment_mask_counts_regions_and_leaves_out_evidence_against():
    photo = np.zeros((6, 6, 3))
    photo[..., 0] = 1.0

    def shown(weights, regions):
        picture = plots.segment_mask(photo, QUARTERS, weights, regions=regions, boundaries=False, scale=4)
        inner = picture[2::4, 2::4]
        return {int(QUARTERS[r, c]) for r, c in ((1, 1), (1, 4), (4, 1), (4, 4)) if inner[r, c, 1] == 0}

    assert shown([1.0, 2.0, 3.0, 4.0], 2) == {2, 3}
    assert shown([1.0, -9.0, 3.0, 0.0], 4) == {0, 2}
    assert shown([-1.0, -2.0, 0.0, np.nan], 4) == set()
    assert shown([1.0, 1.0, 1.0, 1.0], 4) == {0, 1, 2, 3}


def test_boundaries_are_marked_between_all_regions():
    photo = np.full((6, 6, 3), 0.5)
    weights = [-1.0] * 4
    plain = plots.segment_mask(photo, QUARTERS, weights, boundaries=False, scale=3)
    lined = plots.segment_mask(photo, QUARTERS, weights, scale=3)
    changed = (plain != lined).any(-1)
    assert changed[8:10].all() and changed[:, 8:10].all()
    assert changed.sum() == 2 * 2 * 18 - 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: plots.heatmap_overlay(p[0, 0], np.ones(8)),
            "`photo` must be .height, width, 3., or grey; ",
        ),
        (lambda p: plots.photo_panel(p[..., :2]), r"or grey; got shape \(6, 8, 2\)"),
        (lambda p: plots.heatmap_overlay(2 * p + 1, np.ones((6, 8))), r"`photo` must lie in \[0, 1\]; got"),
        (lambda p: plots.heatmap_overlay(p * np.nan, np.ones((6, 8))), r"`photo` must lie in \[0, 1\]; got"),
        (
            lambda p: plots.heatmap_overlay(p, np.ones((8, 6))),
            r"must have the photo's size \(6, 8\)",
        ),
        (
            lambda p: plots.heatmap_overlay(p, np.ones((6, 8)), opacity=1.5),
            "`opacity` must be between",
        ),
        (lambda p: plots.heatmap_overlay(p, np.ones((6, 8)), cmap="nope"), "`cmap` must be .*; got 'nope'"),
        (lambda p: plots.signed_pixels(np.ones(3)), "`attributions` must be"),
        (
            lambda p: plots.segment_mask(p, np.zeros((6, 8), int), []),
            "`weights` must have one value",
        ),
        (lambda p: plots.segment_mask(p, -np.ones((6, 8), int), [1.0]), "`weights` must have one value"),
        (
            lambda p: plots.segment_mask(p, np.zeros((6, 8), int), [1.0], regions=0),
            "`regions` must be",
        ),
        (
            lambda p: plots.segment_mask(p, np.zeros((6, 8), int), [1.0], scale=0),
            "`scale` must be",
        ),
        (lambda p: plots.limits([1.0], percentile=101), "`percentile` must be between 0 and 100; got 101"),
        (lambda p: plots.colorize([[1.0]], bounds=(1.0, 1.0)), "`bounds` must be two rising numbers"),
        (lambda p: plots.compose([]), "`panels` must hold at least one panel; got none"),
        (lambda p: plots.png(p), "`picture` must be a figure or uint8"),
    ],
)
def test_errors(photo, call, message):
    with pytest.raises(ValueError, match=message):
        call(photo)


def test_grey_photos_are_photos(photo):
    heatmap = np.arange(48.0).reshape(6, 8)
    grey = photo[..., 0]
    colour = np.repeat(grey[..., None], 3, -1)
    for given in (grey, grey[..., None]):
        for picture in (
            lambda p: plots.heatmap_overlay(p, heatmap, signed=True),
            lambda p: plots.segment_mask(p, np.arange(48).reshape(6, 8) % 4, [1.0, -1.0, 2.0, 0.0]),
            lambda p: plots.photo_panel(p).image,
        ):
            np.testing.assert_array_equal(picture(given), picture(colour))
    bytes_ = np.round(grey * 255).astype(np.uint8)
    np.testing.assert_array_equal(plots.photo_panel(bytes_).image[..., 1], bytes_)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int64", "uint64"])
def test_segment_labels_of_any_integer_type(dtype):
    photo = np.random.default_rng(0).uniform(size=(16, 16, 3))
    count = 128 if dtype == "int8" else 256
    labels = np.arange(256).reshape(16, 16) % count
    weights = np.random.default_rng(1).normal(size=count)
    expected = plots.segment_mask(photo, labels, weights)
    np.testing.assert_array_equal(plots.segment_mask(photo, labels.astype(dtype), weights), expected)
    with pytest.raises(TypeError, match="`segments` must be integer labels; got float64"):
        plots.segment_mask(photo, labels / 2, weights)


TITLES = [
    "Ba$$in.png",
    "$5 or $6",
    r"$x^2_{$ \alpha % a_b #1 ~ {",
    "caf\udce9.png",
    "\x1b[31mred\x07\t\0",
    "\u732b\u3068\u72ac",
    "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f600",
    "\u202egnp",
]


@pytest.mark.parametrize("title", TITLES, ids=ascii)
def test_titles_are_drawn_as_they_are_written(photo, title):
    """They are names of files and classes: no mathematics, no TeX, no character that ends the drawing."""
    import matplotlib

    panel = plots.heatmap_panel(photo, np.ones((6, 8)), title=title, label=title)
    plots.png(plots.compose([panel], title=title))
    with matplotlib.rc_context({"text.usetex": True}):
        figure = plots.compose([panel], title=title)
        texts = [figure._suptitle, figure.axes[0].title, figure.axes[1].yaxis.label]
        assert not any(text.get_parse_math() or text.get_usetex() for text in texts)
    if title.isascii() and title.isprintable():
        assert [text.get_text() for text in texts] == [title] * 3
    pair = plots.pair(photo, photo, titles=(title, title), title=title)
    assert plots.render(pair).shape[2] == 3


def test_lines_of_a_title_stay_lines(photo):
    (axes,) = plots.compose([plots.photo_panel(photo, title="a$\nb\rc")]).axes
    assert axes.get_title() == "a$\nb?c"


def test_an_installed_font_draws_what_the_first_one_lacks(photo, monkeypatch):
    """Matplotlib brings a font of symbols of private use, which stands for a Chinese one here."""
    from matplotlib import font_manager

    from jaxai.plots import _texts

    def covers(name, character):
        path = font_manager.findfont(font_manager.FontProperties(family=[name]))
        return bool(font_manager.get_font(path).get_char_index(ord(character)))

    symbol = next(
        c
        for c in map(chr, range(0x2000, 0x3000))
        if covers("STIXGeneral", c) and not covers("DejaVu Sans", c)
    )
    monkeypatch.setattr(_texts, "_FONTS", ("no such font", "STIXGeneral"))
    assert _texts.plain(f"a{symbol}")[1]["fontfamily"][-1] == "STIXGeneral"
    assert _texts.plain(f"a{symbol}")[0] == f"a{symbol}"
    plots.png(plots.compose([plots.photo_panel(photo, title=f"a{symbol}")]))
    monkeypatch.setattr(_texts, "_FONTS", ())
    assert _texts.plain(f"a{symbol}")[0] == "a\N{WHITE SQUARE}"


def test_compose_names_panels_and_puts_raw_values_on_bars(photo):
    heatmap = np.linspace(-0.25, 4.0, 48).reshape(6, 8)
    figure = plots.compose(
        [
            plots.photo_panel(photo, title="photo"),
            plots.heatmap_panel(photo, heatmap, title="map", label="evidence"),
            plots.pixels_panel(heatmap[..., None] - 1, title="pixels", percentile=100.0),
            plots.segments_panel(photo, np.zeros((6, 8), int), [1.0], title="regions"),
        ],
        title="tabby (281), p = 0.21",
    )
    axes = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in axes] == ["photo", "map", "pixels", "regions"]
    assert figure.get_suptitle() == "tabby (281), p = 0.21"
    bars = [axis for axis in figure.axes if not axis.images]
    assert [bar.get_ylim() for bar in bars] == [(-0.25, 4.0), (-3.0, 3.0)]
    assert bars[0].get_ylabel() == "evidence"
    np.testing.assert_array_equal(axes[1].images[0].get_array(), plots.heatmap_overlay(photo, heatmap))


def test_compose_in_rows_leaves_empty_cells_blank(photo):
    figure = plots.compose([plots.photo_panel(photo)] * 5, columns=3)
    assert len(figure.axes) == 6
    assert [bool(axis.images) for axis in figure.axes] == [True] * 5 + [False]
    assert not figure.axes[-1].axison


def test_nothing_is_cut_off(photo):
    long = "photo of an Egyptian cat\nby a long-named method"
    figure = plots.compose([plots.heatmap_panel(photo, np.ones((6, 8)), title=long)] * 2, title="A class")
    pixels = plots.render(figure)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 255).all()
    # Title, panels and bars are inside: no text reaches over another panel.
    boxes = [axis.get_tightbbox() for axis in figure.axes if axis.images]
    assert boxes[0].x1 <= boxes[1].x0


def test_pair_shows_both_pictures(photo):
    figure = plots.pair(photo, photo[:, ::-1], titles=("cat", "dream"), title="conv5_1")
    shown = [axis.images[0].get_array() for axis in figure.axes]
    np.testing.assert_array_equal(shown[0], np.round(photo * 255))
    np.testing.assert_array_equal(shown[1], np.round(photo[:, ::-1] * 255))
    assert [axis.get_title() for axis in figure.axes] == ["cat", "dream"]


def test_png_is_what_was_drawn(photo):
    figure = plots.compose([plots.photo_panel(photo)])
    stored = plots.png(figure)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), plots.render(figure))
    assert plots.png(plots.compose([plots.photo_panel(photo)])) == stored


@pytest.mark.slow
def test_matplotlib_keeps_no_global_state():
    code = (
        "import sys, numpy as np; from jaxai import plots;"
        "plots.png(plots.compose([plots.photo_panel(np.ones((4, 4, 3)))]));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.sampled
@pytest.mark.parametrize("title", ["", "all"])
@pytest.mark.parametrize("count", [1, 3])
def test_captions_are_whole(title, count):
    """Beside panels with and without colour bars nothing of the last line is cut off."""
    photo = np.full((64, 64, 3), 0.5, np.float32)
    heatmap = plots.heatmap_panel(photo, np.arange(4096.0).reshape(64, 64), title="map", label="unit")
    panels = [plots.photo_panel(photo, title="photo")]
    panels += [dataclasses.replace(heatmap, caption="relevance gain 0.20   gini 0.61\npointing 1.00")] * count
    pixels = plots.render(plots.compose(panels, title=title))
    assert (pixels[-3:] > 250).all()
    # The second line is there: dark pixels below the pictures, in two groups of rows.
    dark = (pixels[:, pixels.shape[1] // (count + 1) :] < 150).any((1, 2)).astype(int)
    bottom = np.flatnonzero((np.abs(pixels.astype(int) - 128) < 4).all(-1).sum(1) > 100).max()
    assert (np.diff(dark[bottom + 2 :]) == -1).sum() >= 2
