"""The random numbers are JAX's own, for every kind of key and shape and wherever they are drawn."""

import jax
import numpy as np
import pytest

from jaxai._cpu import threefry
from jaxai._frame import noisy


@pytest.mark.sampled
@pytest.mark.parametrize("shape", [(5, 7, 3), (2,), (1,), (), (0, 3), (64, 64, 3)])
def test_numbers_are_those_of_jax(shape):
    key = jax.random.key(3)
    np.testing.assert_array_max_ulp(
        np.asarray(threefry.normal(key, shape)), np.asarray(jax.random.normal(key, shape)), maxulp=4
    )
    np.testing.assert_array_equal(
        threefry.uniform(key, shape, -1, 1), jax.random.uniform(key, shape, minval=-1, maxval=1)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_noise_of_narrow_types_is_that_of_float32_rounded(dtype):
    images, key = np.zeros((1, 8, 8, 3)), jax.random.key(1)
    wide, narrow = (
        noisy.copies(jax.numpy.asarray(images, kind), jax.numpy.ones((1, 1, 1, 1), kind), key, np.arange(2))
        for kind in ("float32", dtype)
    )
    assert narrow.dtype == dtype
    np.testing.assert_array_equal(narrow, wide.astype(dtype))


@pytest.mark.parametrize("implementation", ["rbg", "threefry2x32"])
def test_numbers_are_those_of_jax_for_each_kind_of_key(implementation):
    key = jax.random.key(2, impl=implementation)
    np.testing.assert_array_equal(threefry.uniform(key, (9, 2)), jax.random.uniform(key, (9, 2)))


def test_numbers_follow_the_older_order_where_that_is_configured():
    key = jax.random.key(2)
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(threefry.uniform(key, (9, 2)), jax.random.uniform(key, (9, 2)))


def test_bits_are_those_of_jax():
    key = jax.random.key(3)
    np.testing.assert_array_equal(threefry.bits(key, (7, 3)), jax.random.bits(key, (7, 3)))


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_loop_or_the_batch():
    keys = jax.random.split(jax.random.key(0), 3)
    expected = np.stack([threefry.uniform(k, (6, 5)) for k in keys])
    np.testing.assert_array_equal(jax.vmap(lambda k: threefry.uniform(k, (6, 5)))(keys), expected)
    np.testing.assert_array_equal(jax.lax.map(lambda k: threefry.uniform(k, (6, 5)), keys), expected)
    np.testing.assert_array_equal(jax.jit(threefry.uniform, static_argnums=1)(keys[1], (6, 5)), expected[1])


def test_numbers_of_another_seed_are_others():
    first, second = (threefry.normal(jax.random.key(seed), (100, 100)) for seed in (0, 1))
    assert abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]) < 0.05
    assert abs(float(first.mean())) < 0.05 and abs(float(first.std()) - 1) < 0.05


def test_the_rounds_are_written_out_on_the_cpu():
    # JAX's own generator is one operation, which the CPU compiles as a loop over the rounds.
    program = str(jax.make_jaxpr(lambda key: threefry.normal(key, (8, 8)))(jax.random.key(0)))
    assert ("random_bits" in program) == (jax.default_backend() != "cpu")
