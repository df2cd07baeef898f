"""Layers of modules that nobody marked: what their values are, names, repeated visits, loops, results."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, slow_but
from flax import linen, nnx
from found_networks import MARK, EqxNet, LinenNet, X, batched, cam, nnx_net, noisy
from jax.tree_util import Partial

import jaxai
from jaxai.layers import find

RNG = np.random.default_rng(0)


def by_delta(scores, acts, target):
    """Return Grad-CAM of activations [batch, h, w, c] whose delta the model adds in its own call."""
    grads = jax.jit(jax.grad(lambda delta: scores(delta)[:, target].sum()))(jnp.zeros_like(acts))
    return (grads.mean((1, 2), keepdims=True) * acts).sum(-1)


@pytest.mark.slow
@pytest.mark.parametrize("layer", slow_but("layer1.0.conv2", ["stem", "layer1.0.conv2", "layer1.1"]))
def test_nnx_layers_are_the_values_of_the_modules(layer):
    net = nnx_net()
    model = find(net, X)
    acts = model(X, stop=layer)
    expected = by_delta(lambda d: net(X, {layer: d}), acts, 1)
    assert np.abs(expected).max() > 0
    close(cam(model, layer), expected)
    close(cam(find(lambda x: net(x), X), layer), expected)
    close(cam(find(Partial(lambda net, x: net(x), net), X), layer), expected)


@pytest.mark.slow
@pytest.mark.parametrize("layer", slow_but("layer1.0.conv2", ["stem", "layer1.0.conv2", "layer1.1"]))
def test_equinox_layers_channels_first(layer):
    net = EqxNet(jax.random.key(0))
    models = (
        find(net, X, image_format="CHW"),
        find(Partial(batched, net), X),
        find(lambda x: batched(net, x), X),
        find(jax.vmap(net), X, image_format="NCHW"),
    )
    acts = models[0](X, stop=layer)
    last = jnp.moveaxis(acts, 1, -1)

    def scores(delta):
        return batched(net, X, {layer: jnp.moveaxis(delta, -1, 1)})

    expected = by_delta(scores, last, 1)
    assert np.abs(expected).max() > 0
    for model in models:
        close(cam(model, layer), expected)
        assert model.layout_of(layer, X) == (True, "NCHW")


PLACES = {"Conv_0": ("stem",), "block_0/Conv_0": ("block_0", "one"), "block_1": ("block_1", "out")}


@pytest.mark.parametrize("layer", slow_but("block_0/Conv_0", PLACES))
@pytest.mark.slow
def test_linen_layers(layer):
    place = PLACES[layer]
    net = LinenNet()
    variables = noisy(net.init(jax.random.key(0), X))
    params, zeros = {"params": variables["params"]}, jax.tree.map(jnp.zeros_like, variables["perturbations"])
    model = find(Partial(net.apply, params), X)

    def scores(delta):
        at = {name: dict(value) if isinstance(value, dict) else value for name, value in zeros.items()}
        holder = at if len(place) == 1 else at[place[0]]
        holder[place[-1]] = delta
        return net.apply({**params, "perturbations": at}, X)

    expected = by_delta(scores, model(X, stop=layer), 1)
    assert np.abs(expected).max() > 0
    close(cam(model, layer), expected)


def test_names():
    inner = ("conv1", "conv2")
    blocks = [f"layer1.{i}{name}" for i in (0, 1) for name in (*(f".{n}" for n in inner), "")]
    assert find(nnx_net(), X).layer_names == ("stem", *blocks, "drop", "fc", "logits")
    net = EqxNet(jax.random.key(0))
    assert find(Partial(batched, net), X).layer_names == ("stem", *blocks, "act", "fc", "logits")
    variables = LinenNet().init(jax.random.key(0), X)
    expected = [f"block_{i}{name}" for i in (0, 1) for name in ("/Conv_0", "/Conv_1", "")]
    for model in (Partial(LinenNet().apply, variables), LinenNet().bind(variables)):
        assert find(model, X).layer_names == ("Conv_0", *expected, "Dense_0", "logits")
    # What JAX has cached of a function does not hide its layers, and they stay out of the cache.
    jitted = jax.jit(LinenNet().apply)
    jitted(variables, X)
    assert find(Partial(jitted, variables), X).layer_names == ("Conv_0", *expected, "Dense_0", "logits")
    assert MARK not in str(jax.make_jaxpr(jitted)(variables, X))


class Shared(linen.Module):
    @linen.compact
    def __call__(self, x):
        layer = linen.Dense(3, name="shared")
        return layer(layer(x)).mean((1, 2))


class Twice(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.layer(self.layer(x)).mean((1, 2))


def test_repeated_visits_are_numbered():
    net, twice = Shared(), Twice(nnx.Rngs(0))
    model = find(Partial(net.apply, net.init(jax.random.key(0), X)), X)
    assert model.layer_names == ("shared", "shared#2", "logits")
    model = find(twice, X)
    assert model.layer_names == ("layer", "layer#2", "logits")
    close(model(X, stop="layer#2"), twice.layer(twice.layer(X)))


class Scanned(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def blocks(rngs):
            return nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), jnp.tanh)

        self.stem, self.blocks = nnx.Linear(3, 4, rngs=rngs), blocks(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x, block):
            return block(x) + x

        return run(self.stem(x), self.blocks).mean((1, 2))


@pytest.mark.slow
def test_loops_are_opened():
    net = Scanned(nnx.Rngs(0))
    model = find(net, X)
    steps = [f"blocks/[{i}]{name}" for i in range(3) for name in (".layers.0", "")]
    assert model.layer_names == ("stem", *[n.replace("].", "]/") for n in steps], "logits")
    linear = net.blocks.layers[0]
    x = net.stem(X)
    for i in range(2):
        last = jnp.tanh(x @ linear.kernel[...][i] + linear.bias[...][i])
        x = last + x
    close(model(X, stop="blocks/[1]"), last)
    close(model.split("blocks/[1]", X)[1](last), net(X))


def test_loops_of_plain_jax():
    weights = jnp.asarray(RNG.normal(size=(3, 4, 4)), jnp.float32)
    first, last = jnp.asarray(RNG.normal(size=(3, 4))), jnp.asarray(RNG.normal(size=(4, 5)))

    def net(weights, x):
        x = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x @ first, weights)[0]
        return x.mean((1, 2)) @ last

    model = find(Partial(net, weights), X)
    assert [name for name in model.layer_names if name.endswith("]")] == ["[0]", "[1]", "[2]"]
    close(model(X, stop="[1]"), jnp.tanh(jnp.tanh(X @ first @ weights[0]) @ weights[1]))
    close(model(model(X, stop="[1]"), start="[1]"), net(weights, X))
    # Longer loops stay loops.
    long = jnp.tile(weights, (40, 1, 1))
    assert not any(name.startswith("[") for name in find(Partial(net, long), X).layer_names)


class LinenStep(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return jnp.tanh(linen.Dense(4)(x)) + x, None


class LinenScan(linen.Module):
    @linen.compact
    def __call__(self, x):
        steps = linen.scan(LinenStep, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = steps(name="blocks")(linen.Dense(4, name="stem")(x), None)
        return x.mean((1, 2))


@pytest.mark.slow
def test_loops_of_linen():
    net = LinenScan()
    variables = net.init(jax.random.key(0), X)
    model = find(Partial(net.apply, variables), X)
    steps = [f"blocks/[{i}]{name}" for i in (0, 1) for name in ("/Dense_0", "")]
    assert model.layer_names == ("stem", *steps, "logits")
    for layer in model.layer_names:
        acts, head = jaxai.split(model, layer, X)
        close(head(acts), net.apply(variables, X))


class Several(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x), state)
        return jax.nn.relu(x).mean((1, 2)), state


def test_modules_with_state_and_several_results():
    def make(key):
        return Several(eqx.nn.Conv2d(3, 4, 3, key=key), eqx.nn.BatchNorm(4, "batch", mode="batch"))

    net, state = eqx.nn.make_with_state(make)(jax.random.key(0))
    net = eqx.nn.inference_mode(net)

    def apply(net, state, x):
        return jax.vmap(net, in_axes=(0, None), axis_name="batch")(jnp.moveaxis(x, -1, 1), state)[0]

    model = find(Partial(apply, net, state), X)
    assert model.layer_names[0] == "conv" and np.abs(cam(model, "conv")).max() > 0

    class Two(nnx.Module):
        def __init__(self, rngs):
            self.part = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            return {"a": self.part(x), "b": 2 * x}

    class Outer(nnx.Module):
        def __init__(self, rngs):
            self.two = Two(rngs)

        def __call__(self, x):
            return self.two(x)["b"].mean((1, 2))

    assert find(Outer(nnx.Rngs(0)), X).layer_names == ("two['b']", "logits")
