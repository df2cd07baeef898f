"""Weights of Linen, of Keras and of functions: changes are seen, and what is the same compiles once."""

import sys
import types
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from flax import linen, nnx
from foreign_modules import MIX, Sowing, X, features, gradient
from jax.tree_util import Partial

import jaxai
from jaxai._frame.model import as_model


def test_bound_linen_modules_do_not_compile_again():
    traces = count()

    class Counting(linen.Module):
        @linen.compact
        def __call__(self, x):
            next(traces)
            return linen.Dense(4)(x.mean((1, 2)))

    net = Counting()
    variables = net.init(jax.random.key(0), X)
    first = jaxai.saliency(net.bind(variables), X, 1)
    before = next(traces)
    twice = jax.tree.map(lambda v: 2 * v, variables)
    close(jaxai.saliency(net.bind(twice), X, 1), 2 * first)
    close(jaxai.saliency(Counting().bind(variables), X, 1), first)
    assert next(traces) == before + 1


class Variable:
    def __init__(self, value):
        self.value = value

    def assign(self, value):
        self.value = value


class KerasLike:
    """The part of a Keras model that is used; the true one is larger than a test's environment should be."""

    built = True

    def __init__(self):
        self.trainable_variables = [Variable(MIX)]
        self.non_trainable_variables = [Variable(jnp.float32(1))]

    @property
    def variables(self):
        return [*self.trainable_variables, *self.non_trainable_variables]

    def stateless_call(self, trainable, fixed, x, training):
        assert training is False
        return fixed[0] * features(trainable[0], x), fixed

    def __call__(self, x):
        return self.stateless_call(*([v.value for v in g] for g in self.groups()), x, training=False)[0]

    def groups(self):
        return self.trainable_variables, self.non_trainable_variables


@pytest.fixture
def keras_like(monkeypatch):
    monkeypatch.setattr(KerasLike, "__module__", "keras.src.models.model")
    backend = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(backend=backend))
    return KerasLike()


def test_keras_models_are_functions_of_their_weights(keras_like, monkeypatch):
    net = keras_like
    assert len(jax.tree.leaves(as_model(net))) == 2
    for model in (net, lambda x: net(x)):
        net.trainable_variables[0].assign(MIX)
        close(jaxai.saliency(model, X, 1), gradient(MIX))
        net.trainable_variables[0].assign(2 * MIX)
        close(jaxai.saliency(model, X, 1), gradient(2 * MIX))
    assert jax.tree.structure(as_model(net)) == jax.tree.structure(as_model(net))
    monkeypatch.setattr(net, "built", False, raising=False)
    with pytest.raises(TypeError, match="no weights yet"):
        jaxai.saliency(net, X, 1)
    monkeypatch.setattr(sys.modules["keras"].backend, "backend", lambda: "torch")
    with pytest.raises(TypeError, match="must run on JAX; the backend is 'torch'"):
        jaxai.saliency(net, X, 1)


# Weights that change

WEIGHTS = MIX


def sees_global(x):
    return features(WEIGHTS, x)


def sees_through(x):
    return sees_global(x)


class Holder:
    def __init__(self):
        self.inner = {"w": MIX}

    def scores(self, x):
        return features(self.inner["w"], x)

    def __call__(self, x):
        return self.scores(x)


def changing(name):
    """Return a model, and a function that sets its weights."""
    holder, array, cell = Holder(), np.array(MIX), [MIX]
    variable = nnx.Param(MIX)

    def rebind(value):
        global WEIGHTS
        WEIGHTS = value

    def nested(x):
        return (lambda y: features(cell[0], y))(x)

    def by_default(x, w=cell):
        return features(w[0], x)

    in_list = lambda value: cell.__setitem__(0, value)  # noqa: E731
    in_holder = lambda value: holder.inner.update(w=value)  # noqa: E731
    return {
        "global": (sees_global, rebind),
        "global of a function it calls": (sees_through, rebind),
        "list": (lambda x: features(cell[0], x), in_list),
        "inner function": (nested, in_list),
        "default": (by_default, in_list),
        "keyword default": (Partial(by_default), in_list),
        "numpy in place": (lambda x: features(jnp.asarray(array), x), lambda v: np.copyto(array, v)),
        "object": (holder, in_holder),
        "method": (holder.scores, in_holder),
        "attribute": (lambda x: holder.scores(x), in_holder),
        "variable": (lambda x: features(variable[...], x), lambda v: variable.__setitem__(..., v)),
        "beside parameters": (Partial(lambda p, x: p * features(cell[0], x), jnp.float32(1)), in_list),
        "number": (
            lambda x: features(MIX, x) * float(np.asarray(cell[0])[0, 0] / np.asarray(MIX)[0, 0]),
            in_list,
        ),
    }[name]


CHANGES = (
    "global",
    "global of a function it calls",
    "list",
    "inner function",
    "default",
    "keyword default",
    "numpy in place",
    "object",
    "method",
    "attribute",
    "variable",
    "beside parameters",
    "number",
)


@pytest.mark.sampled
@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights_never_give_the_old_explanation(name):
    model, set_weights = changing(name)
    try:
        in_chain = jaxai.chain({"scores": model})
        for scale in (1, 2, 1):
            set_weights(scale * MIX)
            expected = scale * gradient(MIX) if name == "number" else gradient(scale * MIX)
            close(jaxai.saliency(model, X, 1), expected)
            close(jaxai.saliency(in_chain, X, 1), expected)
    finally:
        set_weights(MIX)


def test_what_is_the_same_function_compiles_once():
    ticks = count()

    def scores(w, x):
        next(ticks)
        return features(w, x)

    def make(w):
        return lambda x: scores(w, x)

    first = jaxai.saliency(make(MIX), X, 1)
    before = next(ticks)
    for _ in range(3):
        np.testing.assert_array_equal(jaxai.saliency(make(MIX), X, 1), first)
    assert next(ticks) == before + 1
    assert np.abs(jaxai.saliency(make(2 * MIX), X, 1) - first).max() > 1e-3
    assert next(ticks) > before + 2


def test_a_function_that_counts_its_traces_is_traced_once():
    calls = []

    def net(x):
        calls.append(len(calls))
        return features(MIX, x)

    jaxai.saliency(net, X, 1)
    before = len(calls)
    jaxai.saliency(net, X, 1)
    jaxai.saliency(net, X, 2)
    assert len(calls) == before


def test_functions_with_traced_weights():
    def maps(w):
        return jaxai.saliency(lambda x: features(w, x), X, 1)

    close(jax.jit(maps)(2 * MIX), gradient(2 * MIX))
    close(jax.jit(maps)(MIX), gradient(MIX))
    assert jax.vmap(maps)(jnp.stack([MIX, 2 * MIX])).shape == (2, *X.shape)


def test_as_model_is_idempotent():
    net = Sowing(nnx.Rngs(0))
    for model in (sees_global, net, Partial(features, MIX), Holder()):
        once = as_model(model)
        assert jax.tree.structure(as_model(once)) == jax.tree.structure(once)
