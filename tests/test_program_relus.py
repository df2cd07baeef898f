"""Which maxima with zero are activations of layers: those in norms and in other functions are none."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxai
from jaxai._program.graph import trace
from jaxai._program.relus import activations, has_activation
from jaxai.models.layers import relu6

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 8)), jnp.float32)
MIXED = jnp.asarray(RNG.normal(size=(8, 8)) / 3, jnp.float32)
DENSE = jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32)
SLOPES = jnp.asarray(RNG.uniform(0.1, 0.4, 8), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(2, 4, 4, 3)), jnp.float32)
RNGS = nnx.Rngs(0)


def channels_first(norm):
    return lambda x: jnp.moveaxis(jax.vmap(norm)(jnp.moveaxis(x, -1, 1)), 1, -1)


def distances(x):
    """Distances to eight prototypes, whose squares rounding can leave below zero."""
    squares = (x**2).sum(-1, keepdims=True) - 2 * x @ MIXED + (MIXED**2).sum(0)
    return jnp.sqrt(jnp.maximum(squares, 0) + 1e-6)


def similarities(x):
    """Of Student's t distribution: no root follows."""
    squares = (x * x).sum(-1, keepdims=True) - 2 * x @ MIXED + (MIXED**2).sum(0)
    return 1 / (1 + jax.nn.relu(squares))


NORMS = {
    "LayerNorm": nnx.LayerNorm(8, rngs=RNGS),
    "LayerNorm, slow": nnx.LayerNorm(8, use_fast_variance=False, rngs=RNGS),
    "GroupNorm": nnx.GroupNorm(8, num_groups=2, rngs=RNGS),
    "InstanceNorm": nnx.InstanceNorm(8, rngs=RNGS),
    "RMSNorm": nnx.RMSNorm(8, rngs=RNGS),
    "BatchNorm": nnx.BatchNorm(8, use_running_average=True, rngs=RNGS),
    "Equinox LayerNorm": jax.vmap(jax.vmap(jax.vmap(eqx.nn.LayerNorm(8)))),
    "Equinox GroupNorm": channels_first(eqx.nn.GroupNorm(2, 8)),
    "Equinox RMSNorm": jax.vmap(jax.vmap(jax.vmap(eqx.nn.RMSNorm(8)))),
    "distance": distances,
    "similarity": similarities,
    "distance on the sphere": lambda x: jnp.sqrt(jax.nn.relu(2 - 2 * jnp.tanh(x @ MIXED))),
    "entropy": lambda x: -jnp.log(jnp.maximum(jax.nn.softmax(x @ MIXED), 0) + 1e-6),
    "norm by hand": lambda x: x / jnp.maximum(x.var(-1, keepdims=True) + 1e-5, 0) ** 0.5,
}


def net(norm, activation):
    return lambda x: activation(norm(x @ KERNEL)).mean((1, 2)) @ DENSE


@jax.custom_vjp
def by_hand(x):
    return jnp.maximum(x, 0)


by_hand.defvjp(lambda x: (jnp.maximum(x, 0), x > 0), lambda is_open, g: (jnp.where(is_open & (g > 0), g, 0),))


@pytest.mark.sampled
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_keeps_its_gradient(name):
    """Only the ReLU after it is ruled, as with a rule written at the ReLU itself."""
    ours = jaxai.guided_backprop(net(NORMS[name], jax.nn.relu), IMAGES, 1)
    expected = jax.grad(lambda x: net(NORMS[name], by_hand)(x)[:, 1].sum())(IMAGES)
    np.testing.assert_allclose(ours, expected, atol=2e-6 * float(jnp.abs(expected).max()))


def batch_statistics(x):
    """A norm in training mode, whose running statistics are made from the clamped variance too."""
    mean = x.mean((0, 1, 2))
    variance = jnp.maximum(0.0, (x**2).mean((0, 1, 2)) - mean**2)
    running = 0.9 * jnp.ones(8) + 0.1 * variance
    del running
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * SLOPES


OTHERS = {
    "softplus": jax.nn.softplus,
    "softplus, written out": lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x))),
    "celu": jax.nn.celu,
    "mish": jax.nn.mish,
    "prelu as a sum": lambda x: jnp.maximum(x, 0) + SLOPES * jnp.minimum(x, 0),
    "leaky as a choice": lambda x: jnp.where(x > 0, jax.nn.relu(x), 0.1 * x),
    "magnitude": lambda x: jax.nn.relu(x) + jax.nn.relu(-x),
    "hard swish": jax.nn.hard_swish,
    "hard swish of the ports' ReLU6": lambda x: x * relu6(x + 3) / 6,
    "hard sigmoid": jax.nn.hard_sigmoid,
    "hard sigmoid, Keras": lambda x: jnp.clip(0.2 * x + 0.5, 0, 1),
    "hard tanh": jax.nn.hard_tanh,
    "integers": lambda x: x * jnp.maximum(x.astype(int), 0).astype(float),
    "parameters": lambda x: jnp.tanh(x * jax.nn.relu(SLOPES)),
    "batch statistics": batch_statistics,
}


@pytest.mark.parametrize("name", [*OTHERS, *NORMS])
def test_networks_without_a_relu_are_told_so(name):
    activation = OTHERS.get(name, jax.nn.gelu)
    model = net(NORMS.get(name, lambda x: x), activation)
    with pytest.raises(ValueError, match="must contain a ReLU"):
        jaxai.rules.redirected_relu(model)(IMAGES)


# How many activations each has.
ACTIVATIONS = {
    "crelu": (2, lambda x: jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], -1) @ jnp.tile(MIXED, (2, 1))),
    "squared": (1, lambda x: jax.nn.relu(x) ** 2),
    "logarithm of one more": (1, lambda x: jnp.log(1 + jax.nn.relu(x))),
    "over its own norm": (1, lambda x: normalized(jax.nn.relu(x))),
    "after a mean": (1, lambda x: x + jax.nn.relu(x.mean((1, 2), keepdims=True))),
    "skip": (1, lambda x: x + jax.nn.relu(x) @ MIXED),
    "sum": (2, lambda x: jax.nn.relu(x + jax.nn.relu(x @ MIXED))),
    "mask": (1, lambda x: jax.nn.relu(x) * (x > 0.1)),
    "bounded": (1, lambda x: jnp.clip(x, 0, 1)),
    "bounded and scaled": (1, lambda x: jax.nn.relu6(x) / 6),
    "excited": (1, lambda x: x * jax.nn.hard_sigmoid(jax.nn.relu(x.mean((1, 2), keepdims=True)) @ MIXED)),
    "ports": (1, lambda x: relu6(x)),
}


def normalized(x):
    return x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_found_beside_other_operations(name):
    count, activation = ACTIVATIONS[name]
    graph, *_ = trace(net(lambda x: x, activation), IMAGES, structured=True, enter=has_activation)
    assert len(activations(graph)) == count
