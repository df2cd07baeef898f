"""Layers of Keras and Haiku models where these are installed, beside deltas added in the libraries' calls."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai.layers import find

pytestmark = pytest.mark.slow
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 12, 3)), jnp.float32)


def by_delta(scores, acts):
    grads = jax.jit(jax.grad(lambda delta: scores(delta)[:, 1].sum()))(jnp.zeros_like(acts))
    return (grads.mean((1, 2), keepdims=True) * acts).sum(-1)


def cam(net, layer):
    return jaxai.grad_cam(net, X, 1, layer=layer, upsample=False, relu=False)


@pytest.fixture
def keras():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras does not run on JAX here")
    return keras


def residual(keras, bias=True):
    """Return a residual network as Keras's applications write them."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    options = {"padding": "same", "use_bias": bias}
    inputs = keras.Input((16, 12, 3))
    x = layers.Conv2D(4, 3, strides=2, name="conv1", **options)(inputs)
    for i in (1, 2):
        y = layers.Conv2D(4, 3, name=f"block{i}_conv", **options)(x)
        y = layers.Activation("relu", name=f"block{i}_relu")(y)
        x = layers.Add(name=f"block{i}_out")([x, layers.Conv2D(4, 3, name=f"block{i}_last", **options)(y)])
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(inputs, layers.Dense(5, name="predictions", use_bias=bias)(x))


@pytest.mark.parametrize("layer", ["conv1", "block1_relu", "block2_out"])
def test_keras_layers(keras, layer):
    net = residual(keras)
    model = find(net, X)
    blocks = [f"block{i}_{part}" for i in (1, 2) for part in ("conv", "relu", "last", "out")]
    assert model.layer_names == ("conv1", *blocks, "avg_pool", "predictions", "logits")
    assert jaxai.layers.resolve(model, None, X) == "block2_out"
    own = net.get_layer(layer)
    call = own.call

    def scores(delta):
        own.call = lambda *args, **keywords: call(*args, **keywords) + delta
        try:
            return net(X)
        finally:
            own.call = call

    expected = by_delta(scores, model(X, stop=layer))
    assert np.abs(expected).max() > 0
    close(cam(model, layer), expected)


def test_keras_shows_its_present_weights(keras):
    net = residual(keras)
    model = find(net, X)
    first = cam(model, "block1_out")
    dense = net.get_layer("predictions")
    dense.kernel.assign(3 * dense.kernel.value)
    close(cam(model, "block1_out"), 3 * first)
    close(model(X), net.stateless_call(net.trainable_variables, net.non_trainable_variables, X)[0])
    # A copy with other weights keeps them.
    copy = jax.tree.map(lambda w: w, model)
    dense.kernel.assign(0 * dense.kernel.value)
    close(cam(copy, "block1_out"), 3 * first)
    assert np.abs(cam(model, "block1_out")).max() == 0


def test_relevance_of_keras_models_is_conserved(keras):
    model = find(residual(keras, bias=False), X)
    composite = jaxai.rules.Composite(conv=jaxai.rules.Epsilon(1e-9), dense=jaxai.rules.Epsilon(1e-9))
    found = jaxai.lrp(model, X, 1, composite=composite, relevance="score")
    np.testing.assert_allclose(found.sum((1, 2, 3)), model(X)[:, 1], rtol=0.01)


def test_nested_and_shared_keras_layers(keras):
    layers = keras.layers
    inner = keras.Sequential([layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="act")], name="backbone")
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((16, 12, 3))
    x = shared(layers.ReLU(name="between")(shared(inner(inputs))))
    model = find(keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x)), X)
    expected = (
        "backbone/conv",
        "backbone/act",
        "backbone",
        "shared",
        "between",
        "shared#2",
        "pool",
        "logits",
    )
    assert model.layer_names == expected


def test_models_of_several_outputs(keras):
    layers = keras.layers
    inputs = keras.Input((16, 12, 3))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(4, 3, name="conv")(inputs))
    net = keras.Model(inputs, {"logits": layers.Dense(5, name="a")(x), "age": layers.Dense(1, name="b")(x)})
    model = find(net, X, output="logits")
    close(model(X), net(X)["logits"])
    assert cam(model, "conv").shape == (2, 14, 10)


def haiku_net():
    hk = pytest.importorskip("haiku")

    class Block(hk.Module):
        def __call__(self, x):
            y = jax.nn.relu(hk.Conv2D(4, 3, name="conv_a")(x))
            return jax.nn.relu(x + hk.Conv2D(4, 3, name="conv_b")(y))

    def net(x):
        x = hk.Conv2D(4, 3, stride=2, name="stem")(x)
        for _ in range(2):
            x = Block(name="block")(x)
        return hk.Linear(5, name="head")(x.mean((1, 2)))

    return hk, hk.without_apply_rng(hk.transform(net))


@pytest.mark.parametrize("layer", ["stem", "block/conv_a", "block_1"])
def test_haiku_layers(layer):
    hk, net = haiku_net()
    params = net.init(jax.random.key(0), X)
    model = find(Partial(net.apply, params), X)
    blocks = [f"{block}{part}" for block in ("block", "block_1") for part in ("/conv_a", "/conv_b", "")]
    assert model.layer_names == ("stem", *blocks, "head", "logits")

    def scores(delta):
        def add(function, args, keywords, context):
            out = function(*args, **keywords)
            here = context.module.module_name == layer and context.method_name == "__call__"
            return out + delta if here else out

        with hk.intercept_methods(add):
            return net.apply(params, X)

    expected = by_delta(scores, model(X, stop=layer))
    assert np.abs(expected).max() > 0
    close(cam(model, layer), expected)
    assert jaxai.layers.resolve(model, None, X) == "block_1"
