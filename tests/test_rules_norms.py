"""Norms of any library are one operation with its own rule: conservation, completeness, what is no norm."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxai
from jaxai import rules

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(size=shape) * scale, jnp.float32)


IMAGES, BASELINE = normal(2, 4, 3, 3), normal(1, 4, 3, 3)
WEIGHTS, HEAD = normal(3, 8), normal(8, 5)
SCALE, SHIFT = jnp.asarray(RNG.uniform(0.5, 2.0, size=8), jnp.float32), normal(8)


def flax(kind, **options):
    norm = kind(8, rngs=nnx.Rngs(0), **options)
    if norm.scale is not None:
        norm.scale[...] = SCALE
    return norm


def equinox(norm):
    return eqx.tree_at(lambda n: n.weight, norm, SCALE)


def pixelwise(fn):
    return jax.vmap(jax.vmap(jax.vmap(fn)))


def channels_first(fn):
    return lambda x: jax.vmap(fn)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def keras(x):
    # As keras.layers.LayerNormalization computes it.
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean)
    inverse = lax.rsqrt(variance + 1e-3) * SCALE
    return x * inverse + (0.0 - mean * inverse)


def written_out(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5) * SCALE


def response(x):
    # ConvNeXt V2's global response normalization.
    size = jnp.sqrt(jnp.square(x).sum((1, 2), keepdims=True))
    return x * (size / (size.mean(-1, keepdims=True) + 1e-6)) * SCALE + x


NORMS = {
    "layer": flax(nnx.LayerNorm),
    "layer, slow variance": flax(nnx.LayerNorm, use_fast_variance=False),
    "layer, no scale": flax(nnx.LayerNorm, use_scale=False, use_bias=False),
    "group": flax(nnx.GroupNorm, num_groups=2),
    "instance": flax(nnx.InstanceNorm),
    "rms": flax(nnx.RMSNorm),
    "equinox layer": pixelwise(equinox(eqx.nn.LayerNorm(8))),
    "equinox group": channels_first(equinox(eqx.nn.GroupNorm(2, 8))),
    "equinox rms": pixelwise(equinox(eqx.nn.RMSNorm(8))),
    "keras": keras,
    "written out": written_out,
    "standardize": lambda x: jax.nn.standardize(x) * SCALE,
    "power": lambda x: (x - x.mean(-1, keepdims=True)) * (x.var(-1, keepdims=True) + 1e-5) ** -0.5,
    "std": lambda x: (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 1e-5) * SCALE,
    "unit length": lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6),
    "response": response,
}
EXACT = rules.Composite(
    conv=rules.Epsilon(1e-9),
    dense=rules.Epsilon(1e-9),
    residual=rules.Norm(1e-9),
    pool=rules.Norm(1e-9),
    norm=rules.Norm(1e-9),
)


def network(norm):
    return lambda x: jax.nn.gelu(norm(x @ WEIGHTS)).mean((1, 2)) @ HEAD


@pytest.fixture(scope="module")
def explained():
    """LRP and DeepLIFT of all networks, compiled together."""

    def explain(images):
        found = {}
        for name, norm in NORMS.items():
            net = network(norm)
            lrp = jaxai.lrp(net, images, 2, composite=EXACT, relevance="score", strict=True)
            deep_lift = jaxai.deep_lift(net, images, 2, baseline=BASELINE, strict=True)
            found[name] = lrp, deep_lift, net(images)[:, 2], net(BASELINE)[:, 2]
        return found

    return jax.jit(explain)(IMAGES)


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_is_one_operation(name):
    found = rules.report(network(NORMS[name]), IMAGES)
    assert found.operations["norm"] == 1 and found.unsupported == ()
    assert not set(found.operations) & {"product", "relu", "other"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMS)
def test_norms_conserve_relevance(explained, name):
    ours, _, score, _ = explained[name]
    np.testing.assert_allclose(ours.sum((1, 2, 3)) / score, 1, atol=1e-4)


@pytest.mark.parametrize("name", NORMS)
def test_deep_lift_is_complete_through_norms(explained, name):
    _, ours, score, other = explained[name]
    np.testing.assert_allclose(ours.sum((1, 2, 3)), score - other, atol=1e-5)


def test_the_statistics_are_held_constant():
    # y = (x - mean) n g + b with n the inverse deviation: shared by contribution with n as a constant.
    x = np.asarray(normal(1, 1, 1, 8), np.float64)
    deviation = np.sqrt(x.var() + 1e-6)

    def net(x):
        norm = flax(nnx.LayerNorm)
        norm.bias[...] = SHIFT
        return (norm(x) * HEAD[:, 0]).sum((1, 2, 3))[:, None]

    ours = jaxai.lrp(net, jnp.asarray(x, jnp.float32), 0, composite=EXACT, relevance="score", strict=True)
    scale, shift = np.asarray(SCALE, np.float64), np.asarray(SHIFT, np.float64)
    matrix = (np.eye(8) - 1 / 8) / deviation * scale  # [inputs, outputs]
    z = x.ravel() @ matrix + shift
    relevance = z * np.asarray(HEAD[:, 0], np.float64)
    np.testing.assert_allclose(ours.ravel(), x.ravel() * (matrix @ (relevance / z)), rtol=1e-4)


def test_other_rules_for_norms():
    net = network(NORMS["layer"])
    layers = dict(conv=rules.Gradient(), dense=rules.Gradient(), pool=rules.Gradient())
    gradient = rules.Composite(**layers, activation=rules.Gradient(), norm=rules.Gradient())
    # The derivative goes through the statistics too.
    expected = jaxai.saliency(net, IMAGES, 1)
    ours = jaxai.lrp(net, IMAGES, 1, composite=gradient)
    np.testing.assert_allclose(ours, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    # A rule of one's own sees the whole norm.
    seen = []

    @dataclass(frozen=True)
    class Watch(rules.Rule):
        def __call__(self, layer, relevance):
            seen.append((layer.input.shape, layer.output.shape, relevance.shape))
            held = layer.forward(2 * layer.input) - 2 * layer.output
            return layer.share(relevance) + 0 * held

    jaxai.lrp(net, IMAGES, 1, composite=rules.Composite(dense=rules.Epsilon(), norm=Watch()))
    assert seen == [((2, 4, 3, 8),) * 3]


def statistics_are_read_too(x):
    mean, deviation = x.mean(-1, keepdims=True), jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)
    return jnp.concatenate([mean, deviation], -1) @ WEIGHTS[:2]


OTHERS = {
    "a gate": lambda x: x * jax.nn.sigmoid(x.mean((1, 2), keepdims=True)),
    "a pool of roots": lambda x: x + jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-3),
    "mean and deviation": statistics_are_read_too,
    "a root of one value": lambda x: x * lax.rsqrt(jnp.square(x) + 1.0),
    "a layer in the statistics": lambda x: x * lax.rsqrt(jnp.square(x @ HEAD[:, :1]) + 1.0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_norm(name):
    found = rules.report(network(OTHERS[name]), IMAGES)
    assert "norm" not in found.operations


def test_values_before_a_norm_may_be_read_again():
    # The centred values are the norm's input then.
    def net(x):
        centred = x @ WEIGHTS - (x @ WEIGHTS).mean(-1, keepdims=True)
        deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-3)
        return (centred / deviation * SCALE + centred).mean((1, 2)) @ HEAD

    assert rules.report(net, IMAGES).operations["norm"] == 1
    ours = jaxai.lrp(net, IMAGES, 2, composite=EXACT, relevance="score", strict=True)
    np.testing.assert_allclose(ours.sum((1, 2, 3)) / net(IMAGES)[:, 2], 1, atol=1e-4)


def test_a_residual_beside_a_norm():
    def net(x):
        y = x @ WEIGHTS
        return (y + NORMS["layer"](y)).mean((1, 2)) @ HEAD

    assert rules.report(net, IMAGES).operations == {"dense": 2, "norm": 1, "pool": 1, "sum": 1}
    ours = jaxai.lrp(net, IMAGES, 2, composite=EXACT, relevance="score", strict=True)
    np.testing.assert_allclose(ours.sum((1, 2, 3)) / net(IMAGES)[:, 2], 1, atol=1e-4)
