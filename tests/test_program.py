"""Graphs of functions, their one evaluator, and what two of its clients read off them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxai
from jaxai._program.affine import is_affine
from jaxai._program.graph import graph_of, trace
from jaxai._program.run import evaluate, exchanged, values
from jaxai.cam import _dense_head

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32)
ACTS = jnp.asarray(RNG.normal(size=(2, 4, 4, 6)), jnp.float32)
DENSE = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)


def names(graph):
    return [node.name for node in graph.nodes]


def test_scans_become_their_operations():
    """Slices and stacks of the loop are operations of JAX too, with parameters that can be read."""

    def looped(x):
        y, rows = lax.scan(lambda y, row: (y * row, jnp.sin(y)), jnp.ones(3), x)
        return y + rows.sum(0)

    graph, flat, _ = trace(looped, X)
    assert names(graph).count("mul") == names(graph).count("sin") == 2
    assert {"slice", "squeeze", "stack"} <= set(names(graph))
    np.testing.assert_allclose(evaluate(graph, flat)[0], looped(X), rtol=1e-6)


def test_scopes_are_kept_through_calls():
    @jax.jit
    def inner(x):
        with jax.named_scope("second"):
            return jnp.sin(x)

    def fn(x):
        with jax.named_scope("first"):
            return inner(x) + lax.scan(lambda c, _: (jnp.cos(c), None), x, None, length=1)[0]

    for structured in (False, True):
        graph, *_ = trace(fn, X, structured=structured)
        scopes = {node.name: [(p.kind, p.name) for p in node.scope] for node in graph.nodes}
        first = ("scope", "first")
        assert scopes["sin"] == [first, ("call", "inner"), ("scope", "second")] and scopes["add"] == [first]
        if structured:
            assert [p.name for p in graph.nodes[-2].bodies[0].nodes[-1].scope] == ["first"]
        else:
            assert scopes["cos"] == [first, ("step", "[0]")]


def test_numbers_are_followed_in_their_type():
    """A half that becomes an integer is zero."""
    graph, *_ = trace(lambda x: x + jnp.full(3, 0.5).astype(int).reshape(3), X)
    assert [graph.splat(ref) for ref in graph.nodes[-1].inputs if graph.splat(ref) is not None] == [0.0]


def test_evaluation_looks_on_changes_and_interprets():
    graph, flat, _ = trace(lambda w, x: jnp.tan(jnp.sin(x @ w)), jnp.ones((3, 2)), X)
    seen = []

    def look(node, operands):
        seen.append(node.name)
        return node.run(*operands)

    np.testing.assert_array_equal(evaluate(graph, flat, each=look)[0], jnp.tan(jnp.sin(X @ jnp.ones((3, 2)))))
    assert seen == ["dot_general", "sin", "tan"]
    # Depths instead of arrays.
    assert evaluate(graph, [0, 0], each=lambda node, depths: [1 + max(depths)]) == [3]
    # What is known is not computed again, and a part needs no more than what it reads.
    found = values(graph, flat)
    product = graph.nodes[0].outputs[0]
    assert evaluate(graph, flat, known={product: jnp.zeros((2, 2))})[0].any() == False  # noqa: E712
    part = graph.part([product], graph.outputs)
    assert names(part) == ["sin", "tan"]
    np.testing.assert_array_equal(evaluate(part, [found[product]])[0], found[graph.outputs[0]])


def test_operations_are_exchanged_in_loops_and_branches_too():
    def fn(x):
        y = lax.fori_loop(0, 2, lambda i, y: jnp.sin(y), x)
        y = lax.cond(x.sum() < 1e9, jax.checkpoint(jnp.sin), jnp.cos, y)
        return lax.while_loop(lambda y: y.sum() < -1e9, jnp.sin, jnp.sin(y))

    def doubled(graph):
        return {n.outputs[0]: (lambda x: 2 * x, n.inputs) for n in graph.nodes if n.name == "sin"}

    graph, flat, _ = trace(fn, X, structured=True)
    np.testing.assert_allclose(evaluate(exchanged(graph, doubled), flat)[0], 16 * X, rtol=1e-6)
    np.testing.assert_allclose(evaluate(graph, flat)[0], fn(X), rtol=1e-6)
    assert exchanged(graph, lambda graph: {}) is None


def test_effects_are_run():
    """Operations without results too."""
    said = []

    def fn(x):
        jax.debug.callback(lambda: said.append(1))
        return 2 * x

    graph, flat, _ = trace(fn, X)
    evaluate(graph, flat)
    jax.effects_barrier()
    assert said


APART = {
    "exact gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "gelu": jax.nn.gelu,
    "error function": lambda h: lax.erfc(h) + lax.expm1(h) + lax.log1p(h**2) + lax.erf(h),
    "copy": lambda h: lax.stop_gradient(jnp.floor(h)) + lax.reduce_precision(h, 8, 7),
    "softmax over positions": lambda h: jax.nn.softmax(h, (1, 2)),
    "sorted positions": lambda h: jnp.sort(h.reshape(2, 16, 6), 1)[:, -4:].reshape(2, 2, 2, 6),
    "depthwise": lambda h: lax.conv_general_dilated(
        h,
        jnp.ones((2, 2, 1, 6)),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    ),
    "pool": lambda h: jaxai.models.layers.max_pool(h),
}
TOGETHER = {
    "softmax over channels": jax.nn.softmax,
    "reversed channels": lambda h: h[..., ::-1],
    "shifted channels": lambda h: jnp.pad(h, ((0, 0),) * 3 + ((1, 0),))[..., :6],
    "channels summed up": lambda h: jnp.cumsum(h, -1),
    "over the batch": lambda h: h - h.mean(0),
    "convolution": lambda h: h @ jnp.ones((6, 6)),
}


@pytest.mark.parametrize("name", APART)
def test_heads_whose_channels_reach_a_dense_layer_apart(name):
    def head(acts):
        return APART[name](acts).mean((1, 2)) @ DENSE + 1

    dense = _dense_head.find(head, ACTS)
    assert dense is not None
    features = dense.before(ACTS)
    np.testing.assert_allclose(dense.after(features @ dense.kernel), head(ACTS), rtol=1e-5, atol=1e-5)
    change = features - dense.before(jnp.zeros_like(ACTS))
    rows = _dense_head.channel_rows(dense, change, jnp.arange(6))
    for channel in range(6):
        without = dense.after(features @ dense.kernel - rows[channel])
        np.testing.assert_allclose(without, head(ACTS.at[..., channel].set(0)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TOGETHER)
def test_heads_that_mix_channels_have_no_such_form(name):
    assert _dense_head.find(lambda h: TOGETHER[name](h).mean((1, 2)) @ DENSE, ACTS) is None


def test_what_follows_the_dense_layer():
    tails = {
        lambda y: y - 1: True,
        lambda y: (y + jnp.arange(5.0)).reshape(2, 5): True,
        lambda y: 1 - y: True,
        lambda y: y * y: False,
        lambda y: jax.nn.relu(y): False,
    }
    for tail, affine in tails.items():
        found = _dense_head.find(lambda h, tail=tail: tail(h.mean((1, 2)) @ DENSE), ACTS)
        assert found is not None
        product = jax.ShapeDtypeStruct((len(ACTS), DENSE.shape[1]), ACTS.dtype)
        assert is_affine(found.after, product) == affine
    # What bypasses the dense layer is no such head.
    assert _dense_head.find(lambda h: h.mean((1, 2)) @ DENSE + h[:, 0, 0, :5], ACTS) is None


def test_graphs_read_programs_of_any_depth():
    """Calls in calls, with constants that the inner ones close over."""
    shift = np.arange(3.0, dtype=np.float32)
    fn = jax.jit(lambda x: jax.jit(lambda y: jax.checkpoint(lambda z: z + shift)(2 * y))(x))
    graph = graph_of(jax.make_jaxpr(fn)(X))
    np.testing.assert_allclose(evaluate(graph, [X])[0], 2 * X + shift)
