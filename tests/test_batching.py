"""The one chunked map and its sum."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxai._frame import batching

XS = {"a": jnp.arange(7.0), "b": jnp.arange(14).reshape(7, 2)}


def doubled(xs):
    return {"sum": xs["a"] + xs["b"].sum(1), "twice": 2 * xs["b"]}


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 6, 7, 100])
def test_chunks_change_nothing(batch_size):
    found = batching.map_chunks(doubled, XS, batch_size=batch_size)
    jax.tree.map(np.testing.assert_array_equal, found, doubled(XS))


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 7, 100])
def test_sums_leave_padding_out(batch_size):
    def weighted(chunk, valid):
        return {"a": (chunk["a"] * valid).sum(), "count": valid.sum(), "b": valid @ chunk["b"]}

    found = batching.sum_chunks(weighted, XS, batch_size=batch_size)
    assert float(found["a"]) == 21 and float(found["count"]) == 7
    np.testing.assert_array_equal(found["b"], np.asarray(XS["b"]).sum(0))


def test_chunks_are_of_equal_size_and_no_larger_than_asked():
    sizes = []

    def record(x):
        sizes.append(x.shape[0])
        return x

    batching.map_chunks(record, jnp.arange(11), batch_size=4)
    # Eleven in chunks of at most four are three chunks, of four: one program.
    assert set(sizes) == {4}
    sizes.clear()
    batching.map_chunks(record, jnp.arange(11), batch_size=9)
    assert set(sizes) == {6}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 16, 128])
@pytest.mark.parametrize("count", [129, 130, 200, 1000])
def test_chunks_hold_everything_with_least_work(count, batch_size):
    chunks, size = batching.even_chunks(count, batch_size)
    assert chunks * size >= count > (chunks - 1) * size
    assert batch_size / 2 <= size <= batch_size
    for other in range(-(-batch_size // 2), batch_size + 1):
        assert chunks * (size + 1 / 3) <= -(-count // other) * (other + 1 / 3)


def test_chunks_are_smaller_where_that_saves_padding():
    assert batching.even_chunks(50, 8) == (10, 5)
    assert batching.even_chunks(10, 4) == (5, 2)
    assert batching.even_chunks(50, 4) == (13, 4)
    assert batching.even_chunks(4000, 8) == (500, 8)
    assert batching.even_chunks(7, 8) == (1, 7)


def test_one_chunk_has_no_loop():
    def program(batch_size):
        def run(x):
            return batching.map_chunks(jnp.sin, x, batch_size=batch_size)

        return str(jax.make_jaxpr(run)(jnp.ones(6)))

    assert "scan" not in program(6) and "scan" in program(5)


def test_the_count_may_be_given_where_no_array_tells():
    found = batching.map_chunks(lambda x: jnp.ones(3), None, batch_size=None, count=3)
    assert found.shape == (3,)


def images(side):
    return jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)


def test_chunk_size_as_asked():
    assert batching.chunk_size(3, abs, images(224)) == 3
    assert batching.chunk_size(3, abs, images(224), count=5) == 3
    assert batching.chunk_size(9, abs, images(224), count=5) == 5
    assert batching.chunk_size(9, abs, images(224), count=0) == 1


def test_chunk_size_by_the_size_of_the_images(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [batching.chunk_size(None, abs, images(side)) for side in (1024, 448, 224, 112, 32)] == [
        1,
        1,
        4,
        16,
        128,
    ]
    assert batching.chunk_size(None, abs, jax.ShapeDtypeStruct((2, 1000), jnp.float32)) == 128
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert batching.chunk_size(None, abs, images(224)) == 8


def test_chunk_size_by_the_size_of_the_network(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def network(parameters):
        return Partial(lambda w, x: x, jax.ShapeDtypeStruct((parameters,), jnp.float32))

    # EfficientNet-Lite0, ResNet-50, VGG16, ViT-Huge.
    sizes = [batching.chunk_size(None, network(int(n)), images(224)) for n in (5e6, 26e6, 138e6, 632e6)]
    assert sizes == [4, 4, 8, 38]
    assert batching.chunk_size(None, network(138_000_000), images(448)) == 2
    assert batching.chunk_size(3, network(138_000_000), images(224)) == 3

    # Inside a compiled function as well, where arrays are only known by their shapes.
    inside = jax.eval_shape(
        lambda model: jnp.zeros(batching.chunk_size(None, model, images(224))), network(138_000_000)
    )
    assert inside.shape == (8,)


def test_derivatives_pass_through():
    def total(x, batch_size):
        return batching.map_chunks(lambda c: c**3, x, batch_size=batch_size).sum()

    x = jnp.arange(5.0)
    np.testing.assert_allclose(jax.grad(total)(x, 2), 3 * x**2)
    np.testing.assert_allclose(
        jax.grad(lambda x: batching.sum_chunks(lambda c, v: (v * c**3).sum(), x, batch_size=2))(x), 3 * x**2
    )
