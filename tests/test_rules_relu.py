"""Guided backprop, deconvnet and the redirected ReLU: every spelling, by hand, in loops, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.tree_util import Partial

import jaxai
from jaxai.rules import redirected_relu

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 3, 4)), jnp.float32)
DENSE = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(2, 6, 5, 3)), jnp.float32)

RELUS = {
    "relu": jax.nn.relu,
    "nnx": nnx.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum_first": lambda x: jnp.maximum(0.0, x),
    "maximum_array": lambda x: jnp.maximum(x, jnp.zeros_like(x)),
    "maximum_constant": lambda x: jnp.maximum(x, np.zeros(4, np.float32)),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "where_not": lambda x: jnp.where(x <= 0, 0.0, x),
    "where_turned": lambda x: jnp.where(0 < x, x, jnp.zeros(4)),
    "clip": lambda x: jnp.clip(x, 0),
    "clamp": lambda x: lax.clamp(0.0, x, jnp.inf),
    "gate": lambda x: x * (x > 0),
    "jit": jax.jit(lambda x: jnp.maximum(x, 0)),
    "checkpoint": jax.checkpoint(jax.nn.relu),
    "vmap": jax.vmap(jax.nn.relu),
    "scan": lambda x: lax.scan(lambda c, _: (jax.nn.relu(c), None), x, None, length=2)[0],
    "scan_reversed": lambda x: lax.scan(
        lambda c, s: (c, jax.nn.relu(s)), 0.0, jnp.stack([x, -x]), reverse=True
    )[1][0],
    "cond": lambda x: lax.cond(x.sum() < 1e9, jax.nn.relu, jnp.negative, x),
}
RELU6S = {
    "relu6": jax.nn.relu6,
    "clip": lambda x: jnp.clip(x, 0, 6),
    "minimum": lambda x: jnp.minimum(jnp.maximum(x, 0), 6),
    "maximum": lambda x: jnp.maximum(jnp.minimum(x, 6.0), 0),
    "clamp": lambda x: lax.clamp(0.0, x, 6.0),
}


def conv(x):
    return lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def net_with(relu):
    return lambda x: relu(2 * conv(x)).mean((1, 2)) @ DENSE


def by_hand(x, rule, upper=None):
    """Backpropagate by the rule written out: scores are relu(2 conv(x)).mean @ dense, target 1."""
    y, pullback = jax.vjp(lambda x: 2 * conv(x), x)
    g = jnp.broadcast_to(DENSE[:, 1] / (y.shape[1] * y.shape[2]), y.shape)
    inside = (y > 0) if upper is None else (y > 0) & (y < upper)
    g = {"guided": g * inside * (g > 0), "deconvnet": jnp.maximum(g, 0)}[rule]
    return pullback(g)[0]


@pytest.mark.sampled
@pytest.mark.parametrize("name", RELUS)
def test_relus_of_every_spelling(name):
    net = net_with(RELUS[name])
    np.testing.assert_allclose(
        jaxai.guided_backprop(net, IMAGES, 1), by_hand(IMAGES, "guided"), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        jaxai.deconvnet(net, IMAGES, 1), by_hand(IMAGES, "deconvnet"), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(redirected_relu(net)(IMAGES), net(IMAGES), rtol=1e-6)


@pytest.mark.parametrize("name", RELU6S)
def test_relu6_of_every_spelling(name):
    net = net_with(RELU6S[name])
    ours = jaxai.guided_backprop(net, IMAGES, 1)
    np.testing.assert_allclose(ours, by_hand(IMAGES, "guided", 6), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        jaxai.deconvnet(net, IMAGES, 1), by_hand(IMAGES, "deconvnet"), rtol=1e-4, atol=1e-6
    )


def test_other_functions_are_no_relus():
    others = [
        jnp.tanh,
        jax.nn.gelu,
        jax.nn.leaky_relu,
        lambda x: jnp.maximum(x, 1),
        lambda x: jnp.maximum(x, -x),
        lambda x: jnp.where(x > 1, x, 0),
        lambda x: jnp.where(x < 0, x, 0),
        lambda x: jnp.minimum(x, 0),
    ]
    for other in others:
        with pytest.raises(ValueError, match="must contain a ReLU"):
            jaxai.guided_backprop(net_with(other), IMAGES, 1)


def test_derivatives_stated_by_the_model_are_kept():
    @jax.custom_vjp
    def doubled(x):
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))
    plain = net_with(jax.nn.relu)
    twice = jaxai.guided_backprop(lambda x: plain(doubled(x)), IMAGES, 1)
    np.testing.assert_allclose(twice, 2 * jaxai.guided_backprop(plain, IMAGES, 1), rtol=1e-5)


def test_networks_may_hold_complex_numbers():
    turn = jnp.array([1j, 1j, 1j, 1j])
    net = net_with(lambda x: jax.nn.relu(jnp.real(x * turn / 1j)))
    np.testing.assert_allclose(
        jaxai.guided_backprop(net, IMAGES, 1), by_hand(IMAGES, "guided"), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("method", [jaxai.guided_backprop, jaxai.deconvnet])
def test_alone_jit_vmap_and_k_targets(method):
    net = Partial(lambda d, x: jax.nn.relu6(3 * conv(x)).mean((1, 2)) @ d, DENSE)
    classes = jnp.array([[0, 3], [1, 2]])
    many = method(net, IMAGES, classes)
    assert many.shape == (2, 2, *IMAGES.shape[1:])
    np.testing.assert_allclose(many[:, 1], method(net, IMAGES, classes[:, 1]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(many, method(net, IMAGES, classes, batch_size=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(many[1:], method(net, IMAGES[1:], classes[1:]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(many, jax.jit(partial(method, net))(IMAGES, classes), rtol=1e-5, atol=1e-7)
    mapped = jax.vmap(lambda x, t: method(net, x[None], t[None])[0])(IMAGES, classes)
    np.testing.assert_allclose(many, mapped, rtol=1e-5, atol=1e-7)


def test_flat_images_are_finite():
    net = net_with(jax.nn.relu)
    for method in (jaxai.guided_backprop, jaxai.deconvnet):
        assert jnp.isfinite(method(net, jnp.zeros((1, 6, 5, 3)), 0)).all()
        assert jnp.isfinite(
            jax.grad(lambda x, m=method: (m(net, x, 0) ** 2).sum())(jnp.zeros((1, 6, 5, 3)))
        ).all()


@pytest.mark.parametrize("maximize", [True, False])
def test_redirected_relu_by_hand(maximize):
    # Rows are examples. The first has a unit that is alive and gets gradient: plain. The second and third are
    # dead: gradients that would raise a unit pass. The fourth is alive, but its living unit gets none.
    x = jnp.array([[1.0, -1.0, -1.0], [-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0], [2.0, -1.0, -1.0]])
    g = jnp.array([[1.0, 1.0, -1.0], [1.0, -1.0, 0.0], [-1.0, -1.0, -1.0], [0.0, 1.0, -1.0]])
    expected = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    sign = 1 if maximize else -1
    _, pullback = jax.vjp(redirected_relu(jax.nn.relu, maximize=maximize), x)
    np.testing.assert_array_equal(sign * pullback(sign * g)[0], expected)


def test_redirected_relu6_pulls_from_both_ends():
    x = jnp.array([[7.0, 8.0, -1.0], [7.0, 3.0, -1.0]])
    g = jnp.array([[-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    _, pullback = jax.vjp(redirected_relu(jax.nn.relu6), x)
    np.testing.assert_array_equal(pullback(g)[0], [[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    # At exactly zero the gradient passes, as in Lucid.
    assert jax.grad(lambda x: redirected_relu(jax.nn.relu)(x).sum())(jnp.zeros((1, 1))) == 1


def test_redirected_relu_climbs_out_of_a_dead_start():
    net = redirected_relu(Partial(lambda d, x: (jax.nn.relu(x - 3) @ d).mean((1, 2)), DENSE[:3]))

    def step(x, _):
        return x + 0.5 * jnp.sign(jax.grad(lambda x: net(x)[:, 0].sum())(x)), net(x)[:, 0]

    _, values = jax.jit(lambda x: lax.scan(step, x, None, length=20))(jnp.zeros((1, 2, 2, 3)))
    assert values[0] == 0 and values[-1] > 0


def test_rewritten_models_keep_layers_and_arguments():
    model = jaxai.chain({"one": lambda x: jax.nn.relu(conv(x)), "logits": lambda x: x.mean((1, 2)) @ DENSE})
    net = redirected_relu(model)
    assert net.layer_names == model.layer_names
    np.testing.assert_allclose(net(IMAGES, stop="one"), model(IMAGES, stop="one"), rtol=1e-6)
    np.testing.assert_allclose(jaxai.layers.Body(net, "one")(IMAGES), model(IMAGES, stop="one"), rtol=1e-6)
    with pytest.raises(ValueError, match="must contain a ReLU"):
        net(model(IMAGES, stop="one"), start="one")


def test_errors():
    net = net_with(jax.nn.relu)
    for method in (jaxai.guided_backprop, jaxai.deconvnet):
        with pytest.raises(ValueError, match="classes 0 to 4"):
            method(net, IMAGES, 5)
        with pytest.raises(TypeError, match="floating point"):
            method(net, jnp.zeros((1, 6, 5, 3), jnp.uint8), 0)
        with pytest.raises(ValueError, match="batch_size"):
            method(net, IMAGES, 0, batch_size=0)
    with pytest.raises(TypeError, match="callable"):
        redirected_relu(3)
