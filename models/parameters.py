"""A model's parameters as a flat dictionary, `<layer>.<parameter>` to array, and back."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .._frame.model import Layered, Rebuilt

Make = Callable[..., nnx.Module]


# Loading a network needs it twice: to check the file, and to build the model.
@lru_cache(maxsize=4)
def abstract(make: Make) -> Any:
    """Return the model that `make(rngs=...)` builds with shapes in place of arrays, at no cost."""
    return nnx.eval_shape(lambda: make(rngs=_OneKey()))


class _OneKey:
    """Randomness for networks whose numbers do not matter: `nnx.Rngs` takes most of the time of tracing."""

    def __init__(self):
        self.key = jax.random.key(0)

    def params(self) -> jax.Array:
        return self.key


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter by its key; takes an abstract model too."""
    return {key: tuple(leaf.shape) for key, leaf in _leaves(model).items()}


def largest_source(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many bytes a file may have that holds parameters of these shapes.

    That is room for float64, three times over since a checkpoint may hold the state of an optimizer, and for
    unused parts, such as a small classifier.
    """
    return (64 << 20) + 24 * sum(math.prod(shape) for shape in shapes.values())


def flat(model: nnx.Module) -> dict[str, jax.Array]:
    """Return a model's parameters by key."""
    return _leaves(model)


def named(model: Any) -> dict[str, Any]:
    """Return the parameters of a model of any library by key."""
    while isinstance(model, Layered | Rebuilt):
        model = model.model if isinstance(model, Layered) else model.module
    if isinstance(model, nnx.Module):
        return flat(model)
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    keys = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    known = {key: leaf for key, (_, leaf) in zip(keys, leaves, strict=True) if hasattr(leaf, "dtype")}
    return {key: leaf for key, leaf in known.items() if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)}


def check(expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]) -> None:
    """Check that arrays fill a model's parameters, all of them and nothing else.

    Raises:
        ValueError: Naming the keys that are missing, left over, or of another shape, and arrays that hold
            NaN or infinite numbers.
    """
    missing, unused = expected.keys() - arrays.keys(), arrays.keys() - expected.keys()
    wrong = [
        f"{key} is {tuple(arrays[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in arrays and tuple(arrays[key].shape) != shape
    ]
    problems = []
    if missing:
        problems.append(f"no array for {_some(sorted(missing))}")
    if unused:
        problems.append(f"no parameter for {_some(sorted(unused))}")
    if wrong:
        problems.append(_some(wrong))
    if problems:
        raise ValueError("; ".join(problems))
    broken = [key for key in expected if not np.isfinite(arrays[key]).all()]
    if broken:
        raise ValueError(f"NaN or infinite numbers in {_some(broken)}")


def build(make: Make, arrays: Mapping[str, np.ndarray], *, dtype: Any = None) -> nnx.Module:
    """Build a model from its parameters without spending time on random ones.

    Args:
        make: Builds the model from `rngs`.
        arrays: The parameters by key.
        dtype: What they are cast to; None keeps their own.

    Returns:
        The model, with arrays on the default device.

    Raises:
        ValueError: If the arrays are not exactly the model's parameters.
    """
    model = abstract(make)
    check(shapes(model), arrays)
    graph, state = nnx.split(model)
    paths = {".".join(map(str, path)): path for path, _ in nnx.to_flat_state(state)}
    kinds = {key: arrays[key].dtype if dtype is None else jnp.dtype(dtype) for key in paths}
    # All at once: one by one, each shape compiles a program.
    placed = jax.device_put({key: np.asarray(arrays[key], kind) for key, kind in kinds.items()})
    filled = {path: nnx.Param(placed[key]) for key, path in paths.items()}
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _leaves(model: Any) -> dict[str, Any]:
    flat_state = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in flat_state}


def _some(words: list[str], limit: int = 4) -> str:
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more
