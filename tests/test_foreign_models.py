"""Networks of other libraries as they are: NNX, Equinox, Linen; functions that Haiku transformed."""

import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from flax import linen, nnx
from foreign_modules import MIX, Sowing, X, features
from jax.tree_util import Partial

import jaxai
from jaxai._frame.model import as_model

# Flax NNX


class Scanned(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def layers(rngs):
            return nnx.Linear(4, 4, rngs=rngs)

        self.stem, self.layers = nnx.Linear(3, 4, rngs=rngs), layers(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x, layer):
            return jax.nn.relu(layer(x)) + x

        return run(self.stem(x), self.layers).mean((1, 2))

    def plain(self, x):
        kernel, bias = self.stem.kernel[...], self.stem.bias[...]
        x = x @ kernel + bias
        for i in range(3):
            x = jax.nn.relu(x @ self.layers.kernel[...][i] + self.layers.bias[...][i]) + x
        return x.mean((1, 2))


class Rematted(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.remat(lambda m, x: jax.nn.relu(m.conv(x)))(self, x).mean((1, 2))

    def plain(self, x):
        return jax.nn.relu(self.conv(x)).mean((1, 2))


class Recurrent(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.SimpleCell(3, 4, rngs=rngs), rngs=rngs)

    def __call__(self, x):
        return self.rnn(x.mean(1))[:, -1]

    def plain(self, x):
        cell, h = self.rnn.cell, jnp.zeros((len(x), 4))
        for step in jnp.moveaxis(x.mean(1), 1, 0):
            h, _ = cell(h, step)
        return h


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.SpectralNorm(nnx.Linear(3, 4, rngs=rngs), rngs=rngs)
        self.norm(jnp.ones((1, 3)), update_stats=True)

    def __call__(self, x):
        return jax.nn.relu(self.norm(x, update_stats=False)).mean((1, 2))

    def plain(self, x):
        graph, state = nnx.split(self.norm)
        return jax.nn.relu(nnx.merge(graph, state)(x, update_stats=False)).mean((1, 2))


# Flax announces that sow will move.
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NETS = (Scanned, Rematted, Recurrent, Normed, Sowing)
METHODS = {
    "saliency": jaxai.saliency,
    "integrated_gradients": lambda *a: jaxai.integrated_gradients(*a, steps=3, batch_size=2),
    "occlusion": lambda *a: jaxai.occlusion(*a, window=(3, 3), strides=(3, 2)),
    "deep_lift": jaxai.deep_lift,
}


@pytest.mark.sampled
@QUIET
@pytest.mark.parametrize(
    ("kind", "name"),
    [*((kind, "saliency") for kind in NETS), *((Scanned, name) for name in METHODS), (Rematted, "occlusion")],
)
def test_nnx_modules_may_change_their_state_when_they_are_called(kind, name):
    net = kind(nnx.Rngs(0))
    before = nnx.state(net)
    plain = Partial(lambda net, x: net.plain(x), net)
    expected = METHODS[name](plain, X, 1)
    for model in (net, lambda x: net(x), Partial(lambda net, x: net(x), net)):
        close(METHODS[name](model, X, 1), expected)
    after = nnx.state(net)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert all(a is b for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


@QUIET
def test_a_failed_call_leaves_the_module_as_it_was():
    class Fails(Rematted):
        def __call__(self, x):
            super().__call__(x)
            raise RuntimeError("half-way")

    net = Fails(nnx.Rngs(0))
    expected = net.plain(X)
    for model in (net, lambda x: net(x)):
        with pytest.raises(RuntimeError, match="half-way"):
            jaxai.saliency(model, X, 1)
    np.testing.assert_array_equal(net.plain(X), expected)


class Trained(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(jnp.tanh(self.norm(self.linear(x)))).mean((1, 2))


@pytest.mark.parametrize("method", [jaxai.saliency, jaxai.lrp, jaxai.deep_lift], ids=lambda m: m.__name__)
def test_nnx_in_training_mode_is_refused(method):
    net = Trained(nnx.Rngs(0))
    for model in (net, lambda x: net(x), Partial(lambda net, x: net(x), net)):
        with pytest.raises(ValueError, match=r"training mode.*'(norm|drop)'\): call model.eval\(\)"):
            method(model, X, 1)
    net.drop.deterministic = True
    with pytest.raises(ValueError, match="change with its batch.*'norm'"):
        method(net, X, 1)
    net.eval()
    assert method(net, X, 1).shape == X.shape


# Equinox


class WithLeaves(eqx.Module):
    stem: eqx.nn.Conv2d
    act: eqx.nn.Lambda
    drop: eqx.nn.Dropout
    note: str
    scale: float

    def __call__(self, images):
        def one(image):
            x = self.act(self.stem(image.transpose(2, 0, 1)))
            x = x if self.note == "plain" else 100 * x
            return self.drop(x).mean((1, 2)) * (self.scale if self.scale > 0 else 0)

        return jax.vmap(one)(images)


@pytest.mark.slow
def test_equinox_modules_may_hold_functions_strings_and_flags():
    stem = eqx.nn.Conv2d(3, 4, 3, padding=1, key=jax.random.key(0))
    net = WithLeaves(stem, eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.5, inference=True), "plain", 2.0)

    def plain(x):
        return 2 * jax.vmap(lambda i: jax.nn.relu(stem(i.transpose(2, 0, 1))).mean((1, 2)))(x)

    for method in METHODS.values():
        close(method(net, X, 1), method(plain, X, 1))
    assert all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(as_model(net)))
    # Another function in the same place is another model; other weights are the same program.
    other = eqx.tree_at(lambda n: n.act, net, eqx.nn.Lambda(jnp.tanh))
    assert jax.tree.structure(as_model(other)) != jax.tree.structure(as_model(net))
    assert jax.tree.structure(as_model(jax.tree.map(lambda a: a, net))) == jax.tree.structure(as_model(net))
    assert np.abs(jaxai.saliency(other, X, 1) - jaxai.saliency(net, X, 1)).max() > 1e-3


def test_sequences_of_equinox_layers():
    keys = jax.random.split(jax.random.key(0), 2)
    net = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 4, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(lambda x: x.mean((1, 2))),
            eqx.nn.Linear(4, 5, key=keys[1]),
        ]
    )
    model = Partial(lambda net, x: jax.vmap(net)(jnp.moveaxis(x, -1, 1)), net)
    arrays, static = eqx.partition(net, eqx.is_array)
    by_hand = Partial(lambda a, x: jax.vmap(eqx.combine(a, static))(jnp.moveaxis(x, -1, 1)), arrays)
    close(jaxai.saliency(model, X, 1), jaxai.saliency(by_hand, X, 1))


@pytest.mark.slow
def test_numbers_of_equinox_modules_are_static_at_any_depth():
    """The derivative of a maximum pool is known only if its first value is a constant."""
    pool = eqx.nn.MaxPool2d(2, 2)
    assert any(isinstance(leaf, float) for leaf in jax.tree.leaves(pool))

    def scores(parts, x):
        return features(parts["mix"], jax.vmap(parts["pool"])(jnp.moveaxis(x, -1, 1)).transpose(0, 2, 3, 1))

    model = Partial(scores, {"mix": MIX, "pool": pool})
    found = jaxai.layers.find(model, X)
    expected = jax.grad(lambda x: scores({"mix": MIX, "pool": pool}, x)[:, 1].sum())(X)
    for explained in (model, found, as_model(found)):
        close(jaxai.saliency(explained, X, 1), expected)
        assert all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(as_model(explained)))


# Flax Linen, Haiku


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(4)(jnp.tanh(linen.Conv(4, (3, 3))(x)).mean((1, 2)))


def test_linen_modules_bound_and_by_parts():
    net = LinenNet()
    variables = net.init(jax.random.key(0), X)
    expected = jaxai.saliency(Partial(net.apply, variables), X, 1)
    close(jaxai.saliency(net.bind(variables), X, 1), expected)
    close(jaxai.saliency(lambda x: net.apply(variables, x), X, 1), expected)
    with pytest.raises(TypeError, match="Linen module LinenNet has no parameters: pass jax"):
        jaxai.saliency(net, X, 1)


def test_transformed_functions_get_a_line():
    transformed = types.SimpleNamespace(init=lambda key, x: {}, apply=lambda params, key, x: x)
    with pytest.raises(TypeError, match=r"pass jax.tree_util.Partial\(lambda params, x: model.apply"):
        jaxai.saliency(transformed, X, 1)


@pytest.mark.parametrize("method", [jaxai.saliency, jaxai.input_x_gradient])
def test_a_model_is_flattened_once_before_its_program_is_called(method):
    """Large modules take a millisecond; the call of the compiled program flattens its arguments, too."""
    counts = []

    @jax.tree_util.register_pytree_node_class
    class Counted:
        def __init__(self, kernel):
            self.kernel = kernel

        def __call__(self, x):
            return jnp.tanh(x.mean((1, 2)) @ self.kernel)

        def tree_flatten(self):
            counts.append(1)
            return (self.kernel,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children)

    model, x = Counted(jnp.ones((3, 4))), jnp.ones((2, 8, 8, 3))
    method(model, x, 1)
    counts.clear()
    method(model, x, 1)
    assert len(counts) == 2
