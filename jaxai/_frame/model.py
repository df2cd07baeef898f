"""Models as callable pytrees, and the shapes of their outputs without running them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.tree_util import Partial, register_dataclass, register_pytree_node_class

from . import foreign
from .captured import Captured, capture


# Callable pytrees are compared by identity, so that `jax.jit(model)` can hash them whatever their contents.
@dataclass(frozen=True, eq=False)
class Layered:
    """A model around a `model` that `as_model` has made."""

    model: Any


@register_dataclass
@dataclass(frozen=True, eq=False)
class Function:
    """A function and its bound arrays, like `Partial`, compiled for the state that the function can see."""

    captured: Captured = field(metadata={"static": True})
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Return the function's value."""
        with foreign.checked(foreign.rebuilt((self.args, self.keywords))) as (bound, named):
            return self.captured.call(*bound, *args, **{**named, **keywords})


@register_dataclass
@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A Flax NNX module that is copied by every call, so that calls never change the user's module."""

    module: Any

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Return what the module returns.

        Raises:
            ValueError: If the module is in training mode.
        """
        with foreign.checked(foreign.rebuilt(self.module)) as module:
            return module(*args, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "module":
            raise AttributeError(name)
        return getattr(self.module, name)


@register_dataclass
@dataclass(frozen=True, eq=False)
class Parts:
    """A model some of whose leaves are not arrays (functions, strings, flags); these are static."""

    arrays: tuple[Any, ...]
    rest: Captured = field(metadata={"static": True})

    @property
    def model(self) -> Any:
        """The model."""
        structure, others = self.rest.value
        arrays = iter(self.arrays)
        return jax.tree.unflatten(structure, [next(arrays) if x is _ARRAY else x for x in others])

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Return what the model returns."""
        return self.model(*args, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("arrays", "rest", "model"):
            raise AttributeError(name)
        return getattr(self.model, name)


@register_pytree_node_class
class Live:
    """A model that holds its weights, as a pytree of its current weights."""

    def __init__(self, captured: Captured, weights: tuple[Any, ...] | None = None):
        self.captured, self.weights = captured, weights

    def __call__(self, images: jax.Array) -> Any:
        """Return what the model returns."""
        return self.captured.value(*self.tree_flatten()[0], images)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Captured]:
        """Return the weights (the model's own, or those given to this copy) and the model."""
        return self.captured.value.weights() if self.weights is None else self.weights, self.captured

    @classmethod
    def tree_unflatten(cls, captured: Captured, weights: tuple[Any, ...]) -> "Live":
        """Return a copy with these weights."""
        return cls(captured, weights)


# Placeholder for the arrays among the leaves of a model.
_ARRAY = "<array>"


def as_model(model: Any) -> Any:
    """Return a model of any library as a callable pytree whose leaves are arrays.

    Functions are compiled for the state that they can see: when the weights that they close over change, they
    count as different functions. Every call copies Flax NNX modules; Keras models and bound Linen modules
    become functions of their weights. Leaves that are not arrays become static.

    Raises:
        TypeError: If `model` cannot be called, or is a black box.
    """
    return flattened(model)[0]


def flattened(model: Any) -> tuple[Any, tuple[list[Any], Any] | None]:
    """Return `as_model(model)`, and its leaves and structure where they are known.

    Large modules take a millisecond to be flattened, which a call may not do more often than it must.
    """
    if hasattr(model, "outside_jax"):
        raise TypeError(model.outside_jax)
    if not callable(model):
        raise TypeError(
            f"`model` must be callable, model(images) -> scores; got {type(model).__name__}"
            f"{foreign.advice(model)}"
        )
    if jax.tree_util.all_leaves([model]):
        if (live := foreign.live(model)) is not None:
            return Live(capture(live)), None
        function, weights = foreign.function_of(model) or (model, ())
        return Function(capture(function), weights), None
    if isinstance(model, (Function, Rebuilt, Live)):
        return _renewed(model), None
    if isinstance(model, Parts):
        model = model.model
    if isinstance(model, Layered):
        return replace(model, model=as_model(model.model)), None
    leaves, structure = jax.tree.flatten(model, is_leaf=_special)
    if any(map(_special, leaves)):
        nodes, structure = jax.tree.flatten(model, is_leaf=_renewable)
        nodes = [_renewed(node) if _renewable(node) else node for node in nodes]
        model = jax.tree.unflatten(structure, nodes)
        leaves, structure = jax.tree.flatten(model)
        fixed = _fixed(model, leaves)
    else:
        fixed = list(map(_no_number, leaves))
    if not any(fixed):
        return model, (leaves, structure)
    others = [leaf if stays else _ARRAY for leaf, stays in zip(leaves, fixed, strict=True)]
    arrays = tuple(leaf for leaf, stays in zip(leaves, fixed, strict=True) if not stays)
    return Parts(arrays, capture((structure, others))), None


def _fixed(model: Any, leaves: list[Any]) -> list[bool]:
    """Return for each leaf of a model whether it is static.

    Numbers of Equinox modules are, at any depth: a pool's first value must be a constant for its derivative.
    """
    if not foreign.equinox_is_loaded():
        return list(map(_no_number, leaves))
    fixed = []
    for node in jax.tree.leaves(model, is_leaf=foreign.is_equinox):
        if foreign.is_equinox(node):
            fixed += map(_no_array, jax.tree.leaves(node))
        else:
            fixed.append(_no_number(node))
    return fixed


def unpacked(node: Any) -> Any:
    """Return the model that a node holds outside its children; None for other nodes."""
    return node.model if isinstance(node, Parts) else None


def _renewable(node):
    return isinstance(node, (Partial, Function, Rebuilt, Live)) or foreign.is_nnx(node)


def _special(node):
    return _renewable(node) or foreign.is_equinox(node)


def _renewed(node):
    if isinstance(node, (Rebuilt, Live)):
        return node
    if foreign.is_nnx(node):
        return Rebuilt(node)
    function = node.captured.value if isinstance(node, Function) else node.func
    return Function(capture(function), tuple(node.args), dict(node.keywords))


def _no_array(leaf):
    return not hasattr(leaf, "dtype")


def _no_number(leaf):
    return isinstance(leaf, bool) or not (hasattr(leaf, "dtype") or isinstance(leaf, (int, float, complex)))


@jax.jit
def call(model: Any, images: jax.Array) -> Any:
    """Return `model(images)`, compiled once per model structure and shape."""
    return model(images)


def output_shapes(model: Any, images: jax.Array | jax.ShapeDtypeStruct, flat: Any = None) -> Any:
    """Return the shapes and types of `model(images)`, traced once per model and shape.

    Args:
        model: A callable pytree.
        images: Images, or their shape.
        flat: What `flattened` returns beside the model.
    """
    return _output_shapes(*abstract(model, images, flat))


def program(structure: Any, leaves: tuple[Any, ...]) -> Any:
    """Return the closed jaxpr of `model(images)`, given as `abstract` returns them."""
    return call.trace(*concrete(structure, leaves)).jaxpr


def abstract(
    model: Any, images: jax.Array | jax.ShapeDtypeStruct, flat: Any = None
) -> tuple[Any, tuple[Any, ...]]:
    """Return the structure of a call and the shapes and types of its arrays, together a cache key."""
    leaves, of_model = flat or jax.tree.flatten(model)
    inputs, of_images = jax.tree.flatten(images)
    return jax.tree_util.treedef_tuple((of_model, of_images)), shapes_and_types([*leaves, *inputs])


def shapes_and_types(leaves: Sequence[Any]) -> tuple[Any, ...]:
    """Return the properties of arrays that compiled programs depend on."""
    return tuple(map(_shape_and_type, leaves))


def concrete(structure: Any, leaves: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the model and the images of `abstract`, with shapes in place of arrays."""
    found = [jax.ShapeDtypeStruct(shape, kind, sharding=sharding) for shape, kind, sharding in leaves]
    return jax.tree.unflatten(structure, found)


def _shape_and_type(leaf):
    aval = getattr(leaf, "aval", None)
    if aval is not None:
        sharding = aval.sharding
        # Types have a sharding only under an explicit mesh.
        return aval.shape, aval.dtype, None if sharding.mesh.empty or not _explicit(sharding) else sharding
    return np.shape(leaf), jnp.result_type(leaf), None


def _explicit(sharding):
    return any(kind == AxisType.Explicit for kind in sharding.mesh.axis_types)


@lru_cache(maxsize=64)
def _output_shapes(structure, leaves):
    # JAX has its own lookup, but it takes milliseconds.
    return call.eval_shape(*concrete(structure, leaves))


def scores_shape(model: Any, images: jax.Array, flat: Any = None) -> tuple[int, ...]:
    """Return the shape of the scores `model(images)` without running it; arguments are `output_shapes`'.

    Raises:
        TypeError: If the model does not return one array.
    """
    return one_array(output_shapes(model, images, flat)).shape


def one_array(outputs: Any) -> Any:
    """Return a model's outputs if they are one array.

    Raises:
        TypeError: If they are anything else, such as a dict or a tuple: only a callable target can choose
            from it.
    """
    if hasattr(outputs, "shape"):
        return outputs
    raise TypeError(f"`model` returns {kind(outputs)}: pass a callable target, outputs -> float[batch]")


def kind(outputs: Any) -> str:
    """Describe in words outputs that are not one array."""
    if isinstance(outputs, Mapping):
        return f"a dict with keys {', '.join(sorted(map(repr, outputs)))}"
    name = f"a {type(outputs).__name__}"
    return f"{name} of {len(outputs)}" if isinstance(outputs, (tuple, list)) else name
