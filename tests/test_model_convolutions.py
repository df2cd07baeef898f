"""The ports' convolutions against plain JAX: values, gradients, kernels that learn, canonical in loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxai._cpu.conv import Settings as ConvSettings
from jaxai._cpu.conv import _plain, convolve
from jaxai.models.layers import Conv, DepthwiseConv, conv, depthwise_conv, max_pool

RNG = np.random.default_rng(0)
CASES = [
    ((9, 7), (3, 3), (1, 1), ((1, 1), (1, 1))),
    ((9, 7), (3, 3), (2, 2), ((0, 1), (1, 1))),
    ((8, 11), (5, 5), (2, 2), ((1, 2), (2, 2))),
    ((6, 6), (1, 1), (1, 1), ((0, 0), (0, 0))),
    ((7, 8), (3, 2), (2, 1), ((0, 0), (1, 0))),
    ((5, 5), (3, 3), (3, 3), ((0, 0), (0, 0))),
    # Fewer positions than the window has taps.
    ((2, 2), (3, 3), (1, 1), ((1, 1), (1, 1))),
    ((1, 2), (3, 5), (2, 1), ((1, 1), (2, 2))),
    ((2, 7), (3, 3), (1, 2), ((2, -1), (0, 1))),
]


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def reference(x, kernel, strides, padding, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision="highest",
    )


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("sizes", "window", "strides", "groups"),
    [
        ((11,), (4,), (3,), 1),
        ((11,), (3,), (2,), 4),
        ((5, 6, 7), (3, 2, 3), (2, 1, 3), 1),
        ((5, 6, 4), (2, 3, 3), (2, 2, 1), 4),
    ],
)
def test_strided_gradients_of_signals_and_volumes(sizes, window, strides, groups):
    padding = tuple((1, 0) for _ in sizes)
    settings = ConvSettings(strides, padding, (1,) * len(sizes), groups)
    x, kernel = normal(2, *sizes, 4), normal(*window, 4 // groups, 4)
    axes = "HWD"[: len(sizes)]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")

    def stock(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=numbers, feature_group_count=groups
        )

    y, pullback = jax.vjp(lambda x, k: convolve(x, k, settings), x, kernel)
    expected, stock_pullback = jax.vjp(stock, x, kernel)
    g = normal(*y.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for found, right in zip(pullback(g), stock_pullback(g), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)


def test_a_wider_result_has_a_gradient():
    # Half-precision operands may be summed into a float32 result, whose cotangent is float32.
    settings = ConvSettings((2, 2), ((1, 1), (1, 1)), (1, 1), dtype=jnp.dtype("float32"))
    x, kernel = normal(1, 6, 6, 3).astype("bfloat16"), normal(3, 3, 3, 5).astype("bfloat16")
    y, pullback = jax.vjp(lambda x, k: convolve(x, k, settings), x, kernel)
    assert y.dtype == jnp.float32
    dx, _ = pullback(jnp.ones_like(y))
    wide = settings._replace(dtype=None)
    right = jax.grad(lambda x: convolve(x, kernel.astype("float32"), wide).sum())(x.astype("float32"))
    assert dx.dtype == jnp.bfloat16
    np.testing.assert_allclose(dx.astype("float32"), right, rtol=1e-2, atol=1e-2)


@pytest.mark.sampled
@pytest.mark.parametrize("size, window, strides, padding", CASES)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_and_their_gradients(size, window, strides, padding, depthwise):
    x = normal(2, *size, 4)
    kernel = normal(*window, 1, 4) if depthwise else normal(*window, 4, 5)
    layer, groups = (depthwise_conv, 4) if depthwise else (conv, 1)

    def ours(x, kernel):
        return layer(x, kernel, strides=strides, padding=padding)

    def plain(x, kernel):
        return reference(x, kernel, strides, padding, groups)

    y, pullback = jax.vjp(ours, x, kernel)
    expected, reference_pullback = jax.vjp(plain, x, kernel)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    cotangent = normal(*y.shape)
    for found, wanted in zip(pullback(cotangent), reference_pullback(cotangent), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.slow
def test_second_derivatives():
    """The gradient of a gradient, as an attribution loss needs it, by reverse over reverse."""
    x, kernel = normal(1, 6, 7, 3), normal(3, 3, 3, 4)

    def energy(layer):
        def value(x, kernel):
            grads = jax.grad(lambda x: jnp.sum(layer(x, kernel) ** 3))(x)
            return jnp.sum(grads**2)

        return jax.grad(value, argnums=(0, 1))(x, kernel)

    ours = energy(lambda x, k: conv(x, k, strides=(2, 2), padding=((1, 1), (0, 1))))
    plain = energy(lambda x, k: reference(x, k, (2, 2), ((1, 1), (0, 1))))
    for found, wanted in zip(ours, plain, strict=True):
        scale = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-4)


def test_vmap_over_images_and_kernels():
    x, kernels = normal(3, 2, 6, 6, 2), normal(3, 3, 3, 2, 4)
    mapped = jax.vmap(lambda x, k: conv(x, k, padding=((1, 1), (1, 1))))(x, kernels)
    for index in range(3):
        expected = reference(x[index], kernels[index], (1, 1), ((1, 1), (1, 1)))
        np.testing.assert_allclose(mapped[index], expected, atol=1e-4)


@pytest.mark.parametrize(
    "wrapped",
    [lambda f: f, "scan", *(pytest.param(one, marks=pytest.mark.slow) for one in (jax.jit, jax.checkpoint))],
)
def test_kernels_learn_wherever_they_are_used(wrapped):
    settings, x, kernel = (
        ConvSettings((1, 1), ((1, 1), (1, 1)), (1, 1), 4),
        normal(2, 6, 6, 4),
        normal(3, 3, 1, 4),
    )

    def twice(run):
        return lambda x, kernel: run(jnp.tanh(run(x, kernel, settings)), kernel, settings)

    def scanned(run):
        def made(x, kernel):
            def step(x, _):
                return jnp.tanh(run(x, kernel, settings)), None

            return run(lax.scan(step, x, None, length=2)[0], kernel, settings)

        return made

    def gradients(run, of=(0, 1)):
        made = scanned(run) if wrapped == "scan" else wrapped(twice(run))
        return jax.grad(lambda x, k: jnp.square(made(x, k)).sum(), of)(x, kernel)

    by_both = gradients(convolve)
    for found, right in zip(by_both, gradients(_plain), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5 * np.abs(right).max())
    for argument in (0, 1):
        np.testing.assert_array_equal(gradients(convolve, argument), by_both[argument])


def test_gradients_by_images_trace_nothing_of_kernels():
    settings, x, kernel = (
        ConvSettings((1, 1), ((2, 2), (2, 2)), (1, 1), 4),
        normal(1, 6, 6, 4),
        normal(5, 5, 1, 4),
    )

    def size(of):
        def score(x, kernel):
            return convolve(x, kernel, settings).sum()

        return len(str(jax.make_jaxpr(jax.grad(score, of))(x, kernel)).splitlines())

    assert size(0) < size((0, 1)) - 50


def loop_bodies(text):
    """Return the computations of compiled HLO that run inside a loop."""
    computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S))
    found, queue = {}, re.findall(r"body=%?([\w.\-]+)", text)
    while queue:
        name = queue.pop()
        if name in found or name not in computations:
            continue
        found[name] = computations[name]
        queue += re.findall(r"(?:calls|to_apply|body)=%?([\w.\-]+)", computations[name])
    return found


def test_convolutions_in_a_loop_are_canonical():
    """XLA runs a convolution of another layout naively in a loop, twenty times slower."""

    def small(layer):
        def model(x):
            x = jax.nn.relu(layer(x, kernels[0], (1, 1), ((1, 1), (1, 1))))
            return layer(x, kernels[1], (2, 2), ((0, 1), (1, 1))).sum((1, 2))

        def ascend(x):
            def step(x, _):
                return x + jax.grad(lambda x: model(x)[:, 0].sum())(x), None

            return lax.scan(step, x, length=3)[0]

        bodies = loop_bodies(jax.jit(ascend).lower(x).compile().as_text())
        return re.findall(r"convolution\(.*?dim_labels=(\S+?)[,\s]", "\n".join(bodies.values()))

    x, kernels = normal(2, 8, 9, 3), (normal(3, 3, 3, 4), normal(3, 3, 4, 5))
    ours = small(lambda x, k, s, p: conv(x, k, strides=s, padding=p))
    assert len(ours) >= 2 and set(ours) == {"b01f_01io->b01f"}
    # The test sees the difference: what JAX derives by itself is of another layout.
    assert set(small(reference)) != {"b01f_01io->b01f"}


@pytest.mark.slow
def test_a_loop_over_ported_modules_has_only_canonical_convolutions():
    rngs = nnx.Rngs(0)
    modules = [
        Conv(3, 4, stride=2, padding="same", rngs=rngs),
        DepthwiseConv(4, window=5, stride=2, rngs=rngs),
        Conv(4, 5, rngs=rngs),
    ]

    def ascend(modules, x):
        def energy(x):
            for module in modules:
                x = jax.nn.relu6(module(x))
            return (max_pool(x) ** 2).sum()

        def step(x, _):
            return x + jax.grad(energy)(x), None

        return lax.scan(step, x, length=2)[0]

    text = jax.jit(ascend).lower(modules, jnp.zeros((1, 16, 16, 3))).compile().as_text()
    labels = re.findall(r"convolution\(.*?dim_labels=(\S+?)[,\s]", "\n".join(loop_bodies(text).values()))
    assert len(labels) >= 3 and set(labels) == {"b01f_01io->b01f"}


def test_modules_pad_alike():
    rngs = nnx.Rngs(0)
    x = normal(1, 8, 8, 3)
    assert Conv(3, 4, stride=2, padding="same", rngs=rngs)(x).shape == (1, 4, 4, 4)
    layer = Conv(3, 4, rngs=rngs)
    layer.bias[...] = jnp.arange(4.0)
    expected = reference(x, layer.kernel[...], (1, 1), ((1, 1), (1, 1))) + jnp.arange(4.0)
    np.testing.assert_allclose(layer(x), expected, atol=1e-4)
