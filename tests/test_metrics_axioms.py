"""Closed forms of axioms, of stability in hidden layers, of moving images, of sets and of information."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from jax.tree_util import Partial
from PIL import Image

import jaxai
from jaxai import metrics
from jaxai.metrics import _robustness

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((3, 8, 8, 2)), jnp.float32)
WEIGHTS = jnp.asarray(RNG.normal(size=(8, 8, 2, 4)), jnp.float32)


def linear(weights, x):
    return jnp.einsum("nhwc,hwck->nk", x, weights)


MODEL = Partial(linear, WEIGHTS)


def test_completeness():
    maps = jaxai.input_x_gradient(MODEL, IMAGES, 1)
    assert np.asarray(metrics.completeness(MODEL, IMAGES, maps, 1)).max() < 1e-4
    # Half of the map leaves half of the score; another baseline is another sum.
    np.testing.assert_allclose(metrics.completeness(MODEL, IMAGES, maps / 2, 1), 0.5, atol=1e-4)
    paths = jaxai.integrated_gradients(MODEL, IMAGES, 1, baseline=0.3, steps=3)
    assert np.asarray(metrics.completeness(MODEL, IMAGES, paths, 1, fill=0.3)).max() < 1e-3
    scores = np.asarray(MODEL(IMAGES)[:, 1] - MODEL(0.3 * jnp.ones_like(IMAGES))[:, 1])
    expected = np.abs(np.asarray(maps).sum((1, 2, 3)) - scores) / np.abs(scores)
    np.testing.assert_allclose(metrics.completeness(MODEL, IMAGES, maps, 1, fill=0.3), expected, rtol=1e-3)
    assert np.isnan(metrics.completeness(lambda x: jnp.ones((len(x), 4)), IMAGES, maps, 1)).all()
    several = jnp.stack([maps, jaxai.input_x_gradient(MODEL, IMAGES, 2)], 1)
    both = metrics.completeness(MODEL, IMAGES, several, jnp.array([[1, 2]] * 3))
    assert both.shape == (3, 2) and both.max() < 1e-4


@pytest.mark.slow
def test_non_sensitivity():
    half = WEIGHTS.at[:4].set(0)
    model = Partial(linear, half)
    truth = np.zeros((3, 8, 8), np.float32)
    truth[:, 4:] = 1
    right = metrics.non_sensitivity(model, IMAGES, truth, 1, key=KEY, probability=False, share=1e-3)
    assert right.tolist() == [0, 0, 0]
    # One row of eight cells too many, negative as it may be, and one too few.
    more, less = truth.copy(), truth.copy()
    more[:, 3], less[:, 4] = -1, 0
    for maps in (more, less):
        found = metrics.non_sensitivity(model, IMAGES, maps, 1, key=KEY, probability=False)
        assert found.tolist() == [0.125] * 3
    # A random map says nothing of the half that does not count: all of it is wrong.
    noise = metrics.non_sensitivity(model, IMAGES, 0.1 + RNG.random((3, 8, 8)), 1, key=KEY, probability=False)
    assert noise.tolist() == [0.5] * 3
    with pytest.raises(ValueError, match=r"`share` must be a number in \[0, 1\)"):
        metrics.non_sensitivity(model, IMAGES, truth, 1, key=KEY, share=1)


@pytest.mark.slow
def test_chunks_jit_and_each_image_alone(dense_net, small_images):
    # A quotient of small differences of scores: rounding is larger than elsewhere.
    loose = 5e-4
    maps = jaxai.input_x_gradient(dense_net, small_images, 2)
    for metric, given in (
        (metrics.completeness, {}),
        (metrics.non_sensitivity, {"key": KEY, "num_samples": 2}),
    ):
        whole = metric(dense_net, small_images, maps, 2, **given)
        close(metric(dense_net, small_images, maps, 2, batch_size=5, **given), whole, loose)
        compiled = jax.jit(lambda m, metric=metric, g=given: metric(dense_net, small_images, m, 2, **g))
        close(compiled(maps), whole, loose)
        close(metric(dense_net, small_images[1:2], maps[1:2], 2, **given), whole[1:2], loose)
    for metric in (metrics.continuity, metrics.input_invariance):
        given = {"steps": 3} if metric is metrics.continuity else {}
        whole = metric(jaxai.input_x_gradient, dense_net, small_images, 2, **given)
        close(metric(jaxai.input_x_gradient, dense_net, small_images, 2, batch_size=2, **given), whole, 1e-4)
        close(metric(jaxai.input_x_gradient, dense_net, small_images[1:2], 2, **given), whole[1:2], 1e-4)
    host = jaxai.perturbation.black_box(lambda x: np.asarray(dense_net(jnp.asarray(x))))
    asked = metrics.completeness(host, small_images, maps, 2)
    close(asked, metrics.completeness(dense_net, small_images, maps, 2), loose)


def test_input_invariance(dense_net, small_images):
    gradient = metrics.input_invariance(jaxai.saliency, dense_net, small_images, 1, shift=0.5)
    assert np.asarray(gradient).max() < 1e-4
    # Of a linear model input x gradient grows by s w: its relative change is known.
    found = metrics.input_invariance(jaxai.input_x_gradient, MODEL, IMAGES, 2, shift=jnp.array([1.0, -2.0]))
    weights = np.asarray(WEIGHTS[..., 2])
    own = (np.asarray(IMAGES) * weights).sum(-1)
    change = (np.array([1.0, -2.0]) * weights).sum(-1)
    np.testing.assert_allclose(found, np.linalg.norm(change) / np.linalg.norm(own, axis=(1, 2)), rtol=1e-4)
    # Methods that look at a layer find it.
    cam = metrics.input_invariance(jaxai.grad_cam, dense_net, small_images, 1)
    assert np.asarray(cam).max() < 1e-4
    with pytest.raises(ValueError, match="`shift` must broadcast to the images' shape"):
        metrics.input_invariance(jaxai.saliency, MODEL, IMAGES, 2, shift=jnp.ones(3))


@pytest.mark.slow
def test_continuity():
    # The map is the image's square: between neighbours sum |a^2 - b^2| / sqrt(sum (a - b)^2).
    def square(model, x, t):
        return (x**2).sum(-1)

    found = metrics.continuity(square, MODEL, IMAGES, 0, steps=3, shift=2)
    images = np.asarray(IMAGES)
    moved = [images[:, :, np.maximum(np.arange(8) - 2 * s, 0)] for s in range(4)]
    quotients = [
        np.abs((b**2 - a**2).sum(-1)).sum((1, 2)) / np.sqrt(((b - a) ** 2).sum((1, 2, 3)))
        for a, b in zip(moved, moved[1:], strict=False)
    ]
    np.testing.assert_allclose(found, np.max(quotients, axis=0), rtol=1e-5)
    still = metrics.continuity(lambda m, x, t: jnp.ones(x.shape[:3]), MODEL, IMAGES, 0, steps=2)
    assert still.tolist() == [0, 0, 0]
    assert np.isnan(metrics.continuity(square, MODEL, jnp.ones((1, 8, 8, 2)), 0, steps=2)).all()
    two = metrics.continuity(jaxai.saliency, MODEL, IMAGES, jnp.array([[0, 1]] * 3), steps=2)
    assert two.shape == (3, 2)
    with pytest.raises(ValueError, match="less than the image's width 8; got 4 times 2"):
        metrics.continuity(square, MODEL, IMAGES, 0, steps=4, shift=2)


@pytest.mark.slow
def test_representation_stability_against_a_loop(dense_net, small_images):
    given = {"key": KEY, "radius": 0.05, "num_samples": 6, "epsilon": 1e-2}
    found = metrics.relative_representation_stability(
        jaxai.input_x_gradient, dense_net, small_images, 3, layer="conv2", **given
    )
    moved = np.asarray(_robustness._moved(small_images, KEY, jnp.float32(0.05), jnp.arange(6)))

    def relative(a, b, axes):
        size = np.abs(b)
        return np.sqrt((((a - b) / np.maximum(size, 1e-2 * size.max(axes, keepdims=True))) ** 2).sum(axes))

    def maps(x):
        return np.asarray(jaxai.input_x_gradient(dense_net, jnp.asarray(x), 3)).sum(-1)

    def hidden(x):
        return np.asarray(dense_net(jnp.asarray(x), stop="conv2"))

    top = np.asarray(dense_net(small_images)).argmax(-1)
    quotients = []
    for x in moved:
        change = relative(hidden(x), hidden(small_images), (1, 2, 3))
        value = relative(maps(x), maps(small_images), (1, 2)) / np.maximum(change, 1e-2)
        quotients.append(np.where(np.asarray(dense_net(jnp.asarray(x))).argmax(-1) == top, value, np.nan))
    np.testing.assert_allclose(found.largest, np.nanmax(quotients, axis=0), rtol=2e-3)
    np.testing.assert_allclose(found.median, np.nanmedian(quotients, axis=0), rtol=2e-3)
    default = metrics.relative_representation_stability(jaxai.saliency, dense_net, small_images, 3, **given)
    named = metrics.relative_representation_stability(
        jaxai.saliency, dense_net, small_images, 3, layer="conv2", **given
    )
    close(default.median, named.median)
    with pytest.raises(ValueError, match="no hidden layer of this model has positions"):
        metrics.relative_representation_stability(jaxai.saliency, MODEL, IMAGES, 3, **given)
    with pytest.raises(ValueError, match="unknown layer 'conv9'; the layers are conv1"):
        metrics.relative_representation_stability(
            jaxai.saliency, dense_net, small_images, 3, layer="conv9", **given
        )


def test_consistency():
    # Class 0 where the left half is bright; the maps point at the corners 0, 0, 0, 1, 1, 2.
    images = jnp.zeros((6, 4, 4, 1)).at[jnp.array([0, 1, 3]), :, :2].set(1.0)

    def model(x):
        left = x[:, :, :2].sum((1, 2, 3))
        return jnp.stack([left, 1 - left], 1)

    maps = np.zeros((6, 4, 4), np.float32)
    corners = [0, 0, 0, 1, 1, 2]
    for index, corner in enumerate(corners):
        maps[index, corner // 2 * 3, corner % 2 * 3] = 1
    found = metrics.consistency(model, images, maps, cells=2)
    np.testing.assert_array_equal(found, [0.5, 0.5, 0, 0, 0, np.nan])
    own = metrics.consistency(model, images, maps, discretize=lambda maps: jnp.array(corners))
    np.testing.assert_array_equal(own, found)
    same = metrics.consistency(model, images, maps, discretize=lambda maps: jnp.zeros(len(maps), jnp.int32))
    np.testing.assert_allclose(same, 2 / 5)
    with pytest.raises(ValueError, match=r"`discretize` must return integers \[batch\], shape \(6,\)"):
        metrics.consistency(model, images, maps, discretize=lambda maps: maps)


def steps_of(image, blurred, order, shares):
    """Return the images of a path as the metric should show them."""
    count = order.size
    for number in [0, *(int(share * count) for share in shares), count]:
        shown = np.isin(np.arange(count), order[:number]).reshape(image.shape[:2])
        yield np.where(shown[..., None], image, blurred)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "compression"), [(3, "webp"), (2, "png")])
def test_information_curves_against_a_loop(channels, compression):
    images = RNG.random((2, 12, 16, channels)).astype(np.float32)
    maps = RNG.normal(size=(2, 12, 16)).astype(np.float32)
    weights = jnp.asarray(RNG.normal(size=(12, 16, channels, 3)), jnp.float32) / 3
    model, blurred = Partial(linear, weights), np.full((channels,), 0.4, np.float32)
    classes, shares = np.asarray(model(images)).argmax(-1), (0.5, 0.1, 0.25)
    found = metrics.sic(
        model, images, maps, classes, shares=shares, fill=jnp.asarray(blurred), compression=compression
    )
    right = metrics.aic(
        model, images, maps, classes, shares=shares, fill=jnp.asarray(blurred), compression=compression
    )
    for i, image in enumerate(images):
        order, sizes, said, tops = np.argsort(-maps[i].reshape(-1), kind="stable"), [], [], []
        for shown in steps_of(image, blurred, order, sorted(shares)):
            scores = np.asarray(jax.nn.softmax(model(jnp.asarray(shown)[None])))[0]
            said.append(scores[classes[i]])
            tops.append(float(scores.argmax() == classes[i]))
            bytes_ = np.round((shown - image.min()) / (image.max() - image.min()) * 255).astype(np.uint8)
            bytes_ = bytes_ if channels == 3 else np.concatenate(list(np.moveaxis(bytes_, -1, 0)), 1)
            file = io.BytesIO()
            Image.fromarray(bytes_).save(file, compression, **({"lossless": True} if channels == 3 else {}))
            sizes.append(file.tell())
        x = np.clip((np.array(sizes) - sizes[0]) / (sizes[-1] - sizes[0]), 0, 1)
        np.testing.assert_allclose(found.information[i], x, atol=0.02)
        for curve, values in ((found, said), (right, tops)):
            if values[-1] <= values[0]:
                assert np.isnan(curve.area[i])
                continue
            y = np.clip((np.array(values) - values[0]) / (values[-1] - values[0]), 0, 1)
            y = np.maximum.accumulate(y)
            at = np.argsort(np.asarray(curve.information[i]), kind="stable")
            expected = np.interp(np.linspace(0, 1, 101), np.asarray(curve.information[i])[at], y[at])
            np.testing.assert_allclose(curve.curve[i], expected, atol=1e-4)
            assert curve.area[i] == pytest.approx(np.trapezoid(expected, dx=0.01), abs=1e-4)


@pytest.mark.slow
def test_information_curves_know_the_truth():
    """What is seen alone, shown first, brings the class back at once; shown last, only at the end."""
    images = jnp.asarray(RNG.random((4, 16, 16, 3)), jnp.float32)

    def model(x):
        seen = (x[:, :4, :4] - 0.5).reshape(len(x), -1) ** 2
        return jnp.stack([60 * seen.mean(-1), jnp.full(len(x), 2.0)], 1)

    truth = np.zeros((4, 16, 16), np.float32)
    truth[:, :4, :4] = 1
    options = {"fill": jnp.float32(0.5), "shares": (0.0625, 0.2, 0.5)}
    for metric in (metrics.sic, metrics.aic):
        best, worst = (metric(model, images, sign * truth, 0, **options) for sign in (1, -1))
        # Straight to 1 with the first share; 0 as long as nothing of the square is shown, then straight to 1.
        np.testing.assert_allclose(best.area, 1 - best.information[:, 1] / 2, atol=0.01)
        np.testing.assert_allclose(worst.area, (1 - worst.information[:, 3]) / 2, atol=0.01)
        noise = metric(model, images, RNG.random((4, 16, 16)), 0, **options).area
        assert (worst.area < noise + 0.02).all() and (noise < best.area).all()
    with pytest.warns(UserWarning, match="is constant: it orders nothing"):
        flat = metrics.sic(model, images, np.zeros((4, 16, 16)), 0, **options)
    assert np.isnan(flat.area).all()
    several = metrics.sic(model, images, np.stack([truth, -truth], 1), jnp.array([[0, 1]] * 4), **options)
    assert several.curve.shape == (4, 2, 101) and np.isnan(several.area[:, 1]).all()
    close(several.curve[:, 0], metrics.sic(model, images, truth, 0, batch_size=3, **options).curve)


def test_errors_of_information_curves():
    maps = IMAGES.sum(-1)
    with pytest.raises(ValueError, match="`compression` must be one of webp, png"):
        metrics.sic(MODEL, IMAGES, maps, 0, compression="jpeg")
    with pytest.raises(ValueError, match=r"`shares` must be a number in \(0, 1\)"):
        metrics.sic(MODEL, IMAGES, maps, 0, shares=(0.5, 1.0))
    with pytest.raises(ValueError, match="`shares` must hold at least one number"):
        metrics.sic(MODEL, IMAGES, maps, 0, shares=())
    with pytest.raises(TypeError, match="`targets` must be classes, or None"):
        metrics.aic(MODEL, IMAGES, maps, lambda scores: scores[:, 0])
    with pytest.raises(TypeError, match="outside of jax.jit"):
        jax.jit(lambda maps: metrics.sic(MODEL, IMAGES, maps, 0).area)(maps)
