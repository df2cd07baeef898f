"""Models of other libraries, recognised by their classes without importing those libraries."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import jax


def _library(value: Any, name: str) -> bool:
    return any(base.__module__.startswith(name) for base in type(value).__mro__)


# Flax NNX


def nnx_is_loaded() -> bool:
    """Return whether Flax NNX has been imported."""
    return "flax.nnx" in sys.modules


def is_nnx(value: Any) -> bool:
    """Return whether this is a Flax NNX module."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Module)


def rebuilt(tree: Any) -> Any:
    """Return a copy whose NNX modules belong to the current trace, so that calls may change them."""
    return jax.tree.map(lambda leaf: leaf, tree)


class TrainingMode(ValueError):
    """A model is in training mode."""


@contextmanager
def checked(called: Any) -> Iterator[Any]:
    """Raise if a call showed that NNX modules are in training mode.

    Args:
        called: Copies of modules that were called, anywhere in a pytree.

    Raises:
        TrainingMode: If batch statistics were updated or dropout drew random numbers.
    """
    modules = [node for node in jax.tree.leaves(called, is_leaf=is_nnx) if is_nnx(node)]
    before = [_training_state(module) for module in modules]
    yield called
    for module, state in zip(modules, before, strict=True):
        after = _training_state(module)
        for (path, what), value in state.items():
            if after.get((path, what), value) is not value:
                name = ".".join(map(str, path)) or type(module).__name__
                raise TrainingMode(
                    f"`model` is in training mode, so that {what} (its layer {name!r}):"
                    " call model.eval() first"
                )


_BATCH = "an image's scores change with its batch"
_CHANCE = "its scores change from call to call"


def _training_state(module: Any) -> dict[tuple[tuple, str], Any]:
    """Return the state that only training changes: running statistics and the counters of dropout."""
    nnx = sys.modules["flax.nnx"]
    found = {}
    for path, part in nnx.iter_modules(module):
        for value in vars(part).values():
            if isinstance(value, nnx.BatchStat):
                found[path, _BATCH] = jax.tree.leaves(value)[0]
        count = getattr(getattr(part, "rngs", None), "count", None)
        if hasattr(part, "deterministic") and isinstance(count, nnx.Variable):
            found[path, _CHANCE] = jax.tree.leaves(count)[0]
    return found


# Keras, Flax Linen, Equinox, Haiku


def live(model: Any) -> "KerasCall | None":
    """Return a model whose weights may change as a function of these weights; None for other models.

    Raises:
        TypeError: If the model lacks what is needed to call it.
    """
    if not (_library(model, "keras.") and hasattr(model, "stateless_call")):
        return None
    backend = sys.modules["keras"].backend.backend()
    if backend != "jax":
        raise TypeError(
            f"a Keras model must run on JAX; the backend is {backend!r}: set KERAS_BACKEND=jax before"
            " keras is imported"
        )
    if not model.built:
        raise TypeError("the Keras model has no weights yet: call it once on images")
    return KerasCall(model)


def function_of(model: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Return a model bound to its weights as a function of them, `function(*weights, images)`.

    Raises:
        TypeError: If the model lacks what is needed to call it.
    """
    if is_linen(model):
        if model.scope is None:
            raise TypeError(
                f"the Flax Linen module {type(model).__name__} has no parameters: pass"
                " jax.tree_util.Partial(model.apply, variables), or model.bind(variables)"
            )
        module, variables = model.unbind()
        return module.apply, (variables,)
    return None


class KerasCall:
    """A Keras model as a pure function of its variables; instances for the same model are equal."""

    def __init__(self, model: Any):
        self.model = model

    def weights(self) -> tuple[list[Any], list[Any]]:
        """Return the current weights: the trainable ones and the others."""
        groups = self.model.trainable_variables, self.model.non_trainable_variables
        return tuple([variable.value for variable in group] for group in groups)  # type: ignore[return-value]

    def __call__(self, trainable: Any, fixed: Any, images: jax.Array) -> Any:
        """Return the outputs in inference mode."""
        return self.model.stateless_call(trainable, fixed, images, training=False)[0]


def is_linen(value: Any) -> bool:
    """Return whether this is a Flax Linen module."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(value, linen.Module)


def equinox_is_loaded() -> bool:
    """Return whether Equinox has been imported."""
    return "equinox" in sys.modules


def is_equinox(value: Any) -> bool:
    """Return whether this is an Equinox module."""
    equinox = sys.modules.get("equinox")
    return equinox is not None and isinstance(value, equinox.Module)


def advice(value: Any) -> str:
    """Return advice for an object that cannot be called, or an empty string."""
    if callable(getattr(value, "apply", None)) and callable(getattr(value, "init", None)):
        return ": pass jax.tree_util.Partial(lambda params, x: model.apply(params, None, x), params)"
    return ""


def parts(value: Any) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Return what identifies a library's object and what of it may change, or None if nothing is known.

    The attributes of these objects do not determine what they compute, or change with every copy.
    """
    if isinstance(value, KerasCall):
        return (value.model,), []
    if _library(value, "keras."):
        if hasattr(value, "variables"):
            return (value,), [variable.value for variable in value.variables]
        return ((), [value.value]) if hasattr(value, "assign") and hasattr(value, "value") else None
    if is_linen(value):
        settings = [getattr(value, f.name, None) for f in fields(value) if f.name not in ("parent", "name")]
        return (), [*settings, None if value.scope is None else dict(value.variables)]
    return None
