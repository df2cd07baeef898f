"""Results of functions and networks as short texts, pictures, pages and files of several formats."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from tiny_network import SIZE, ramps, tiny

import jaxai
from jaxai._program.listing import Tree
from jaxai.report import _record as record

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
