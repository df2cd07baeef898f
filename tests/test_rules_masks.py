"""Masks and paddings of minus infinity, and dead channels: finite, and what a large number gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import slow_but
from flax import nnx
from jax import lax

import jaxai
from jaxai import rules

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
IMAGES, WEIGHTS, HEAD = (RNG.normal(size=s).astype(np.float32) / 2 for s in ((1, 4, 4, 3), (3, 8), (8, 5)))
CAUSAL = np.tril(np.ones((16, 16), bool))
# What a mask adds; float16 ends at 65,504.
LOW = {"float32": -1e9, "bfloat16": -1e9, "float16": -3e4}


def chosen(scores, low):
    return jnp.where(CAUSAL, scores, low)


def added(scores, low):
    return scores + jnp.where(CAUSAL, jnp.zeros((), scores.dtype), low)


def by_value(scores, low):
    return jnp.where(scores >= scores.mean(-1, keepdims=True), scores, low)


def attention(mask, low, x):
    weights, head = WEIGHTS.astype(x.dtype), HEAD.astype(x.dtype)
    tokens = (x @ weights).reshape(1, 16, 8)
    scores = mask(tokens @ tokens.swapaxes(1, 2), jnp.asarray(low, x.dtype))
    return (jax.nn.softmax(scores) @ tokens).mean(1) @ head


def padded(low, x):
    y = jax.nn.relu(x @ WEIGHTS.astype(x.dtype)).at[..., 0].set(0)
    y = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=low)
    return nnx.max_pool(y, (3, 3), strides=(2, 2)).mean((1, 2)) @ HEAD.astype(x.dtype)


NETWORKS = {
    "chosen": partial(attention, chosen),
    "added": partial(attention, added),
    "by value": partial(attention, by_value),
    "padded": padded,
}


def methods():
    lrp = partial(jaxai.lrp, low=-4.0, high=4.0)
    taylor = rules.Composite(product=rules.Uniform(), softmax=rules.Softmax())
    half = lambda net, x, t: jaxai.deep_lift(net, x, t, baseline=x / 2)  # noqa: E731
    pair = lambda net, x, t: jaxai.deep_lift_shap(  # noqa: E731
        net, x, t, baselines=jnp.concatenate([x / 2, -x])
    )
    return [
        *(partial(lrp, composite=name) for name in (*rules.COMPOSITES, taylor)),
        *(jaxai.excitation_backprop, half, pair),
    ]


# Which scores are masked depends on the image there.
@pytest.mark.sampled
@pytest.mark.filterwarnings("ignore:deep_lift has no rule for select_n")
@pytest.mark.parametrize("dtype", slow_but("float32", LOW))
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_infinite_masks_are_large_masks(name, dtype):
    x = jnp.asarray(IMAGES, dtype)

    @jax.jit
    def explain(x):
        nets = [partial(NETWORKS[name], low) for low in (-jnp.inf, LOW[dtype])]
        return [[method(net, x, 1) for method in methods()] for net in nets]

    for ours, expected in zip(*explain(x), strict=True):
        ours, expected = np.asarray(ours, np.float32), np.asarray(expected, np.float32)
        assert np.isfinite(ours).all()
        # Where both are computed by the same steps they are the same but for the mask's own rounding.
        np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(expected).max())


def test_masked_attention_conserves_relevance():
    net = partial(attention, chosen, -jnp.inf)
    exact = rules.Composite(
        dense=rules.Epsilon(1e-9), pool=rules.Norm(1e-9), product=rules.SignalTakesAll(1e-9)
    )
    ours = jaxai.lrp(net, jnp.asarray(IMAGES), 1, composite=exact, relevance="score")
    np.testing.assert_allclose(ours.sum(), net(jnp.asarray(IMAGES))[0, 1], rtol=1e-4)
    ours = jaxai.deep_lift(net, jnp.asarray(IMAGES), 1, baseline=0.3)
    expected = net(jnp.asarray(IMAGES)) - net(jnp.full_like(IMAGES, 0.3))
    np.testing.assert_allclose(ours.sum(), expected[0, 1], rtol=1e-4)


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", LOW)
def test_dead_channels_are_finite(dtype):
    kernel = np.concatenate([RNG.normal(size=(3, 3, 3, 4)), np.zeros((3, 3, 3, 4))], -1)
    scale = jnp.asarray([1.0] * 6 + [0.0] * 2, dtype)

    def net(x):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernels = jnp.asarray(kernel, x.dtype)
        y = lax.conv_general_dilated(x, kernels, (1, 1), "SAME", dimension_numbers=numbers)
        y = nnx.relu(y * scale)
        y = y + y * jax.nn.sigmoid(y.mean((1, 2), keepdims=True))
        return y.mean((1, 2)) @ HEAD.astype(x.dtype)

    images = jnp.concatenate([jnp.asarray(IMAGES, dtype), jnp.zeros(IMAGES.shape, dtype)])

    @jax.jit
    def explain(x):
        return [method(net, x, 1) for method in methods()[:-1]]

    for ours in explain(images):
        assert np.isfinite(np.asarray(ours, np.float32)).all()
