"""Gradients at layers and at biases: closed forms and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, one_channel

import jaxai

pytestmark = pytest.mark.usefixtures("quick_compilation")

TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])


def test_full_gradients_add_up_exactly(dense_net, small_images):
    def saturating(x):
        """Biases before and after clips, smooth curves, products of two parts of the image."""
        a = jnp.clip(3 * x - 0.5, 0, 1.5)
        b = jax.nn.relu6(8 * x + 0.1) / jnp.sqrt(1.5)
        c = jax.nn.gelu(x) * x + jnp.exp(x) + (2.0 - x)
        d = jnp.concatenate([a, jnp.full_like(a, 0.7)], axis=1).sum((1, 2))
        return b.mean((1, 2)) + c.max((1, 2)) + d + jax.nn.softmax(x[:, 0, 0])

    for model in (dense_net, saturating):
        targets = jnp.array([[1, 2], [0, 1], [0, 2]])
        parts = jaxai.full_gradients(model, small_images, targets)
        total = np.asarray(parts.input, np.float64).sum((2, 3, 4))
        for bias in parts.biases:
            total += np.asarray(bias, np.float64).reshape(3, 2, -1).sum(-1)
        scores = np.take_along_axis(np.asarray(model(small_images)), np.asarray(targets), 1)
        close(total, scores, 1e-5)


def test_full_gradients_know_every_bias(small_images):
    """A bias of 0.3 before a ReLU acts where the ReLU is open; one of 2 after the sum always does."""

    def model(x):
        return jax.nn.relu(x + 0.3).sum((1, 2)) + 2.0

    parts = jaxai.full_gradients(model, small_images, 0)
    open_ = (np.asarray(small_images) + 0.3 > 0) * np.array([1, 0, 0])
    close(parts.biases[0], 0.3 * open_)
    close(parts.biases[-1], np.tile([2.0, 0, 0], (3, 1)))
    assert len(parts.biases) == 2
    shares = [np.abs(np.asarray(p)) for p in (parts.input, parts.biases[0])]
    expected = sum((s / s.max((1, 2, 3), keepdims=True)).sum(-1) for s in shares)
    close(jaxai.full_grad(model, small_images, 0), expected)


KERNEL, DENSE = (
    jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
    for seed, shape in enumerate(((3, 8), (8, 5)))
)
RELUS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "gate": lambda x: x * (x > 0),
    "heaviside": lambda x: jnp.heaviside(x, 0.0) * x,
    "sign": lambda x: 0.5 * x * (1 + jnp.sign(x)),
    "clip": lambda x: jnp.clip(x, 0),
    "clamp": lambda x: jax.lax.clamp(0.0, x, jnp.inf),
    "cond": lambda x: jax.lax.cond(x.sum() < 1e9, lambda x: (x, jax.nn.relu(x)), lambda x: (x, -x), x)[1],
    "sorted": lambda x: jax.lax.sort((jax.nn.relu(x), x), dimension=1)[0],
}
BOUNDED = {"relu6": jax.nn.relu6, "clip to six": lambda x: jnp.clip(x, 0, 6), "hard swish": jax.nn.hard_swish}


def relu_net(x):
    return jax.nn.relu(3 * (x @ KERNEL - 1)).mean((1, 2)) @ DENSE


def total(parts):
    return sum(float(np.asarray(part, np.float64).sum()) for part in jax.tree.leaves(parts))


@pytest.mark.parametrize("name", [*RELUS, *BOUNDED])
def test_full_gradients_add_up_for_every_spelling_of_a_relu(name, small_images):
    activation = {**RELUS, **BOUNDED}[name]

    def model(x):
        return activation(3 * (x @ KERNEL - 1)).mean((1, 2)) @ DENSE

    parts = jaxai.full_gradients(model, small_images, 1)
    np.testing.assert_allclose(total(parts), model(small_images)[:, 1].sum(), rtol=1e-5)
    # A gate is no share of its own, so the bias is the only one; heaviside(nan) is made from the value.
    if name in RELUS and name != "heaviside":
        bias, *rest = parts.biases
        assert not any(share.any() for share in rest)
        close(bias, jaxai.full_gradients(relu_net, small_images, 1).biases[0], 1e-5)


def test_full_gradients_add_up_through_complex_numbers(small_images):
    def model(x):
        waves = jnp.fft.fft2(x + 0.1, axes=(1, 2)) + (0.2 + 0.3j)
        return (jnp.abs(waves).sum((1, 2)) + jnp.real(waves**2 * 1j).sum((1, 2))) @ KERNEL

    parts = jaxai.full_gradients(model, small_images, 1)
    np.testing.assert_allclose(total(parts), model(small_images)[:, 1].sum(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_full_gradients_are_finite_with_infinite_paddings(dtype, small_images):
    """Paddings of pools, and masks of softmaxes, which nothing reads and whose gradient is zero."""

    def pooled(x):
        x = jnp.pad(jax.nn.relu(x @ KERNEL), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")

    def masked(x):
        tokens = (x @ KERNEL).reshape(len(x), -1, 8)
        past = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
        weights = jax.nn.softmax(jnp.where(past, tokens @ tokens.swapaxes(1, 2), -jnp.inf))
        return (weights @ tokens)[:, :, None]

    cast = lambda x: jnp.asarray(x, dtype)  # noqa: E731
    for layer in (pooled, masked):

        def model(x, layer=layer):
            return layer(x).mean((1, 2)) @ DENSE.astype(x.dtype)

        parts = jaxai.full_gradients(model, cast(small_images), 1)
        assert all(np.isfinite(part).all() for part in jax.tree.leaves(parts))
        assert np.isfinite(jaxai.full_grad(model, cast(small_images), 1)).all()
        scores = np.asarray(model(small_images)[:, 1], np.float64)
        coarse = 1e-5 if dtype == "float32" else 0.05 * np.abs(scores).sum()
        np.testing.assert_allclose(total(parts), scores.sum(), rtol=1e-5, atol=coarse)


def test_layer_methods_in_closed_form(small_images):
    """Scores are sums of squares of a linear layer's activations a = 2 x + 1."""
    net = jaxai.chain({"linear": lambda x: 2 * x + 1, "squares": lambda a: (a**2).sum((1, 2))})
    x = np.asarray(small_images)
    a = 2 * x + 1
    options = dict(layer="linear")
    close(jaxai.layer_gradients(net, small_images, 1, **options), one_channel(2 * a, 1))
    found = jaxai.layer_gradients(net, small_images, 1, times_activation=True, **options)
    close(found, one_channel(2 * a**2, 1))
    found = jaxai.layer_integrated_gradients(net, small_images, 1, baseline=0.5, **options)
    close(found, one_channel(a**2 - 4, 1))
    found = jaxai.internal_influence(net, small_images, 1, baseline=0.5, steps=3, **options)
    close(found, one_channel(a + 2, 1))
    # The gradient is linear in the step, so trapezoids are exact beside the first, whose end is taken.
    steps, change = 8, (a - 2) / 8
    found = jaxai.conductance(net, small_images, 1, baseline=0.5, steps=steps, batch_size=9, **options)
    close(found, one_channel(a**2 - 4 + change**2, 1))
    found = jaxai.conductance(net, small_images, 1, baseline=0.5, steps=steps, rule="left", **options)
    close(found, one_channel(a**2 - 4 - steps * change**2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer_integrated_gradients", "conductance"])
def test_layer_methods_add_up(name, dense_net, small_images):
    method = getattr(jaxai, name)
    found = method(dense_net, small_images, TARGETS, layer="conv1", baseline=0.1, steps=400, batch_size=300)
    start = jnp.full_like(small_images, 0.1)
    expected = np.take_along_axis(
        np.asarray(dense_net(small_images) - dense_net(start)), np.asarray(TARGETS), 1
    )
    assert np.abs(np.asarray(found).sum((2, 3, 4)) - expected).max() < 0.01 * np.abs(expected).max()


def test_neurons_are_targets_of_the_layers_body(dense_net, small_images):
    """A part of the network is a model: its neurons are explained by a callable target."""
    found = jaxai.saliency(jaxai.layers.Body(dense_net, "conv2"), small_images, lambda acts: acts[:, 2, 3, 4])
    expected = jax.grad(lambda x: dense_net(x, stop="conv2")[:, 2, 3, 4].sum())(small_images)
    close(found, expected)
