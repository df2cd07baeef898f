import runpy
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxai
from jaxai.models import layers, zoo
from jaxai.perturbation import _incremental, _windows

GOLDENS = Path(__file__).parent / "goldens"
TOYS = runpy.run_path(str(GOLDENS / "toy_game.py"))


def direct(predict, image, window, strides, fill=0.0):
    """Occlusion written out: image [h, w, c], predict of a batch to values."""
    height, width = image.shape[:2]
    total, cover = np.zeros((height, width)), np.zeros((height, width))
    base = predict(image[None])[0]
    for top in range(0, height - window[0] + strides[0], strides[0]):
        for left in range(0, width - window[1] + strides[1], strides[1]):
            changed = image.copy()
            changed[top : top + window[0], left : left + window[1]] = fill
            drop = base - predict(changed[None])[0]
            total[top : top + window[0], left : left + window[1]] += drop
            cover[top : top + window[0], left : left + window[1]] += 1
    return total / np.maximum(cover, 1)


@cache
def weights(*shape, seed=0):
    values = np.random.RandomState(seed).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    return values.astype(np.float32)


def conv(x, kernel, stride=1, padding="SAME", **options):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def plain_net(x):
    """Convolutions with strides and a bias, a residual sum, an overlapping pool, dense layers."""
    x = jax.nn.relu(conv(x, weights(3, 3, 3, 8), 2) + weights(8))
    y = conv(jax.nn.relu(conv(x, weights(3, 3, 8, 8, seed=1))), weights(1, 1, 8, 8, seed=2))
    x = jax.nn.relu(x + y)
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    x = conv(x, weights(3, 3, 8, 12, seed=3), padding="VALID")
    return x.reshape(len(x), -1) @ weights(12 * x.shape[1] * x.shape[2], 5, seed=4)


def branched_net(x):
    """Dilation, groups, a stride larger than the window, concatenation, a positional weight, a mean."""
    a = conv(x, weights(3, 3, 3, 6), rhs_dilation=(2, 2))
    b = conv(x, weights(3, 3, 1, 3, seed=1), feature_group_count=3)
    x = jnp.concatenate([jnp.tanh(a), b], axis=3) * weights(x.shape[1], x.shape[2], 9, seed=2)
    x = conv(x, weights(1, 1, 9, 7, seed=3), 2)
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return jax.nn.relu(x).mean((1, 2))


def marginal_net(x):
    """Rows and columns that no window reads, padding on one side, and a gate by the whole image."""
    x = conv(x, weights(5, 2, 3, 6), 3, ((2, 0), (0, 1)))
    x = x * jax.nn.sigmoid(x.mean((1, 2), keepdims=True))
    return jax.nn.relu(conv(x, weights(2, 2, 6, 4, seed=1), 2, "VALID")).sum((1, 2))


def ported_net(x):
    """The ports' own convolutions and pools, which are calls of their own."""
    pads = ((1, 1), (0, 1))
    x = jax.nn.relu6(layers.conv(x, weights(3, 3, 3, 8), strides=(2, 2), padding=pads) + weights(8))
    x = layers.depthwise_conv(x, weights(3, 3, 1, 8, seed=1), padding=((1, 1), (1, 1)))
    x = layers.max_pool(x, window=2)
    x = layers.depthwise_conv(x, weights(5, 5, 1, 8, seed=2), strides=(2, 2), padding=((2, 2), (1, 2)))
    return layers.conv(x, weights(1, 1, 8, 5, seed=3)).mean((1, 2))


NETS = {"ported": ported_net, "plain": plain_net, "branched": branched_net, "marginal": marginal_net}


@pytest.mark.sampled
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("window", "strides"), [((6, 5), (5, 3))])
def test_incremental_is_the_naive_form(name, window, strides):
    images = jax.random.normal(jax.random.key(9), (2, 33, 26, 3))
    run = dict(window=window, strides=strides, fill=0.3)
    naive = jaxai.occlusion(NETS[name], images, jnp.array([[0, 2], [1, 3]]), incremental=False, **run)
    fast = jaxai.occlusion(NETS[name], images, jnp.array([[0, 2], [1, 3]]), incremental=True, **run)
    largest = float(jnp.abs(naive).max())
    assert largest > 1e-3
    # The drops are differences of scores a hundred times their size.
    np.testing.assert_allclose(fast, naive, atol=1e-3 * largest)


def test_patches_are_small():
    place = _windows.sliding((32, 32), 4, 4)
    plan, _ = _incremental.program(plain_net, jnp.zeros((1, 32, 32, 3)), place)
    assert _incremental.saving(plan) > 1.8 and _incremental.lightness(plan) >= 4
    # A model that mixes all positions at once is computed in full.
    dense = lambda x: x.reshape(len(x), -1) @ weights(32 * 32 * 3, 4)  # noqa: E731
    assert _incremental.saving(_incremental.program(dense, jnp.zeros((1, 32, 32, 3)), place)[0]) == 1.0


@pytest.mark.parametrize(("window", "least"), [(16, 5.8), (32, 4.5), (64, 3.0)])
def test_multiplications_saved_on_vgg16(window, least):
    """At least what Krypton (Nakandala et al., SIGMOD 2019) saves: nothing is run, only counted."""
    network = nnx.eval_shape(lambda: zoo.entry("vgg16").make(rngs=nnx.Rngs(0)))
    place = _windows.sliding((224, 224), window, window // 2)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    assert _incremental.saving(_incremental.program(network, image, place)[0]) > least


@pytest.mark.parametrize(("window", "strides"), [((5, 7), (3, 4)), ((4, 4), (4, 4)), ((2, 3), (5, 6))])
def test_against_a_loop(window, strides):
    image = TOYS["toy_image"]()
    predict = lambda x: TOYS["toy_logits"](x)[:, 1]  # noqa: E731
    first, second = map(jnp.asarray, TOYS["toy_parameters"]())
    model = lambda x: jnp.tanh(x.reshape(len(x), -1) @ first) @ second  # noqa: E731
    found = jaxai.occlusion(model, image[None], 1, window=window, strides=strides, fill=0.5)
    np.testing.assert_allclose(found[0], direct(predict, image, window, strides, 0.5), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["64_40", "60_50"])
def test_captum_on_the_real_network(lite0, setting):
    from skimage.data import chelsea

    golden = np.load(GOLDENS / "perturbation.npz")
    x = lite0.normalize(jnp.asarray(chelsea()[38:262, 113:337], jnp.float32)[None] / 255)
    window, stride = map(int, setting.split("_"))
    found = jaxai.occlusion(
        lite0.model,
        x,
        int(golden["lite_classes"][0]),
        window=window,
        strides=stride,
        incremental=setting == "60_50",
    )
    np.testing.assert_allclose(found[0], golden[f"lite_occlusion_{setting}"], atol=1e-4)


@pytest.mark.slow
def test_batches_targets_jit_and_vmap():
    images = jax.random.normal(jax.random.key(0), (3, 12, 20, 3))
    run = dict(window=(5, 6), strides=(4, 7), fill="image_mean")
    for way in (False, True):
        explain = lambda x, t=None, way=way: jaxai.occlusion(plain_net, x, t, incremental=way, **run)  # noqa: E731
        both = explain(images)
        top = plain_net(images).argmax(1)
        many = explain(images, jnp.stack([top, jnp.where(top == 0, 1, 0)], axis=1))
        assert many.shape == (3, 2, 12, 20)
        np.testing.assert_allclose(many[:, 0], both, atol=1e-5)
        np.testing.assert_allclose(explain(images[1:2])[0], both[1], atol=1e-5)
        np.testing.assert_allclose(jax.jit(explain)(images), both, atol=1e-5)
        called = explain(images, lambda s: s[:, 1] - s[:, 0])
        difference = explain(images, jnp.array([1, 1, 1])) - explain(images, jnp.array([0, 0, 0]))
        np.testing.assert_allclose(called, difference, atol=1e-5)
        part = jaxai.occlusion(plain_net, images, incremental=way, batch_size=2, **run)
        np.testing.assert_allclose(part, both, atol=1e-5)
    mapped = jax.vmap(lambda x: jaxai.occlusion(plain_net, x[None], incremental=False, **run)[0])(images)
    np.testing.assert_allclose(mapped, both, atol=1e-5)


def test_bfloat16_and_flat_images():
    images = jnp.ones((1, 12, 12, 3), jnp.bfloat16)
    model = lambda x: x.mean((1, 2))  # noqa: E731
    found = jaxai.occlusion(model, images, 0, window=4, strides=4)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 16 / 144, rtol=0.05)
    assert (jaxai.occlusion(model, images, 0, window=4, strides=4, fill=1.0) == 0).all()


def test_errors():
    images = jnp.zeros((1, 12, 12, 3))
    with pytest.raises(ValueError, match="must not exceed the image, 12 x 12; got"):
        jaxai.occlusion(plain_net, images, window=13)
    with pytest.raises(ValueError, match="`strides` must be a positive"):
        jaxai.occlusion(plain_net, images, window=3, strides=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        jaxai.occlusion(lambda x: plain_net(x) / 0 - plain_net(x) / 0, images, 0, window=3, strides=3)
    with pytest.raises(TypeError, match="`incremental` must be"):
        jaxai.occlusion(plain_net, images, window=3, incremental="yes")
    box = jaxai.perturbation.black_box(lambda x: np.asarray(plain_net(x)))
    with pytest.raises(TypeError, match="got a black box"):
        jaxai.occlusion(box, images, 0, window=3, strides=3, incremental=True)
    found = jaxai.occlusion(box, images + 1, 0, window=3, strides=3)
    np.testing.assert_allclose(
        found, jaxai.occlusion(plain_net, images + 1, 0, window=3, strides=3), atol=1e-5
    )
