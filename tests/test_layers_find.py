"""Layers of models that nobody marked: names, splits, loops, layouts, what stays as it was."""

import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, slow_but
from flax import linen, nnx
from found_networks import Block, NNXNet, X, cam, nnx_net, noisy, plus
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai
from jaxai.layers import find

MARK = "name[name="
RNG = np.random.default_rng(0)


# Networks whose layers can take a delta, which is what their maps are compared with


class EqxBlock(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d

    def __call__(self, x, deltas=None, path=""):
        y = plus(deltas, f"{path}.conv1", self.conv1(x))
        y = plus(deltas, f"{path}.conv2", self.conv2(jax.nn.relu(y)))
        return plus(deltas, path, jax.nn.relu(x + y))


class EqxNet(eqx.Module):
    stem: eqx.nn.Conv2d
    layer1: list
    act: eqx.nn.Lambda
    fc: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 6)
        conv = lambda i, k, **o: eqx.nn.Conv2d(i, 4, 3, padding=1, key=keys[k], **o)  # noqa: E731
        self.stem = conv(3, 0, stride=2)
        self.layer1 = [EqxBlock(conv(4, 1), conv(4, 2)), EqxBlock(conv(4, 3), conv(4, 4))]
        self.act = eqx.nn.Lambda(jax.nn.relu)
        self.fc = eqx.nn.Linear(4, 5, key=keys[5])

    def __call__(self, x, deltas=None):
        x = plus(deltas, "stem", self.stem(x))
        for i, block in enumerate(self.layer1):
            x = block(x, deltas, f"layer1.{i}")
        return plus(deltas, "fc", self.fc(self.act(x).mean((1, 2))))


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x):
        y = jax.nn.relu(self.perturb("one", linen.Conv(4, (3, 3))(x)))
        return self.perturb("out", jax.nn.relu(x + linen.Conv(4, (3, 3))(y)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = self.perturb("stem", linen.Conv(4, (3, 3), strides=2)(x))
        x = linen.remat(LinenBlock)(name="block_1")(LinenBlock(name="block_0")(x))
        return linen.Dense(5)(x.mean((1, 2)))


def batched(net, x, deltas=None):
    return jax.vmap(net)(jnp.moveaxis(x, -1, 1), deltas)


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


KERNELS = [jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((3, 3, 3, 4), (3, 3, 4, 4), (4, 5))]


def plain(x):
    for kernel in KERNELS[:2]:
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
    return x.mean((1, 2)) @ KERNELS[2]


def test_plain_functions_have_the_places_that_carry_all():
    model = find(plain, X)
    conv, relu = "conv_general_dilated", "relu"
    assert model.layer_names[:4] == (conv, relu, f"{conv}#2", f"{relu}#2")
    marked = jaxai.layers.named(lambda x: plain(x), None)
    assert marked.names(X) == ("logits",)
    grads = jax.grad(lambda acts: (acts.mean((1, 2)) @ KERNELS[2])[:, 1].sum())(model(X, stop=f"{relu}#2"))
    expected = (grads.mean((1, 2), keepdims=True) * model(X, stop=f"{relu}#2")).sum(-1)
    close(cam(model, f"{relu}#2"), expected)

    def skip(x):
        y = jax.nn.relu(x @ KERNELS[0][0, 0])
        return (y + jnp.tanh(y)).mean((1, 2))

    names = find(skip, X).layer_names
    assert "relu" in names and "tanh" not in names and "add" in names


def test_jitted_blocks_and_scopes_name_layers():
    @jax.jit
    def block(x):
        return jnp.tanh(x) + x

    assert "block" in find(lambda x: block(2 * x).mean((1, 2)), X).layer_names

    def scoped(x):
        for i in range(2):
            with jax.named_scope("stage"), jax.named_scope(f"conv{i}"):
                x = jnp.tanh(x)
        return x.mean((1, 2))

    assert find(scoped, X).layer_names == ("stage/conv0", "stage/conv1", "stage", "logits")


def test_marks_win():
    class Marked(nnx.Module):
        def __init__(self, rngs):
            self.stem = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            return checkpoint_name(jax.nn.relu(self.stem(x)), "stem").mean((1, 2))

    net = Marked(nnx.Rngs(0))
    model = find(net, X)
    assert model.layer_names == ("stem#2", "stem", "logits")
    close(model(X, stop="stem"), jax.nn.relu(net.stem(X)))
    assert find(lambda x: checkpoint_name(jnp.tanh(x), "only").mean((1, 2)), X).layer_names == (
        "only",
        "logits",
    )


def test_heads_compose():
    net = nnx_net()
    model = find(net, X)
    for layer in model.layer_names:
        acts, head = jaxai.split(model, layer, X)
        close(head(acts), net(X))
        close(acts, model(X, stop=layer))
    close(model(model(X, stop="stem"), start="stem"), net(X))
    close(model(model(X, stop="stem"), start="stem", stop="layer1.0"), model(X, stop="layer1.0"))
    with pytest.raises(ValueError, match=r"needs other values of the images too \(skip connections\)"):
        model(model(X, stop="layer1.0.conv1"), start="layer1.0.conv1")
    with pytest.raises(ValueError, match="must not come before"):
        model(model(X, stop="fc"), start="fc", stop="stem")
    with pytest.raises(ValueError, match=r"activations at 'stem' must have shape \(2, 4, 6, 4\)"):
        model(X, start="stem")


def test_nothing_stays_changed():
    net, eqx_net = nnx_net(), EqxNet(jax.random.key(0))
    calls = {kind: kind.__dict__.get("__call__") for kind in (nnx.Conv, Block, eqx.nn.Conv2d, EqxBlock)}

    class Fails(nnx.Module):
        def __init__(self):
            self.net = net

        def __call__(self, x):
            self.net(x)
            raise RuntimeError("half-way")

    failing = Fails()
    with pytest.raises(RuntimeError, match="half-way"):
        find(failing, X)
    find(net, X), find(Partial(batched, eqx_net), X)
    assert all(kind.__dict__.get("__call__") is call for kind, call in calls.items())
    assert type(failing.net.stem) is nnx.Conv and type(eqx_net.stem) is eqx.nn.Conv2d
    assert type(net.layer1[0]) is Block and type(eqx_net.layer1[0]) is EqxBlock
    assert MARK not in str(jax.make_jaxpr(lambda x: net(x))(X))


def test_threads_do_not_see_each_other():
    net = LinenNet()
    variables = net.init(jax.random.key(0), X)
    seen, stop = [], threading.Event()

    def other():
        while not stop.is_set():
            seen.append(MARK in str(jax.make_jaxpr(lambda x: net.apply(variables, x))(X)))

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(3):
            assert len(find(Partial(lambda v, x: net.apply(v, x), variables), X).layer_names) == 9
    finally:
        stop.set()
        thread.join()
    assert seen and not any(seen)


def test_derivatives_of_ones_own_stay():
    @jax.custom_vjp
    def double(x):
        return jnp.tanh(x)

    double.defvjp(lambda x: (jnp.tanh(x), None), lambda _, g: (2 * g,))

    class Own(nnx.Module):
        def __init__(self, rngs):
            self.stem = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            return double(self.stem(x)).mean((1, 2))

    model = find(Own(nnx.Rngs(0)), X)
    acts, head = jaxai.split(model, "stem", X)
    grads = jax.grad(lambda acts: head(acts).sum())(acts)
    close(grads, jnp.full_like(acts, 2 / 96))


def test_new_weights_are_seen_and_compile_nothing():
    traces = []

    class Counting(NNXNet):
        def __call__(self, x):
            traces.append(1)
            return super().__call__(x)

    net = Counting(nnx.Rngs(0))
    net.eval()
    model = find(net, X)
    first = cam(model, "layer1.0")
    kernel, before = net.fc.kernel[...], len(traces)
    np.testing.assert_array_equal(cam(model, "layer1.0"), first)
    net.fc.kernel[...] = -2 * kernel
    close(cam(model, "layer1.0"), -2 * first)
    close(jaxai.split(model, "fc", X)[0], net(X))
    assert len(traces) == before + 1

    weights = [KERNELS[2]]
    closed = find(
        lambda x: checkpoint_name(jax.nn.relu(x @ KERNELS[0][0, 0]), "f").mean((1, 2)) @ weights[0], X
    )
    first = jaxai.grad_cam(closed, X, 1, layer="f")
    weights[0] = 3 * KERNELS[2]
    close(jaxai.grad_cam(closed, X, 1, layer="f"), 3 * first)


def test_the_default_layer():
    assert jaxai.layers.resolve(find(nnx_net(), X), None, X) == "drop"
    assert jaxai.layers.resolve(find(Partial(batched, EqxNet(jax.random.key(0))), X), None, X) == "act"
