"""Models as the methods take them: callable pytrees, and what they return, known without running them."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial


def as_model(model: Any) -> Any:
    """Return `model` as a callable pytree; a plain function is wrapped in `Partial`.

    Raises:
        TypeError: If `model` cannot be called.
    """
    if not callable(model):
        raise TypeError(f"`model` must be callable, model(images) -> scores; got {type(model).__name__}")
    return Partial(model) if jax.tree_util.all_leaves([model]) else model


@jax.jit
def call(model: Any, images: jax.Array) -> Any:
    """Return `model(images)`, compiled once for each model structure and shape."""
    return model(images)


def output_shapes(model: Any, images: jax.Array) -> Any:
    """Return what `model(images)` returns as shapes and types (traced once for each model and shape)."""
    return _output_shapes(*abstract(model, images))


def abstract(model: Any, images: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    """Return the structure of a call and the shapes and types of its arrays: together a key for caches."""
    leaves, structure = jax.tree.flatten((model, images))
    return structure, tuple(map(_shape_and_type, leaves))


def concrete(structure: Any, leaves: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the model and the images of `abstract`, with shapes in the place of arrays."""
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


def _shape_and_type(leaf):
    if isinstance(leaf, jax.Array):
        return leaf.shape, leaf.dtype
    return np.shape(leaf), jnp.result_type(leaf)


@lru_cache(maxsize=64)
def _output_shapes(structure, leaves):
    # JAX would look this up as well, but takes milliseconds for it.
    return call.eval_shape(*concrete(structure, leaves))


def scores_shape(model: Any, images: jax.Array) -> tuple[int, ...]:
    """Return the shape of the scores `model(images)` without running it.

    Raises:
        TypeError: If the model does not return one array.
    """
    return one_array(output_shapes(model, images)).shape


def one_array(outputs: Any) -> Any:
    """Return a model's outputs if they are one array.

    Raises:
        TypeError: If they are a dict, a tuple or anything else: only a callable target can choose from it.
    """
    if hasattr(outputs, "shape"):
        return outputs
    raise TypeError(f"`model` returns {kind(outputs)}: pass a callable target, outputs -> float[batch]")


def kind(outputs: Any) -> str:
    """Return in words what outputs are that are not one array."""
    if isinstance(outputs, Mapping):
        return f"a dict with keys {', '.join(map(repr, outputs))}"
    name = f"a {type(outputs).__name__}"
    return f"{name} of {len(outputs)}" if isinstance(outputs, (tuple, list)) else name
