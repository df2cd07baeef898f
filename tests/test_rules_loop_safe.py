"""Loop-safe convolutions: the same values and gradients, and canonical convolutions in compiled loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.tree_util import Partial

import jaxai
from jaxai.rules import loop_safe

CASES = {
    "plain": dict(window_strides=(1, 1), padding="SAME"),
    "strided": dict(window_strides=(2, 3), padding="SAME"),
    "dilated": dict(window_strides=(2, 1), padding=((0, 2), (3, 1)), rhs_dilation=(2, 1)),
    "transposed": dict(window_strides=(1, 1), padding=((2, 2), (1, 1)), lhs_dilation=(2, 3)),
    "grouped": dict(window_strides=(2, 2), padding="VALID", feature_group_count=2),
    "depthwise": dict(window_strides=(2, 1), padding="SAME", feature_group_count=4, rhs_dilation=(1, 2)),
    "multiplied": dict(window_strides=(1, 2), padding="SAME", feature_group_count=4, rhs_dilation=(1, 2)),
    "cropped": dict(window_strides=(2, 2), padding=((-1, 0), (0, -1))),
}
LAYOUTS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("NHWC", "OIHW", "NCHW")]


@pytest.mark.sampled
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_values_and_gradients_are_the_same(case, layout):
    settings = CASES[case]
    groups = settings.get("feature_group_count", 1)
    rng = np.random.default_rng(0)
    sizes, kernel = (
        dict(N=2, H=9, W=11, C=4),
        dict(H=3, W=4, I=4 // groups, O=4 if case == "depthwise" else 8),
    )
    x = jnp.asarray(rng.normal(size=[sizes[axis] for axis in layout[0]]), jnp.float32)
    k = jnp.asarray(rng.normal(size=[kernel[axis] for axis in layout[1]]), jnp.float32)

    def conv(x, k):
        return lax.conv_general_dilated(x, k, dimension_numbers=layout, **settings)

    @jax.jit
    def both(g):
        plain, pullback = jax.vjp(conv, x, k)
        safe, safe_pullback = jax.vjp(loop_safe(conv), x, k)
        return (plain, *pullback(g)), (safe, *safe_pullback(g))

    plain, safe = both(jnp.asarray(rng.normal(size=jax.eval_shape(conv, x, k).shape), jnp.float32))
    for a, b in zip(plain, safe, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_of_other_ranks(rank):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, *(5,) * rank)), jnp.float32)
    k = jnp.asarray(rng.normal(size=(4, 3, *(2,) * rank)), jnp.float32)

    def energy(x, conv):
        return (conv(x) ** 2).sum()

    def conv(x):
        return lax.conv(x, k, (2,) * rank, "SAME")

    np.testing.assert_allclose(
        jax.grad(energy)(x, loop_safe(conv)), jax.grad(energy)(x, conv), rtol=1e-4, atol=1e-4
    )


class Stock(nnx.Module):
    """A network of somebody else's layers."""

    def __init__(self, rngs):
        self.one = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.two = nnx.Conv(8, 12, (3, 3), strides=2, rngs=rngs)
        self.depthwise = nnx.Conv(12, 12, (3, 3), feature_group_count=12, rngs=rngs)
        self.out = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.one(x)), (2, 2), strides=(2, 2))
        return self.out(nnx.relu(self.depthwise(nnx.relu(self.two(x)))).mean((1, 2)))


def ascend(model, x):
    def step(x, _):
        return x + 0.1 * jax.grad(lambda x: model(x)[:, 0].sum())(x), None

    return lax.scan(step, x, None, length=4)[0]


def convolutions_in_loops(text):
    """Return the layouts of the convolutions outside the entry computation."""
    entry = re.search(r"^ENTRY.*?^}", text, re.S | re.M).group()
    lines = [line for line in text.replace(entry, "").splitlines() if "dim_labels=" in line]
    return {
        re.search(r"dim_labels=([^,\s]+)", line).group(1) + " rhs_reversal" * ("rhs_reversal" in line)
        for line in lines
    }


@pytest.mark.slow
def test_stock_convolutions_are_canonical_inside_a_compiled_loop():
    model, x = Stock(nnx.Rngs(0)), jnp.ones((2, 16, 16, 3)) / 3
    found = {}
    for name, net in {"stock": model, "safe": loop_safe(model)}.items():
        compiled = jax.jit(ascend).lower(net, x).compile()
        found[name] = convolutions_in_loops(compiled.as_text()), compiled(net, x)
    assert found["stock"][0] - {"b01f_01io->b01f"}, "the stock gradient is canonical: nothing to do"
    assert found["safe"][0] == {"b01f_01io->b01f"}
    np.testing.assert_allclose(found["stock"][1], found["safe"][1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_loops_branches_and_second_derivatives():
    k = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2, 2)) * 0.3, jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 5, 5, 2)), jnp.float32)

    def conv(x):
        return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def deep(x):
        x, _ = lax.scan(lambda x, _: (jnp.tanh(conv(x)), None), x, None, length=2)
        x = lax.cond(x.sum() > 0, conv, lambda x: 2 * conv(x), x)
        return jax.checkpoint(lambda x: conv(x) ** 2)(x).sum()

    np.testing.assert_allclose(loop_safe(deep)(x), deep(x), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(loop_safe(deep))(x), jax.grad(deep)(x), rtol=1e-4, atol=1e-4)

    def slope(f):
        return jax.grad(lambda x: (jax.grad(f)(x) ** 2).sum())(x)

    np.testing.assert_allclose(slope(loop_safe(deep)), slope(deep), rtol=1e-3, atol=1e-3)
    # A while loop, and a function that holds gradients already.
    looped = loop_safe(lambda x: lax.fori_loop(0, 3, lambda _, x: x + 0.1 * jax.grad(deep)(x), x))
    expected = lax.fori_loop(0, 3, lambda _, x: x + 0.1 * jax.grad(deep)(x), x)
    np.testing.assert_allclose(looped(x), expected, rtol=1e-4, atol=1e-5)


def test_methods_take_loop_safe_models():
    model = jaxai.chain(
        {
            "one": Partial(lambda k, x: jax.nn.relu(lax.conv(x.transpose(0, 3, 1, 2), k, (1, 1), "SAME")
                                                    .transpose(0, 2, 3, 1)), jnp.ones((4, 3, 3, 3)) / 9),
            "logits": lambda x: x.mean((1, 2)),
        }
    )  # fmt: skip
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 5, 3)), jnp.float32)
    safe = loop_safe(model)
    np.testing.assert_allclose(jaxai.saliency(safe, x, 1), jaxai.saliency(model, x, 1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        jaxai.grad_cam(safe, x, 1, layer="one"),
        jaxai.grad_cam(model, x, 1, layer="one"),
        rtol=1e-5,
        atol=1e-7,
    )


def _matrix_comes_first(fn, rows, kernel):
    # With the matrix on the right jaxlib 0.10 takes twelve times as long for VGG's first dense layer.
    program = jax.jit(fn).lower(rows, kernel).compile().as_text()
    shape = f"{kernel.shape[0]},{rows.shape[0]}"
    return re.search(rf"f32\[{shape}\]\S* (dot|custom-call|fusion)\(", program) is not None


def test_dense_layers_have_their_matrix_on_the_left_in_the_gradient():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((5, 640), (640, 320)))
    rewritten = loop_safe(Partial(lambda k, x: x @ k, kernel))
    np.testing.assert_allclose(rewritten(x), x @ kernel, rtol=1e-5, atol=1e-5)
    assert _matrix_comes_first(
        lambda x, k: jax.grad(lambda x: (loop_safe(jnp.matmul)(x, k) ** 2).sum())(x), x, kernel
    )
    images = x.reshape(5, 8, 8, 10)

    def relevance(x, k):
        return jaxai.lrp(Partial(lambda k, x: x.reshape(len(x), -1) @ k, k), x.reshape(images.shape), 0)

    assert _matrix_comes_first(relevance, x, kernel)


@pytest.mark.sampled
@pytest.mark.parametrize("shape", [(1, 6), (5, 6), (2, 3, 6)], ids=str)
def test_gradients_of_dense_layers_are_the_same(shape):
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=(6, 4)))
    direction = jnp.asarray(rng.normal(size=(*shape[:-1], 4)))
    plain, pullback = jax.vjp(jnp.matmul, x, kernel)
    safe, safe_pullback = jax.vjp(loop_safe(jnp.matmul), x, kernel)
    for a, b in zip((plain, *pullback(direction)), (safe, *safe_pullback(direction)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    directions = jnp.stack([direction, 2 * direction])
    many = jax.vmap(lambda d: safe_pullback(d)[0])(directions)
    np.testing.assert_allclose(many[1], 2 * pullback(direction)[0], rtol=1e-5, atol=1e-5)
    # A second derivative goes through the gradient's own products.
    energy = [lambda x, fn=fn: (fn(x, kernel) ** 3).sum() for fn in (jnp.matmul, loop_safe(jnp.matmul))]
    second = [jax.grad(lambda x, f=f: (jax.grad(f)(x) ** 2).sum())(x) for f in energy]
    np.testing.assert_allclose(*second, rtol=1e-4, atol=1e-3)


def test_other_products_stay_as_they_are():
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(2, 3, 4))), jnp.asarray(rng.normal(size=(2, 5, 4)))

    def attention(a, b):
        return jnp.einsum("bqc,bkc->bqk", a, b) @ b + jnp.arange(4) @ jnp.ones((4, 4), int)

    for argnum in (0, 1):
        safe, plain = (
            jax.grad(lambda *xs, f=f: (f(*xs) ** 2).sum(), argnum)(a, b)
            for f in (loop_safe(attention), attention)
        )
        np.testing.assert_allclose(safe, plain, rtol=1e-5, atol=1e-5)
