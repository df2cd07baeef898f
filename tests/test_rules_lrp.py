"""Relevance propagation: by hand, axioms, composites, rules by layer, batches, targets, support, errors."""

import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import conv
from jax.tree_util import Partial
from lrp_network import DENSE, IMAGES, KERNELS, bias_free

import jaxai
from jaxai import rules


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
