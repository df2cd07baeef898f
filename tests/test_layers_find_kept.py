"""Found layers of functions and beside marks, splits at them, and what finding leaves as it was."""

import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from flax import nnx
from found_networks import MARK, Block, EqxBlock, EqxNet, LinenNet, NNXNet, X, batched, cam, nnx_net
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai
from jaxai.layers import find

RNG = np.random.default_rng(0)
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


@pytest.mark.slow
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
