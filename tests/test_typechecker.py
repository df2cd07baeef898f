"""The checker of annotations finds wrong ones, and leaves the functions' own errors alone."""

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, TypeCheckError, jaxtyped
from typechecker import check


@jaxtyped(typechecker=check)
def transposed(x: Float[Array, "rows columns"], scale: float = 1.0) -> Float[Array, "columns rows"]:
    if not hasattr(x, "ndim"):
        raise TypeError("`x` must be an array")
    return scale * x.T


@jaxtyped(typechecker=check)
def not_transposed(x: Float[Array, "rows columns"]) -> Float[Array, "columns rows"]:
    return x


@jaxtyped(typechecker=check)
def flag(x: int) -> bool:
    return x


def test_true_annotations_pass():
    assert transposed(jnp.ones((2, 3))).shape == (3, 2)
    assert transposed(jnp.ones((2, 3)), 2).shape == (3, 2)  # An int is a float.


def test_wrong_arguments_that_are_taken_are_found():
    with pytest.raises(TypeCheckError, match="transposed"):
        transposed(jnp.ones((2, 3, 4)))
    with pytest.raises(TypeCheckError, match="transposed"):
        transposed(jnp.ones((2, 3)), jnp.ones(()))


def test_wrong_results_are_found():
    assert not_transposed(jnp.ones((3, 3))).shape == (3, 3)
    with pytest.raises(TypeCheckError, match="not_transposed"):
        not_transposed(jnp.ones((2, 3)))
    with pytest.raises(TypeCheckError, match="flag"):
        flag(1)


def test_the_functions_own_error_comes_first():
    with pytest.raises(TypeError, match="must be an array"):
        transposed("text")
