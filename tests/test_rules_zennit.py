"""Relevances against zennit: every rule and composite on a small network, composites on real weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import slow_but
from jax import lax

import jaxai
from jaxai import rules

# Those for transformers are not zennit's.
COMPOSITES = [name for name in rules.COMPOSITES if name.startswith("epsilon")]
GOLDEN = np.load(Path(__file__).parent / "goldens" / "zennit.npz")


def conv(x, weights, name, *, strides=(1, 1), padding=1, groups=1):
    kernel = jnp.transpose(weights[f"{name}.weight"], (2, 3, 1, 0))
    numbers = ("NHWC", "HWIO", "NHWC")
    pads = ((padding, padding),) * 2
    y = lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=numbers, feature_group_count=groups
    )
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def dense(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def small_network(weights, x):
    y = conv(x, weights, "0")
    scale = weights["1.weight"] * lax.rsqrt(weights["1.running_var"] + 1e-5)
    y = (y - weights["1.running_mean"]) * scale + weights["1.bias"]
    y = jax.nn.relu(y)
    y = jax.nn.relu(conv(y, weights, "3", strides=(2, 2)))
    y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    inner = jnp.maximum(conv(y, weights, "6.inner.0"), 0)
    y = y + conv(inner, weights, "6.inner.2", padding=0)
    y = conv(y, weights, "7", groups=8)
    y = jnp.where(y > 0, y, 0)
    y = lax.reduce_window(y, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    y = jax.nn.relu(dense(y.reshape(y.shape[0], -1), weights, "11"))
    return dense(y, weights, "13")


@pytest.fixture(scope="module")
def small():
    weights = {k.removeprefix("weights."): jnp.asarray(GOLDEN[k]) for k in GOLDEN if k.startswith("weights.")}
    return jax.tree_util.Partial(small_network, weights), jnp.asarray(GOLDEN["images"])


def distance(ours, reference):
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    return np.linalg.norm(ours - reference) / np.linalg.norm(reference)


def blocks(maps, size):
    n, height, width, _ = maps.shape
    return maps.sum(3).reshape(n, height // size, size, width // size, size).sum((2, 4))


SINGLE = {
    "epsilon": rules.Epsilon(),
    "epsilon_large": rules.Epsilon(0.25),
    "gamma": rules.Gamma(),
    "z_plus": rules.ZPlus(),
    "alpha_beta": rules.AlphaBeta(2.0, 1.0),
    "w_square": rules.WSquare(),
    "flat": rules.Flat(),
    "norm": rules.Norm(),
}
EVERY = {name: rules.Composite(conv=rule, dense=rule) for name, rule in SINGLE.items()}
EVERY["z_box"] = rules.Composite(
    conv=rules.Epsilon(), dense=rules.Epsilon(), first=rules.ZBox(), first_kinds=("conv",)
)


def test_the_network_is_the_same(small):
    model, x = small
    assert distance(model(x), GOLDEN["scores"]) < 1e-6
    assert rules.report(model, x).operations == {
        "conv": 5, "dense": 2, "max": 1, "pool": 1, "relu": 5, "shape": 1, "sum": 1,
    }  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("name", [*EVERY, *COMPOSITES])
def test_small_network(small, name):
    model, x = small
    low, high = float(GOLDEN["low"]), float(GOLDEN["high"])
    ours = jaxai.lrp(
        model, x, GOLDEN["targets"], composite=EVERY.get(name, name), low=low, high=high, strict=True
    )
    assert distance(ours, GOLDEN[f"small.{name}"]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["excitation_backprop", "guided_backprop", "deconvnet"])
def test_small_network_other_rules(small, name):
    model, x = small
    ours = getattr(jaxai, name)(model, x, GOLDEN["targets"])
    assert distance(ours, GOLDEN[f"small.{name}"]) < 1e-3


@pytest.fixture(scope="module")
def brain_mri():
    return jaxai.models.load("vgg16_brain_mri")


def centre(photo, size):
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    return photo[None, top : top + size, left : left + size].astype(np.float32) / 255


ALL_LAYERS = [*SINGLE, *COMPOSITES]


# Their relevances do not shrink with an output, so a residual sum near zero blows rounding up: a change of
# the image by 2e-7 changes them by 3% on EfficientNet-Lite0.
ILL_CONDITIONED = ("w_square", "flat")


def cat_128(photos):
    """The golden's own input, to the last bit."""
    mean, std = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (centre(photos["cat"], 128) - mean) / std


# The composites use every other rule, on the layers it is made for.
@pytest.mark.slow
@pytest.mark.parametrize("name", COMPOSITES)
def test_lite0_with_real_weights(lite0, photos, name):
    x = jnp.asarray(cat_128(photos))
    ours = jaxai.lrp(lite0.model, x, 285, composite=name, low=-2.2, high=2.7, strict=True)
    assert distance(blocks(ours, 2), GOLDEN[f"lite0.{name}"]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ILL_CONDITIONED)
def test_lite0_in_double_precision(lite0, photos, name):
    with jax.enable_x64(True):
        model, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (lite0.model, cat_128(photos)))
        ours = jaxai.lrp(model, x, 285, composite=EVERY[name], strict=True)
    assert distance(blocks(np.asarray(ours), 2), GOLDEN[f"lite0.{name}"]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but("epsilon", ALL_LAYERS))
def test_medical_vgg16(brain_mri, photos, name):
    x = centre(photos["astronaut"], 240)
    ours = jaxai.lrp(brain_mri.model, x, 2, composite=EVERY.get(name, name), low=0.0, high=1.0, strict=True)
    assert distance(blocks(ours, 4), GOLDEN[f"vgg16.{name}"]) < 1e-3
