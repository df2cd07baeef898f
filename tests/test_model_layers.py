"""The ports' pools, activations and dense layers: values, gradients; the ports' names, shapes and types."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxai
from jaxai._cpu.dense import Settings, multiply
from jaxai._program.graph import graph_of
from jaxai.models.efficientnet import EfficientNetLite, round_width
from jaxai.models.layers import adaptive_average_pool, max_pool, relu6, same_padding
from jaxai.models.vgg import VGG

RNG = np.random.default_rng(0)


def dense(x, kernel, dtype):
    return multiply(x, kernel, Settings(dtype=jnp.dtype(dtype)))


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("size, window", [((6, 8), 2), ((7, 9), 2), ((9, 7), 3)])
def test_max_pool(size, window):
    x = normal(2, *size, 3)
    step = (1, window, window, 1)
    expected = lax.reduce_window(x, -jnp.inf, lax.max, step, step, "VALID")
    np.testing.assert_array_equal(max_pool(x, window=window), expected)
    cotangent = normal(*expected.shape)
    (found,) = jax.vjp(lambda x: max_pool(x, window=window), x)[1](cotangent)
    fitting = [n // window * window for n in size]
    blocks = np.asarray(x)[:, : fitting[0], : fitting[1]]
    wanted = np.zeros(x.shape, np.float32)
    for i in range(expected.shape[1]):
        for j in range(expected.shape[2]):
            part = blocks[:, i * window : (i + 1) * window, j * window : (j + 1) * window].reshape(2, -1, 3)
            winner = part.argmax(1)
            for n in range(2):
                for c in range(3):
                    row, column = divmod(winner[n, c], window)
                    wanted[n, i * window + row, j * window + column, c] = cotangent[n, i, j, c]
    np.testing.assert_array_equal(found, wanted)


def test_tied_values_send_their_gradient_to_the_first():
    x = jnp.array([[2.0, 2.0], [2.0, 1.0]])[None, ..., None]
    found = jax.grad(lambda x: max_pool(x).sum())(x)
    np.testing.assert_array_equal(found[0, ..., 0], [[1, 0], [0, 0]])
    x = jnp.array([[0.0, 3.0], [3.0, 3.0]])[None, ..., None]
    found = jax.grad(lambda x: max_pool(x).sum())(x)
    np.testing.assert_array_equal(found[0, ..., 0], [[0, 1], [0, 0]])


@pytest.mark.slow
def test_relu6_passes_the_gradient_strictly_between_its_bounds():
    """As PyTorch's does; its second derivative is nothing, and it may be mapped over images."""
    x = jnp.array([-1.0, 0.0, 1e-6, 3.0, 5.999, 6.0, 7.0])
    weights = jnp.arange(1.0, 8.0)

    def energy(x):
        return (weights * relu6(x)).sum()

    np.testing.assert_array_equal(relu6(x), jnp.clip(x, 0, 6))
    np.testing.assert_array_equal(jax.grad(energy)(x), weights * jnp.array([0, 0, 1, 1, 1, 0, 0]))
    np.testing.assert_array_equal(jax.vmap(jax.grad(energy))(x[None]), jax.grad(energy)(x)[None])
    np.testing.assert_array_equal(jax.grad(lambda x: (jax.grad(energy)(x) * weights).sum())(x), 0 * x)
    half = jax.grad(lambda x: relu6(x).astype(jnp.float32).sum())(x.astype(jnp.bfloat16))
    assert half.dtype == relu6(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(1, 64), (5, 64), (2, 3, 64)])
def test_dense_and_its_gradients(shape):
    x, kernel, direction = normal(*shape), normal(64, 10), normal(*shape[:-1], 10)
    y, pullback = jax.vjp(lambda x, k: dense(x, k, "float32"), x, kernel)
    np.testing.assert_allclose(y, np.asarray(x) @ np.asarray(kernel), rtol=1e-4, atol=1e-4)
    dx, dk = pullback(direction)
    rows, inputs = np.asarray(direction).reshape(-1, 10), np.asarray(x).reshape(-1, 64)
    np.testing.assert_allclose(dx, (rows @ np.asarray(kernel).T).reshape(shape), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dk, inputs.T @ rows, rtol=1e-4, atol=1e-4)
    each = jax.vmap(jax.grad(lambda row: (dense(row, kernel, "float32") ** 2).sum()))(x.reshape(-1, 64))
    np.testing.assert_allclose(each, 2 * (inputs @ kernel) @ kernel.T, rtol=1e-3, atol=1e-3)


def test_the_gradient_of_a_dense_layer_has_its_matrix_on_the_left():
    # With the matrix on the right jaxlib 0.10 takes twelve times as long for VGG's first one.
    gradient = jax.jit(jax.grad(lambda x, kernel: (dense(x, kernel, "float32") ** 2).sum()))
    program = gradient.lower(normal(5, 640), normal(640, 320)).compile().as_text()
    assert re.search(r"f32\[640,5\]\S* (dot|custom-call|fusion)\(", program)


def test_adaptive_average_pool_draws_windows_as_torch_does():
    x = normal(2, 10, 9, 3)
    found = adaptive_average_pool(x, 7)
    assert found.shape == (2, 7, 7, 3)
    for i in range(7):
        for j in range(7):
            rows = slice(i * 10 // 7, -(-(i + 1) * 10 // 7))
            columns = slice(j * 9 // 7, -(-(j + 1) * 9 // 7))
            np.testing.assert_allclose(found[:, i, j], x[:, rows, columns].mean((1, 2)), atol=1e-6)
    same = normal(1, 7, 7, 2)
    assert adaptive_average_pool(same, 7) is same


@pytest.mark.parametrize(
    "size, window, stride, expected",
    [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (7, 5, 1, (2, 2)), (112, 5, 2, (1, 2)), (4, 1, 2, (0, 0))],
)
def test_same_padding_is_tensorflows(size, window, stride, expected):
    assert same_padding(size, window, stride) == expected


@pytest.mark.slow
def test_efficientnet_names_and_shapes():
    network = nnx.eval_shape(lambda: EfficientNetLite(0, classes=5, rngs=nnx.Rngs(0)))
    assert network.layer_names == (
        *("stem", "block1a", "block2a", "block2b", "block3a", "block3b", "block4a", "block4b", "block4c"),
        *("block5a", "block5b", "block5c", "block6a", "block6b", "block6c", "block6d", "block7a"),
        *("conv_head", "pool", "logits"),
    )
    shapes = {"stem": (32, 48, 32), "block2b": (16, 24, 24), "conv_head": (2, 3, 1280), "pool": (1280,)}
    x = jnp.zeros((1, 64, 96, 3))
    for name, shape in shapes.items():
        assert jax.eval_shape(lambda m, x, n=name: m(x, stop=n), network, x).shape[1:] == shape
    with pytest.raises(ValueError, match="`variant` must be"):
        EfficientNetLite(5, rngs=nnx.Rngs(0))


def test_round_width():
    assert [round_width(w, f) for w, f in ((32, 1.0), (40, 1.1), (112, 1.2), (16, 1.4))] == [32, 48, 136, 24]


def test_vgg_names_and_shapes():
    network = nnx.eval_shape(lambda: VGG(16, classes=5, hidden=(16, 8), rngs=nnx.Rngs(0)))
    names = [f"conv{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    assert [n for n in network.layer_names if n.startswith("conv")] == names
    assert network.layer_names[-4:] == ("pool5", "fc6", "fc7", "logits")
    assert network.layer_names.index("pool1") == 2
    plain = nnx.eval_shape(lambda: VGG(11, classes=None, rngs=nnx.Rngs(0)))
    assert plain.layer_names[-1] == "pool5"
    with pytest.raises(ValueError, match="`depth` must be one of 11, 13, 16, 19; got 12"):
        VGG(12, rngs=nnx.Rngs(0))


def test_bfloat16_parameters_multiply_in_bfloat16_and_score_in_float32():
    """A product of bfloat16 to float32 is slow on the CPU, so the last layer alone makes one."""
    network = nnx.eval_shape(lambda: VGG(11, classes=5, hidden=(16, 8), rngs=nnx.Rngs(0)))
    half = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.bfloat16), network)
    closed = jax.make_jaxpr(lambda m, x: m(x))(half, jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32))
    graph = graph_of(closed)
    products = [node for node in graph.nodes if node.name == "dot_general"]
    assert {graph.avals[ref].dtype for node in products for ref in node.inputs} == {jnp.dtype(jnp.bfloat16)}
    types = [graph.avals[node.outputs[0]].dtype.name for node in products]
    assert types == ["bfloat16", "bfloat16", "float32"]
    assert closed.out_avals[0].dtype == jnp.float32


@pytest.mark.slow
def test_start_and_stop_of_a_port(lite0):
    network = lite0.model
    x = normal(1, 32, 64, 3)
    assert jaxai.layers.resolve(network, None, x) == "conv_head"
    run = nnx.jit(lambda m, x: (m(x), m(m(x, stop="block3a"), start="block3a")))
    whole, parts = run(network, x)
    np.testing.assert_allclose(parts, whole, atol=1e-4)
