"""DeepLIFT: by hand, against Captum, completeness through every kind of operation, errors."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import Partial

import jaxai

RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(size=shape) * scale, jnp.float32)


KERNEL, SECOND, DENSE = normal(3, 3, 3, 8, scale=0.4), normal(3, 3, 8, 8, scale=0.2), normal(8, 5)
IMAGES, BASELINE = normal(3, 9, 7, 3), normal(1, 9, 7, 3, scale=0.5)


def conv(x, kernel, **settings):
    settings = {"window_strides": (1, 1), "padding": "SAME", **settings}
    return lax.conv_general_dilated(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings)


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def head(y):
    return y.mean((1, 2)) @ DENSE + 1


def gated(x):
    y = jax.nn.relu(conv(x, KERNEL))
    return head(y * jax.nn.sigmoid(y.mean((1, 2), keepdims=True) @ SECOND[0, 0]))


def attention(x):
    y = jax.nn.relu(conv(x, KERNEL)).reshape(x.shape[0], -1, 8)
    return (jax.nn.softmax(0.2 * y @ y.swapaxes(1, 2)) @ y).mean(1) @ DENSE


def layer_norm(x):
    y = conv(x, KERNEL)
    return head((y - y.mean(-1, keepdims=True)) * lax.rsqrt(y.var(-1, keepdims=True) + 1e-5))


NETWORKS = {
    "max_pool": lambda x: head(jax.nn.relu(conv(max_pool(jax.nn.relu(conv(x, KERNEL) + 0.1)), SECOND))),
    "global_max": lambda x: conv(x, KERNEL).max((1, 2)) @ DENSE,
    "maxout": lambda x: head(jnp.maximum(conv(x, KERNEL), conv(x, KERNEL[::-1]))),
    "minimum": lambda x: head(jnp.minimum(conv(x, KERNEL), x.min(-1, keepdims=True))),
    "smooth": lambda x: head(jax.nn.gelu(conv(jax.nn.silu(conv(x, KERNEL)), SECOND))),
    "residual_relu6": lambda x: head(
        (lambda y: jax.nn.relu(y - conv(y, SECOND)))(jax.nn.relu6(4 * conv(x, KERNEL)))
    ),
    "softmax": lambda x: jax.nn.softmax(head(jax.nn.relu(conv(x, KERNEL)))),
    "gated": gated,
    "attention": attention,
    "layer_norm": layer_norm,
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", NETWORKS)
def test_contributions_sum_to_the_difference(name):
    net = NETWORKS[name]
    ours = jaxai.deep_lift(net, IMAGES, 2, baseline=BASELINE, strict=True)
    expected = net(IMAGES)[:, 2] - net(BASELINE)[:, 2]
    np.testing.assert_allclose(ours.sum((1, 2, 3)), expected, rtol=1e-5, atol=1e-5)


def test_hand_computed_units():
    # relu(x0 + x1 - 1) at (2, 1) from (0, 0): 2 - 0 over a difference of 3.
    net = lambda x: jax.nn.relu(x.sum((1, 2)) - 1)  # noqa: E731
    x = jnp.array([2.0, 1.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(jaxai.deep_lift(net, x, 0).ravel(), [2 * 2 / 3, 2 / 3], rtol=1e-6)
    # max(x0, x1) from (3, 1) to (2, 5): the rise 3 -> 5 goes to x1; to (0, 2): the fall 3 -> 2 to x0.
    pool = lambda x: x.max((1, 2))  # noqa: E731
    baseline = jnp.array([3.0, 1.0]).reshape(1, 2, 1)
    for values, expected in (([2.0, 5.0], [0.0, 2.0]), ([0.0, 2.0], [-1.0, 0.0])):
        ours = jaxai.deep_lift(pool, jnp.array(values).reshape(1, 1, 2, 1), 0, baseline=baseline)
        np.testing.assert_allclose(ours.ravel(), expected, atol=1e-6)
    # 2 x 5 - 1 x 1 = (2 - 1) 3 + (5 - 1) 1.5 for a product.
    product = lambda x: x[:, 0, 0] * x[:, 0, 1]  # noqa: E731
    ours = jaxai.deep_lift(product, jnp.array([2.0, 5.0]).reshape(1, 1, 2, 1), 0, baseline=1.0)
    np.testing.assert_allclose(ours.ravel(), [3.0, 6.0], rtol=1e-6)


def captum_network(weights, x):
    def layer(i, x, **settings):
        return conv(x, weights[f"{i}.weight"].transpose(2, 3, 1, 0), **settings) + weights[f"{i}.bias"]

    y = jax.nn.relu(layer(0, x))
    y = jax.nn.relu(layer(2, y, window_strides=(2, 2), padding="VALID"))
    y = lax.reduce_window(y, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    y = y.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    y = jax.nn.sigmoid(y @ weights["6.weight"].T + weights["6.bias"])
    return y @ weights["8.weight"].T + weights["8.bias"]


@pytest.mark.slow
def test_captum():
    golden = np.load(Path(__file__).parent / "goldens" / "captum_deep_lift.npz")
    weights = {key[8:]: jnp.asarray(golden[key]) for key in golden if key.startswith("weights.")}
    net, (x, baselines) = Partial(captum_network, weights), (golden["images"], golden["baselines"])
    ours = jaxai.deep_lift(net, x, golden["targets"], baseline=baselines[:1], strict=True)
    np.testing.assert_allclose(ours, golden["deep_lift"], rtol=1e-3, atol=1e-6)
    ours = jaxai.deep_lift_shap(net, x, golden["targets"], baselines=baselines, strict=True)
    np.testing.assert_allclose(ours, golden["deep_lift_shap"], rtol=1e-3, atol=1e-6)


def test_linear_networks_give_input_times_gradient():
    net = lambda x: head(conv(x, KERNEL))  # noqa: E731
    expected = (IMAGES - BASELINE) * jaxai.saliency(net, IMAGES, 1)
    np.testing.assert_allclose(jaxai.deep_lift(net, IMAGES, 1, baseline=BASELINE), expected, atol=1e-5)


@pytest.mark.slow
def test_shap_is_the_mean_over_baselines():
    net, baselines = NETWORKS["max_pool"], jnp.concatenate([BASELINE, -BASELINE, 2 * IMAGES[:1]])
    ours = jaxai.deep_lift_shap(net, IMAGES, 2, baselines=baselines)
    each = jnp.stack([jaxai.deep_lift(net, IMAGES, 2, baseline=b) for b in baselines])
    tolerance = dict(rtol=1e-4, atol=1e-5 * float(jnp.abs(each).max()))
    np.testing.assert_allclose(ours, each.mean(0), **tolerance)
    np.testing.assert_allclose(
        jaxai.deep_lift_shap(net, IMAGES, 2, baselines=baselines, batch_size=2), ours, **tolerance
    )
    # Without a target, the top class of the image itself, for every baseline.
    top = jaxai.deep_lift_shap(net, IMAGES, baselines=baselines)
    np.testing.assert_allclose(
        top, jaxai.deep_lift_shap(net, IMAGES, net(IMAGES).argmax(1), baselines=baselines), **tolerance
    )


@pytest.mark.slow
def test_alone_jit_vmap_and_k_targets():
    net = NETWORKS["max_pool"]
    explain = partial(jaxai.deep_lift, net, baseline=BASELINE)
    classes = jnp.array([[0, 3], [1, 2], [4, 0]])
    many = explain(IMAGES, classes)
    assert many.shape == (3, 2, *IMAGES.shape[1:])
    tolerance = dict(rtol=1e-4, atol=1e-5 * float(jnp.abs(many).max()))
    np.testing.assert_allclose(many[:, 1], explain(IMAGES, classes[:, 1]), **tolerance)
    np.testing.assert_allclose(many, explain(IMAGES, classes, batch_size=1), **tolerance)
    np.testing.assert_allclose(many[1:2], explain(IMAGES[1:2], classes[1:2]), **tolerance)
    np.testing.assert_allclose(many, jax.jit(explain)(IMAGES, classes), **tolerance)
    mapped = jax.vmap(lambda x, t: explain(x[None], t[None])[0])(IMAGES, classes)
    np.testing.assert_allclose(many, mapped, **tolerance)
    own = jnp.broadcast_to(BASELINE, IMAGES.shape)
    np.testing.assert_allclose(many, jaxai.deep_lift(net, IMAGES, classes, baseline=own), **tolerance)


@pytest.mark.slow
def test_callable_targets_are_complete_too():
    def probability(scores):
        return jax.nn.softmax(scores)[:, 1]

    net = NETWORKS["max_pool"]
    ours = jaxai.deep_lift(net, IMAGES, probability, baseline=BASELINE)
    expected = probability(net(IMAGES)) - probability(net(BASELINE))
    np.testing.assert_allclose(ours.sum((1, 2, 3)), expected, atol=1e-5)


def test_the_baseline_itself_is_finite_and_zero():
    net = NETWORKS["max_pool"]

    @jax.jit
    def both(x):
        def explain(x):
            return jaxai.deep_lift(net, x, 0, baseline=0.2)

        return explain(x), jax.grad(lambda x: (explain(x) ** 2).sum())(x)

    for value in (0.2, 0.0):
        ours, gradient = both(jnp.full((1, 9, 7, 3), value))
        assert jnp.isfinite(ours).all() and jnp.isfinite(gradient).all()
        assert value != 0.2 or (ours == 0).all()


def test_operations_without_a_rule():
    def sorting(x):
        return jnp.sort(x, axis=1).mean((1, 2))

    with pytest.warns(UserWarning, match="deep_lift has no rule for sort"):
        jaxai.deep_lift(sorting, IMAGES, 0)
    with pytest.raises(ValueError, match="no rule for sort"):
        jaxai.deep_lift(sorting, IMAGES, 0, strict=True)


def test_errors():
    net = NETWORKS["max_pool"]
    with pytest.raises(ValueError, match="`baseline` must broadcast"):
        jaxai.deep_lift(net, IMAGES, 0, baseline=jnp.zeros(4))
    with pytest.raises(ValueError, match="`baselines` must be"):
        jaxai.deep_lift_shap(net, IMAGES, 0, baselines=jnp.zeros((2, 9, 9, 3)))
    with pytest.raises(ValueError, match="`baselines` must be"):
        jaxai.deep_lift_shap(net, IMAGES, 0, baselines=jnp.zeros((9, 7, 3)))
    with pytest.raises(ValueError, match="classes 0 to 4"):
        jaxai.deep_lift(net, IMAGES, 5)
    with pytest.raises(TypeError, match="callable"):
        jaxai.deep_lift(None, IMAGES, 0)
