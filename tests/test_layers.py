"""Chains, names, splits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxai
from jaxai import layers

IMAGES = jnp.arange(48.0).reshape(1, 4, 4, 3)


@pytest.fixture
def net():
    return jaxai.chain(
        {
            "zoom": Partial(lambda scale, x: scale * x, jnp.float32(2)),
            "pool1": lambda x: x[:, ::2, ::2],
            "add": lambda x: x + 1,
            "pool2": lambda x: x.reshape(x.shape[0], 1, -1, x.shape[-1]).max(2, keepdims=True),
            "logits": lambda x: x.sum((1, 2)),
        }
    )


def test_stages_keep_the_order_they_are_given(net):
    assert net.layer_names == ("zoom", "pool1", "add", "pool2", "logits")
    assert jax.tree.leaves(net) == [2.0]
    np.testing.assert_array_equal(net(IMAGES, stop="zoom"), 2 * IMAGES)
    np.testing.assert_array_equal(net(IMAGES, stop="add"), 2 * IMAGES[:, ::2, ::2] + 1)


def test_start_and_stop_compose(net):
    whole = net(IMAGES)
    for name in net.layer_names:
        np.testing.assert_array_equal(net(net(IMAGES, stop=name), start=name), whole)
    middle = net(net(IMAGES, stop="zoom"), start="zoom", stop="add")
    np.testing.assert_array_equal(middle, net(IMAGES, stop="add"))
    np.testing.assert_array_equal(net(middle, start="add", stop="add"), middle)


def test_a_chain_is_a_pytree(net):
    grads = jax.grad(lambda n: n(IMAGES).sum())(net)
    assert grads.layer_names == net.layer_names and jax.tree.leaves(grads)[0] != 0
    assert jax.jit(lambda n, x: n(x))(net, IMAGES).shape == (1, 3)


def test_split(net):
    for name in net.layer_names:
        acts, head = jaxai.split(net, name, IMAGES)
        np.testing.assert_array_equal(acts, net(IMAGES, stop=name))
        np.testing.assert_array_equal(head(acts), net(IMAGES))
        assert jax.tree.leaves(head) == [2.0]
    # The head is a function of the activations.
    acts, head = jaxai.split(net, "add", IMAGES)
    np.testing.assert_array_equal(jax.jit(lambda h, a: h(a))(head, acts), head(acts))


def test_a_model_without_layers_has_its_output():
    def model(x):
        return x.mean((1, 2))

    acts, head = jaxai.split(model, "logits", IMAGES)
    np.testing.assert_array_equal(acts, model(IMAGES))
    np.testing.assert_array_equal(head(acts), acts)
    assert layers.layer_names(model) == ("logits",)


def test_the_default_layer_is_the_last_with_positions(net):
    assert layers.resolve(net, None, IMAGES) == "add"
    with pytest.raises(ValueError, match="no hidden layer of this model has positions"):
        layers.resolve(lambda x: x.sum((1, 2)), None, IMAGES)


def test_finding_the_default_layer_traces_once():
    count = []

    def stage(x):
        count.append(1)
        return x + 1

    net = jaxai.chain({"stage": stage, "logits": lambda x: x.sum((1, 2))})
    layers.resolve(net, None, IMAGES)
    before = len(count)
    layers.resolve(net, None, IMAGES)
    assert len(count) == before


def test_the_body_is_a_model(net):
    body = layers.Body(net, "add")
    np.testing.assert_array_equal(body(IMAGES), net(IMAGES, stop="add"))
    assert jax.tree.leaves(body) == [2.0]


def test_a_model_may_split_itself():
    class Own:
        layer_names = ("middle",)

        def __call__(self, x):
            return (x + 1).sum((1, 2))

        def split(self, layer, images):
            return images + 1, Partial(lambda acts: acts.sum((1, 2)))

    jax.tree_util.register_static(Own)
    acts, head = jaxai.split(Own(), "middle", IMAGES)
    np.testing.assert_array_equal(head(acts), Own()(IMAGES))


def test_errors(net):
    with pytest.raises(ValueError, match="unknown layer 'fc'; the layers are zoom, pool1, add, pool2"):
        jaxai.split(net, "fc", IMAGES)
    with pytest.raises(TypeError, match="`layer` must be a layer's name; got 3"):
        jaxai.split(net, 3, IMAGES)
    with pytest.raises(ValueError, match="unknown layer 'fc'"):
        net(IMAGES, stop="fc")
    with pytest.raises(ValueError, match="must not come before"):
        net(IMAGES, start="pool2", stop="zoom")
    with pytest.raises(ValueError, match="at least one function"):
        jaxai.chain({})
    with pytest.raises(TypeError, match="must map names to callables; got 'a': 3"):
        jaxai.chain({"a": 3})
    with pytest.raises(TypeError, match="must map names to callables"):
        jaxai.chain({1: lambda x: x})


@pytest.mark.slow
def test_layered_models_may_be_jitted_themselves():
    import equinox as eqx
    from flax import nnx

    class Pooled(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, x):
            return jax.vmap(self.linear)(x.mean((1, 2)))

    x = jnp.ones((2, 4, 4, 3))
    chain = jaxai.chain({"double": lambda x: 2 * x, "mean": lambda x: x.mean((1, 2))})
    dense = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    found = jaxai.layers.find(Pooled(eqx.nn.Linear(3, 4, key=jax.random.key(0))), x)
    for model in (chain, dense, found, jaxai.split(chain, "double", x)[1], jaxai.layers.find(dense, x)):
        np.testing.assert_allclose(jax.jit(model)(x), model(x), rtol=1e-5)
