"""Layers of models that nobody marked: names, splits, loops, layouts, what stays as it was."""

import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, slow_but
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai
from jaxai.layers import Tokens, find, tree

MARK = "name[name="
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 8, 12, 3)), jnp.float32)


def noisy(module):
    """Give biases and scales values that are not zero or one."""
    leaves, structure = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    changed = [
        x + 0.1 * jax.random.normal(k, x.shape) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, changed)


# Networks whose layers can take a delta, which is what their maps are compared with


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x, deltas=None, path=""):
        y = plus(deltas, f"{path}.conv1", self.conv1(x))
        y = plus(deltas, f"{path}.conv2", self.conv2(jax.nn.relu(y)))
        return plus(deltas, path, jax.nn.relu(x + y))


def plus(deltas, name, value):
    return value if deltas is None or name not in deltas else value + deltas[name]


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.layer1 = nnx.List([Block(rngs), Block(rngs)])
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x, deltas=None):
        x = plus(deltas, "stem", self.stem(x))
        for i, block in enumerate(self.layer1):
            x = block(x, deltas, f"layer1.{i}")
        return plus(deltas, "fc", self.fc(self.drop(x).mean((1, 2))))


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


def nnx_net():
    net = noisy(NNXNet(nnx.Rngs(0)))
    net.eval()
    return net


def batched(net, x, deltas=None):
    return jax.vmap(net)(jnp.moveaxis(x, -1, 1), deltas)


def by_delta(scores, acts, target):
    """Return Grad-CAM of activations [batch, h, w, c] whose delta the model adds in its own call."""
    grads = jax.jit(jax.grad(lambda delta: scores(delta)[:, target].sum()))(jnp.zeros_like(acts))
    return (grads.mean((1, 2), keepdims=True) * acts).sum(-1)


def cam(net, layer, images=X):
    return jaxai.grad_cam(net, images, 1, layer=layer, upsample=False, relu=False)


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


# Tokens


class Attention(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 6, decode=False, rngs=rngs)
        self.mlp = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x):
        x = x + self.attend(self.norm(x))
        return x + jax.nn.gelu(self.mlp(x))


class ViT(nnx.Module):
    """With a class token and registers, and a head that reads the class token alone."""

    def __init__(self, rngs, others=3, read="class"):
        self.others, self.read = others, read
        self.patch = nnx.Conv(3, 6, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.before = nnx.Param(jax.random.normal(rngs(), (1, others, 6)))
        self.place = nnx.Param(jax.random.normal(rngs(), (1, others + 6, 6)))
        self.blocks = nnx.List([Attention(rngs), Attention(rngs)])
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.fc = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x, delta=None):
        x = self.patch(x).reshape(len(x), -1, 6)
        x = jnp.concatenate([jnp.tile(self.before[...], (len(x), 1, 1)), x], axis=1) + self.place[...]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0 and delta is not None:
                x = x + delta
        x = self.norm(x)
        return self.fc(x[:, 0] if self.read == "class" else x[:, self.others :].mean(1))


@pytest.mark.parametrize(
    "kind", slow_but("class after 3", ["mean after 0", "class after 1", "mean after 1", "class after 3"])
)
def test_tokens_lie_on_a_grid_after_others(kind):
    read, _, others = kind.split()
    others = int(others)
    net = ViT(nnx.Rngs(0), others, read)
    model = find(net, X)
    assert model.layout_of("blocks.0", X) == (True, Tokens(grid=(2, 3), prefix=others))
    assert model.layout_of("patch", X) == (True, "NHWC")
    # The last layer whose patches the head reads.
    last = "blocks.0" if net.read == "class" else "norm"
    assert jaxai.layers.resolve(model, None, X) == last
    acts = model(X, stop="blocks.0")
    grads = jax.jit(jax.grad(lambda d: net(X, d)[:, 1].sum()))(jnp.zeros_like(acts))[:, others:]
    expected = (grads.mean(1, keepdims=True) * acts[:, others:]).sum(-1).reshape(2, 2, 3)
    # One image at a time is read as well.
    found = jaxai.grad_cam(model, X, 1, layer="blocks.0", relu=False, upsample=False, batch_size=1)
    assert np.abs(expected).max() > 0
    close(found, expected)


@pytest.mark.slow
def test_fused_cams_leave_out_tokens_that_nothing_reads():
    model = find(ViT(nnx.Rngs(0)), X)
    assert jaxai.fused_cam(model, X, 1, names=("blocks.1",)).max() == 0 < jaxai.fused_cam(model, X, 1).max()


def test_attention_matrices_are_refused():
    net = ViT(nnx.Rngs(0))
    model = find(net, X)
    with pytest.raises(ValueError, match=r"'blocks.0.attend.query' has shape \(2, 9, 2, 3\), whose axes"):
        jaxai.grad_cam(model, X, 1, layer="blocks.0.attend.query")
    with pytest.raises(ValueError, match=r"'fc' has shape \(2, 5\)"):
        jaxai.grad_cam(model, X, 1, layer="fc")


def unreadable(x):
    x = jnp.sort(x.reshape(2, -1, 3), axis=-1)[:, jnp.asarray(RNG.permutation(96))]
    with jax.named_scope("mixed"):
        return jnp.tanh(x)


def test_layouts_that_cannot_be_read_are_asked_for():
    def net(x):
        return unreadable(x).mean(1)

    with pytest.raises(
        ValueError, match=r"layout of layer 'mixed' of shape \(2, 96, 3\) cannot be read.*pass"
    ):
        jaxai.grad_cam(find(net, X), X, 1)
    given = find(net, X, data_format=Tokens(grid=(8, 12)))
    assert jaxai.grad_cam(given, X, 1, upsample=False).shape == (2, 8, 12)
    by_name = find(net, X, data_format={"mixed": Tokens(grid=(4, 6), prefix=72)})
    assert jaxai.grad_cam(by_name, X, 1, layer="mixed", upsample=False).shape == (2, 4, 6)
    contradicted = find(nnx_net(), X, data_format="NCHW")
    with pytest.raises(ValueError, match="says NCHW of layer 'stem' .* by the program it is NHWC"):
        jaxai.grad_cam(contradicted, X, 1, layer="stem")
    with pytest.raises(ValueError, match="`data_format` must be 'NHWC', 'NCHW', jaxai.layers.Tokens"):
        find(net, X, data_format="channels_last")
    with pytest.raises(ValueError, match="must have a grid"):
        Tokens(grid=(0, 3))
    with pytest.raises(ValueError, match="unknown layer 'no'"):
        find(net, X, data_format={"no": "NCHW"})


# Outputs, listing, errors


def test_outputs_are_chosen():
    net = nnx_net()
    expected = cam(find(net, X), "stem")

    def outputs(net, x):
        scores = net(x)
        return {"logits": scores, "other": (x, scores)}

    for output in ("logits", lambda out: out["other"][1]):
        close(cam(find(Partial(outputs, net), X, output=output), "stem"), expected)
    close(cam(find(Partial(lambda net, x: (x, net(x)), net), X, output=1), "stem"), expected)

    class Result:
        def __init__(self, logits):
            self.logits = logits

    close(cam(find(Partial(lambda net, x: Result(net(x)), net), X, output="logits"), "stem"), expected)
    with pytest.raises(
        ValueError, match="must name an output of the model; got 'x', and it returns a dict with"
    ):
        find(Partial(outputs, net), X, output="x")
    with pytest.raises(TypeError, match="`output` must be"):
        find(net, X, output=1.5)
    with pytest.raises(ValueError, match="`image_format` must be one of NHWC, NCHW, HWC, CHW"):
        find(net, X, image_format="NWHC")


def test_the_tree():
    found = tree(nnx_net(), X)
    assert found.default == "drop" and found.shapes["layer1.0"].shape == (2, 4, 6, 4)
    assert "layer1.0.conv1  float32[2,4,6,4]  NHWC" in str(found)
    assert str(
        tree(jaxai.chain({"a": lambda x: x + 1, "logits": lambda x: x.mean((1, 2))}), X)
    ).splitlines() == [
        "a       float32[2,8,12,3]  NHWC  <- default",
        "logits  float32[2,3]",
    ]
    assert "tokens 2x3 after 3" in repr(tree(ViT(nnx.Rngs(0)), X))


class Deep(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(200)])

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x.mean((1, 2))


def test_unknown_layers_are_told_the_nearest():
    model = find(Deep(nnx.Rngs(0)), X)
    with pytest.raises(
        ValueError, match=r"unknown layer 'layer.17'; the nearest of 201 layers are layers.17,"
    ):
        jaxai.grad_cam(model, X, 1, layer="layer.17")


def test_two_hundred_layers():
    """Listing is quick once the model is traced; a second split costs little more than flattening it."""
    net = Deep(nnx.Rngs(0))
    model = find(net, X)
    start = time.perf_counter()
    assert len(tree(model, X).shapes) == 201
    assert time.perf_counter() - start < 1
    program, flat = model.program(X)

    def seconds(call):
        times = []
        for _ in range(20):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(lambda: model.program(X)) < seconds(lambda: jax.tree.flatten((net, X))) + 1e-3 + seconds(
        lambda: jax.tree.flatten(net)
    )


@pytest.mark.slow
def test_rules_for_layers_of_found_models():
    net = nnx_net()
    model = find(net, X)
    base = jaxai.rules.Composite()
    chosen = jaxai.lrp(model, X, 1, composite=jaxai.rules.Composite(layers={"layer1.0": jaxai.rules.Flat()}))
    by_part = {f"layer1.0.conv{i}": jaxai.rules.Flat() for i in (1, 2)}
    close(chosen, jaxai.lrp(model, X, 1, composite=jaxai.rules.Composite(layers=by_part)))
    assert np.abs(chosen - jaxai.lrp(model, X, 1, composite=base)).max() > 1e-3 * np.abs(chosen).max()
    close(jaxai.lrp(model, X, 1, composite=base), jaxai.lrp(net, X, 1, composite=base))
    with pytest.raises(ValueError, match="unknown layer 'layer2' in the composite; the layers are stem,"):
        jaxai.lrp(model, X, 1, composite=jaxai.rules.Composite(layers={"layer2": jaxai.rules.Flat()}))


def test_signals_and_volumes_as_images():
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 5)), jnp.float32)
    x = X[:, 0]

    def signals(x):
        y = jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        return jax.nn.relu(y).mean(1)

    def images(image):
        return signals(image[:, 0])

    close(jaxai.saliency(images, x[:, None], 1)[:, 0], jax.grad(lambda x: signals(x)[:, 1].sum())(x))
    found = jaxai.lrp(images, x[:, None], 1, composite=jaxai.rules.Composite(), relevance="score")
    close(found.sum((1, 2, 3)), signals(x)[:, 1], 1e-4)
    drops = jaxai.occlusion(images, x[:, None], 1, window=(1, 4), strides=(1, 4))[:, 0]
    hidden = jnp.stack([x.at[:, i : i + 4].set(0) for i in (0, 4, 8)])
    expected = jnp.stack([(signals(x) - signals(h))[:, 1] for h in hidden], axis=1)
    close(drops, jnp.repeat(expected, 4, axis=1))
