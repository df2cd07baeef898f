"""Relevance through operations: folded norms, activations, maxima, sums, scans, gates, attention."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import conv
from jax import lax
from lrp_network import DENSE, IMAGES, KERNELS, bias_free

import jaxai
from jaxai import rules

RNG = np.random.default_rng(1)


def normal(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(size=shape) * scale, jnp.float32)


@pytest.mark.slow
def test_batch_norm_is_folded_wherever_its_constants_come_from():
    scale, shift, mean = normal(8), normal(8), normal(8)

    def separate(x):
        y = conv(x, KERNELS[0]) + shift
        y = (y - mean) / jnp.sqrt(jnp.abs(scale) + 0.1) * scale + 0.5
        return jax.nn.relu(-y).mean((1, 2)) @ DENSE[0]

    def folded(x):
        factor = scale / jnp.sqrt(jnp.abs(scale) + 0.1)
        y = conv(x, -KERNELS[0] * factor) - ((shift - mean) * factor + 0.5)
        return jax.nn.relu(y).mean((1, 2)) @ DENSE[0]

    def channels_first(x):
        # One image at a time, features on the first axis, as Equinox has it.
        def one(image):
            y = lax.conv_general_dilated(
                image.transpose(2, 0, 1)[None], KERNELS[0].transpose(3, 2, 0, 1), (1, 1), "SAME"
            )[0]
            y = y + shift[:, None, None]
            y = (y - mean[:, None, None]) / jnp.sqrt(jnp.abs(scale) + 0.1)[:, None, None]
            y = jax.nn.relu(-(y * scale[:, None, None] + 0.5))
            return DENSE[0].T @ y.mean((1, 2))

        return jax.vmap(one)(x)

    assert rules.report(separate, IMAGES).operations == rules.report(folded, IMAGES).operations
    assert "affine" not in rules.report(channels_first, IMAGES).operations
    for name in ("epsilon_plus", "epsilon_alpha2_beta1", "epsilon_gamma_box"):
        results = [
            jaxai.lrp(net, IMAGES, 1, composite=name, low=-3.0, high=3.0)
            for net in (folded, separate, channels_first)
        ]
        for other in results[1:]:
            np.testing.assert_allclose(other, results[0], atol=1e-4 * float(jnp.abs(results[0]).max()))


@pytest.mark.slow
def test_normalisation_inside_the_model_and_its_box():
    # The box reaches the convolution through the padding and the normalisation, with a negative scale too.
    def inside(x):
        x = jnp.pad((x - 0.5) / jnp.array([-0.2, 0.3, 0.25]), ((0, 0), (1, 1), (1, 1), (0, 0)))
        return bias_free(x)

    def outside(x):
        return bias_free(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))

    pixels = jnp.asarray(RNG.uniform(size=(2, 9, 8, 3)), jnp.float32)
    std = np.float32([-0.2, 0.3, 0.25])
    ends = (0 - 0.5) / std, (1 - 0.5) / std
    ours = jaxai.lrp(inside, pixels, 0, composite="epsilon_gamma_box", low=0.0, high=1.0)
    theirs = jaxai.lrp(
        outside,
        (pixels - 0.5) / std,
        0,
        composite="epsilon_gamma_box",
        low=np.minimum(*ends),
        high=np.maximum(*ends),
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_relu6_and_other_activations_pass_relevance():
    x = 10 * jnp.ones((1, 1, 1, 1))
    for activation in (
        jax.nn.relu6,
        jnp.tanh,
        jax.nn.gelu,
        jax.nn.silu,
        jax.nn.leaky_relu,
        lambda x: x / 3 + 1,
    ):
        ours = jaxai.lrp(
            lambda x, f=activation: f(x * 1.0).reshape(1, 1) @ jnp.ones((1, 1)), x, 0, strict=True
        )
        np.testing.assert_allclose(ours, 1, rtol=1e-5)
    saturated = rules.Composite(dense=rules.Epsilon(), activation=rules.Gradient())
    assert (
        jaxai.lrp(lambda x: jax.nn.relu6(x).reshape(1, 1) @ jnp.ones((1, 1)), x, 0, composite=saturated) == 0
    )


def test_maxima_send_relevance_to_the_first_winner():
    x = jnp.array([[1.0, 5.0, 5.0], [0.0, 2.0, 5.0]]).reshape(1, 2, 3, 1)
    pools = [
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 3, 1), (1, 1, 1, 1), "VALID"),
        lambda x: jnp.maximum(jnp.maximum(x[:, :, :1], x[:, :, 1:2]), x[:, :, 2:])[:, :1],
    ]
    for pool in pools:
        ours = jaxai.lrp(lambda x, pool=pool: pool(x).reshape(1, 1), x, 0)
        assert ours.ravel().tolist() == [0, 1, 0, 0, 0, 0]


def test_residual_sums_share_by_contribution():
    def net(x):
        return (3 * x - jnp.exp(x.mean((1, 2), keepdims=True)) * 0 + jnp.flip(x, 2)).reshape(1, -1)

    x = jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1)
    ours = jaxai.lrp(net, x, 0, composite="epsilon_plus")
    np.testing.assert_allclose(ours.ravel(), [3 / 5, 2 / 5], rtol=1e-5)


def test_scans_are_walked_step_by_step():
    stack = normal(3, 3, 3, 3, 3, scale=0.3)

    def looped(x):
        y, means = lax.scan(lambda y, k: (jax.nn.relu(y + conv(y, k)), y.mean((1, 2))), x, stack)
        return y.mean((1, 2)) + means.sum(0)

    def unrolled(x):
        means = 0
        for kernel in stack:
            means, x = means + x.mean((1, 2)), jax.nn.relu(x + conv(x, kernel))
        return x.mean((1, 2)) + means

    assert rules.report(looped, IMAGES).unsupported == ()
    ours, theirs = (
        jaxai.lrp(net, IMAGES, 0, composite="epsilon_plus", strict=True) for net in (looped, unrolled)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * float(jnp.abs(theirs).max()))


def test_gates_get_nothing():
    # Squeeze-and-excitation: the image times a sigmoid of its means, then a sum with weights (2, -1).
    weights = jnp.array([[2.0], [-1.0]])

    def gated(x):
        return (x * jax.nn.sigmoid(x.mean((1, 2), keepdims=True))).sum((1, 2)) @ weights

    x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    everywhere = rules.Composite(conv=rules.Epsilon(), dense=rules.Epsilon())
    ours = jaxai.lrp(gated, x, 0, composite=everywhere, relevance="score", strict=True)
    gate = jax.nn.sigmoid(x.mean((1, 2), keepdims=True))
    np.testing.assert_allclose(ours, x * gate * weights[:, 0], rtol=1e-5)
    half = replace(everywhere, product=rules.Uniform())
    ours = jaxai.lrp(gated, x, 0, composite=half, relevance="score", strict=True)
    # Half by the position's own value, half by its share of the mean.
    value = x * gate * weights[:, 0]
    share = value.sum((1, 2), keepdims=True) * x / x.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(ours, (value + share) / 2, rtol=1e-5)
    plain = replace(everywhere, product=rules.Gradient())
    ours = jaxai.lrp(gated, x, 0, composite=plain, relevance="score")
    assert abs(float(ours.sum() - gated(x)[0, 0])) > 0.1


def attention(x):
    """Self-attention over positions, a layer norm and a gate: products of every kind."""
    y = x.reshape(x.shape[0], -1, x.shape[-1])
    query, key, value = (y @ w for w in PROJECTIONS)
    y = jax.nn.softmax(query @ key.swapaxes(1, 2), axis=-1) @ value
    y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 0.1)
    y = jnp.tanh(y @ PROJECTIONS[0][:5, :5]) * jax.nn.sigmoid(y @ PROJECTIONS[1][:5, :5])
    return y.mean(1) @ PROJECTIONS[2][:5, :4]


PROJECTIONS = [normal(3, 5) for _ in range(3)]
PROJECTIONS = [jnp.concatenate([w, normal(2, 5)]) for w in PROJECTIONS]


def attends(x):
    return attention(jnp.concatenate([x, x[..., :2] ** 2], -1))


def linear_attention(x):
    """Attention without a softmax: products of two signals."""
    y = x.reshape(x.shape[0], -1, x.shape[-1])
    query, key, value = (y @ w[:3] for w in PROJECTIONS)
    return (query @ key.swapaxes(1, 2) @ value).mean(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "product"),
    [(attends, rules.SignalTakesAll(1e-9)), (linear_attention, rules.Uniform(1e-9))],
)
def test_products_conserve_relevance(net, product):
    parts = {part: rules.Norm(1e-9) for part in ("residual", "pool")}
    composite = rules.Composite(dense=rules.Epsilon(1e-9), product=product, **parts)
    images = IMAGES[:2, :3, :2]
    scores = net(images)[:, 2]
    ours = jaxai.lrp(net, images, 2, composite=composite, relevance="score", strict=True)
    np.testing.assert_allclose(ours.sum((1, 2, 3)), scores, rtol=1e-4)
    flat = images.at[1].set(0)
    assert jnp.isfinite(jaxai.lrp(net, flat, 2, composite=composite, relevance="score")).all()


def test_values_of_attention_are_its_signal():
    # No rule passes relevance to queries and keys: another way to make them changes nothing.
    def fixed(x):
        y = x.reshape(x.shape[0], -1, 3)
        return (mixing @ (y @ PROJECTIONS[0][:3])).mean(1)

    def free(x):
        y = x.reshape(x.shape[0], -1, 3)
        return (jax.nn.softmax(y @ y.swapaxes(1, 2), -1) @ (y @ PROJECTIONS[0][:3])).mean(1)

    y = IMAGES[:1, :4, :3].reshape(1, -1, 3)
    mixing = jax.nn.softmax(y @ y.swapaxes(1, 2), -1)
    everywhere = rules.Composite(conv=rules.Epsilon(), dense=rules.Epsilon())
    ours = jaxai.lrp(free, IMAGES[:1, :4, :3], 1, composite=everywhere, strict=True)
    expected = jaxai.lrp(fixed, IMAGES[:1, :4, :3], 1, composite=everywhere)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * float(jnp.abs(expected).max()))
