"""Relevance propagation: axioms, composites, what is folded and kept, support, errors."""

import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import conv
from jax import lax
from jax.tree_util import Partial

import jaxai
from jaxai import rules

RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(size=shape) * scale, jnp.float32)


def test_a_hand_computed_network():
    # scores = 2 relu(x0 + x1) - relu(x0 - x1) at x = (3, 1): hidden (4, 2), score 6.
    def net(x):
        hidden = jax.nn.relu(x.reshape(1, 2) @ jnp.array([[1.0, 1.0], [1.0, -1.0]]))
        return hidden @ jnp.array([[2.0], [-1.0]])

    x = jnp.array([3.0, 1.0]).reshape(1, 1, 2, 1)
    epsilon, plus = (rules.Composite(dense=rule) for rule in (rules.Epsilon(0.0), rules.ZPlus()))
    ours = jaxai.lrp(net, x, 0, composite=epsilon, relevance="score").ravel()
    np.testing.assert_allclose(ours, [8 * 3 / 4 - 2 * 3 / 2, 8 * 1 / 4 + 2 * 1 / 2], rtol=1e-6)
    # All of the score goes to the first unit, and from there by 3 : 1.
    ours = jaxai.lrp(net, x, 0, composite=plus, relevance="score").ravel()
    np.testing.assert_allclose(ours, [4.5, 1.5], rtol=1e-5)


def bias_free(x, relu=jax.nn.relu):
    y = relu(conv(x, KERNELS[0], strides=(2, 1)))
    y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    y = y + relu(conv(y, KERNELS[1]))
    return relu(y.mean((1, 2)) @ DENSE[0]) @ DENSE[1]


KERNELS = normal(3, 3, 3, 8, scale=0.3), normal(3, 3, 8, 8, scale=0.15)
DENSE = normal(8, 6), normal(6, 4)
IMAGES = normal(3, 12, 10, 3)


def with_stabilizer(rule, value):
    """Return a rule with another stabilizer."""
    for name in ("epsilon", "stabilizer"):
        if hasattr(rule, name):
            return replace(rule, **{name: value})
    return rule


@pytest.mark.sampled
@pytest.mark.parametrize("name", rules.COMPOSITES)
def test_relevance_from_the_score_is_conserved(name):
    scores = bias_free(IMAGES)[:, 1]
    options = dict(low=-4.0, high=4.0, relevance="score")
    ours = jaxai.lrp(bias_free, IMAGES, 1, composite=name, **options).sum((1, 2, 3))
    np.testing.assert_allclose(ours, scores, rtol=1e-5)
    # A stabilizer of 1e-6 takes 1e-6 / |z| of the relevance of an output z, wherever one is; 1e-9 nothing.
    shipped = rules.COMPOSITES[name]
    parts = {
        part: with_stabilizer(getattr(shipped, part), 1e-9)
        for part in ("conv", "dense", "first", "residual", "pool")
    }
    exact = jaxai.lrp(bias_free, IMAGES, 1, composite=replace(shipped, **parts), **options).sum((1, 2, 3))
    np.testing.assert_allclose(exact, scores, rtol=2e-6)
    if name != "epsilon_plus":
        return
    # What is lost grows with it.
    coarse = {part: with_stabilizer(getattr(shipped, part), 1e-3) for part in parts}
    lossy = jaxai.lrp(bias_free, IMAGES, 1, composite=replace(shipped, **coarse), **options).sum((1, 2, 3))
    assert (jnp.abs(lossy - scores) > 1e-4 * jnp.abs(scores)).all()


def test_epsilon_zero_is_input_times_gradient():
    rule = rules.Epsilon(0.0)
    composite = rules.Composite(conv=rule, dense=rule, residual=rules.Norm(0.0), pool=rules.Norm(0.0))
    ours = jaxai.lrp(bias_free, IMAGES, 2, composite=composite, relevance="score")
    expected = IMAGES * jaxai.saliency(bias_free, IMAGES, 2)
    np.testing.assert_allclose(ours, expected, atol=2e-5 * float(jnp.abs(expected).max()))


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


def layered():
    return jaxai.chain(
        {
            "one": Partial(lambda k, x: jax.nn.relu(conv(x, k)), KERNELS[0]),
            "two": Partial(lambda k, x: jax.nn.relu(conv(x, k)), KERNELS[1]),
            "logits": Partial(lambda w, x: x.mean((1, 2)) @ w, DENSE[0]),
        }
    )


def test_rules_by_layer_and_first_layer():
    net = layered()
    by_name = rules.Composite(layers={"one": rules.Flat(), "logits": rules.ZPlus()})
    by_kind = rules.Composite(first=rules.Flat(), dense=rules.ZPlus())
    one, other = (jaxai.lrp(net, IMAGES, 0, composite=c) for c in (by_name, by_kind))
    np.testing.assert_allclose(one, other, rtol=1e-6)
    assert not np.allclose(one, jaxai.lrp(net, IMAGES, 0), atol=1e-6)
    # The first convolution, where a dense layer comes before it.
    dense_first = rules.Composite(first=rules.WSquare(), first_kinds=("conv",))
    mixed = lambda x: conv(x @ jnp.eye(3), KERNELS[0]).mean((1, 2))  # noqa: E731
    plain = rules.Composite(conv=rules.WSquare())
    np.testing.assert_allclose(
        jaxai.lrp(mixed, IMAGES, 0, composite=dense_first),
        jaxai.lrp(mixed, IMAGES, 0, composite=plain),
        rtol=1e-6,
    )


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1"])
@pytest.mark.slow
def test_alone_jit_vmap_and_k_targets(name):
    explain = partial(jaxai.lrp, composite=name, low=-4.0, high=4.0)
    classes = jnp.array([[0, 3], [1, 2], [2, 0]])
    many = explain(bias_free, IMAGES, classes)
    assert many.shape == (3, 2, *IMAGES.shape[1:])
    tolerance = dict(rtol=1e-4, atol=1e-5 * float(jnp.abs(many).max()))
    np.testing.assert_allclose(many[:, 1], explain(bias_free, IMAGES, classes[:, 1]), **tolerance)
    np.testing.assert_allclose(many, explain(bias_free, IMAGES, classes, batch_size=1), **tolerance)
    np.testing.assert_allclose(many[1:2], explain(bias_free, IMAGES[1:2], classes[1:2]), **tolerance)
    np.testing.assert_allclose(many, jax.jit(partial(explain, bias_free))(IMAGES, classes), **tolerance)
    mapped = jax.vmap(lambda x, t: explain(bias_free, x[None], t[None])[0])(IMAGES, classes)
    np.testing.assert_allclose(many, mapped, **tolerance)


@pytest.mark.slow
def test_default_targets_and_callable_targets():
    top = jaxai.lrp(bias_free, IMAGES)
    np.testing.assert_array_equal(top, jaxai.lrp(bias_free, IMAGES, bias_free(IMAGES).argmax(1)))
    contrast = jaxai.lrp(bias_free, IMAGES, lambda s: s[:, 0] - s[:, 1])
    parts = jaxai.lrp(bias_free, IMAGES, jnp.array([[0, 1]] * 3))
    np.testing.assert_allclose(contrast, parts[:, 0] - parts[:, 1], atol=1e-5 * float(jnp.abs(parts).max()))


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1"])
def test_flat_images_are_finite(name):
    @jax.jit
    def explain_and_gradient(x):
        def explain(x):
            return jaxai.lrp(bias_free, x, 0, composite=name, low=-1.0, high=1.0)

        return explain(x), jax.grad(lambda x: (explain(x) ** 2).sum())(x)

    for value in (0.0, 0.7):
        for result in explain_and_gradient(jnp.full((1, 12, 10, 3), value)):
            assert jnp.isfinite(result).all()


@pytest.mark.slow
def test_a_network_trains_on_its_relevance():
    mask = jnp.zeros((12, 10, 1)).at[:, 5:].set(1.0)

    def loss(kernel):
        net = Partial(lambda k, x: jax.nn.relu(conv(x, k)).mean((1, 2)) @ DENSE[0], kernel)
        maps = jaxai.lrp(net, IMAGES, 0, composite="epsilon_plus", relevance="score")
        return ((maps * mask) ** 2).sum() / (maps**2).sum()

    step = jax.jit(jax.value_and_grad(loss))
    kernel, values = KERNELS[0], []
    for _ in range(15):
        value, gradient = step(kernel)
        kernel -= 0.3 * gradient / jnp.linalg.norm(gradient)
        values.append(float(value))
    assert values[-1] < 0.8 * values[0]


def test_batch_size_bounds_memory():
    images = jnp.zeros((16, 32, 32, 3))

    def peak(batch_size):
        explain = jax.jit(partial(jaxai.lrp, bias_free, targets=0, batch_size=batch_size))
        return explain.lower(images).compile().memory_analysis().temp_size_in_bytes

    assert peak(2) < 0.5 * peak(None)


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


def test_unsupported_operations_are_reported():
    def sorts(x):
        return jnp.sort(x, axis=1).mean((1, 2))

    assert rules.report(sorts, IMAGES).unsupported == ("sort",)
    assert rules.report(bias_free, jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)).unsupported == ()
    with pytest.warns(UserWarning, match="no rule for sort"):
        ours = jaxai.lrp(sorts, IMAGES, 0, composite="epsilon_plus")
    assert jnp.isfinite(ours).all()
    with pytest.raises(ValueError, match="no rule for sort"):
        jaxai.lrp(sorts, IMAGES, 0, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxai.lrp(sorts, IMAGES, 0, composite="epsilon_plus")  # compiled already: said once


@pytest.mark.slow
def test_excitation_backprop_flows_along_positive_weights():
    # The top class has evidence.
    ours = jaxai.excitation_backprop(bias_free, jnp.abs(IMAGES))
    assert (ours >= 0).all()
    np.testing.assert_allclose(ours.sum((1, 2, 3)), 1, rtol=1e-5)
    acts, head = jaxai.split(layered(), "one", IMAGES)
    assert jaxai.excitation_backprop(head, acts, 1).shape == acts.shape


def test_errors():
    x = IMAGES[:1]
    with pytest.raises(ValueError, match="composite"):
        jaxai.lrp(bias_free, x, 0, composite="epsilon")
    with pytest.raises(TypeError, match="composite"):
        jaxai.lrp(bias_free, x, 0, composite=rules.Epsilon())
    with pytest.raises(ValueError, match="`low` and `high`"):
        jaxai.lrp(bias_free, x, 0, composite="epsilon_gamma_box", low=0.0)
    with pytest.raises(ValueError, match="`low` must broadcast"):
        jaxai.lrp(bias_free, x, 0, composite="epsilon_gamma_box", low=np.zeros(5), high=1.0)
    with pytest.raises(ValueError, match="relevance"):
        jaxai.lrp(bias_free, x, 0, relevance="logit")
    with pytest.raises(ValueError, match="unknown layer 'three'.*one, two, logits"):
        jaxai.lrp(layered(), x, 0, composite=rules.Composite(layers={"three": rules.Flat()}))
    with pytest.raises(ValueError, match="scaled at most"):
        jaxai.lrp(layered(), x, 0, composite=rules.Composite(layers={"two": rules.ZBox()}), low=0, high=1)
    with pytest.raises(ValueError, match="keeps the shape"):
        jaxai.lrp(bias_free, x, 0, composite=rules.Composite(conv=rules.Pass()))
    with pytest.raises(ValueError, match="batch"):
        jaxai.lrp(bias_free, x[0], 0)
    with pytest.raises(ValueError, match="classes 0 to 3"):
        jaxai.lrp(bias_free, x, 4)
    with pytest.raises(TypeError, match="one array"):
        rules.report(lambda x: (x, x), x)
    with pytest.raises(ValueError, match="alpha - beta"):
        rules.AlphaBeta(2.0, 2.0)
    with pytest.raises(TypeError, match="`conv` must be a rule"):
        rules.Composite(conv="z_plus")
    with pytest.raises(TypeError, match="`pool` must be a rule for operations without a kernel; got Flat"):
        rules.Composite(pool=rules.Flat())
    with pytest.raises(ValueError, match="first_kinds"):
        rules.Composite(first_kinds=("pool",))
