"""The parameters of any callable pytree, layer by layer in the order in which the model uses them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from .._frame import checks
from .._frame import model as _model
from .._program.graph import graph_of, regions, values_of
from . import _shuffle

REDRAW = ("permute", "normal")


@dataclass(frozen=True)
class Layer:
    """Parameter arrays that belong to one layer.

    Attributes:
        name: Their place in the pytree.
        leaves: Their indices among the leaves.
    """

    name: str
    leaves: tuple[int, ...]


def layers(model: Any, images: jax.Array) -> tuple[Layer, ...]:
    """Return the model's layers of parameters in forward order.

    A layer is an array of at least two axes with the arrays beside it (a bias, a scale) up to the next such
    array, or only vectors (a normalisation).

    Raises:
        ValueError: If the model is not a pytree of floating parameters, or uses none of them.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    order = _first_uses(*_model.abstract(model, images))
    found: list[tuple[str, list[int]]] = []
    for number in sorted(order, key=lambda leaf: (order[leaf], leaf)):
        path, leaf = paths[number]
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        name = _place(path, model)
        # A second array of weights at the same place starts a new layer.
        open_layer = next((item for item in reversed(found) if item[0] == name), None)
        if open_layer is None or (jnp.ndim(leaf) > 1 and _has_weights(open_layer[1], paths)):
            found.append((name, [number]))
        else:
            open_layer[1].append(number)
    if not found:
        raise ValueError(
            "`model` has no parameters to draw anew: pass a callable pytree whose leaves are its weights,"
            " such as a Flax or Equinox module, jax.tree_util.Partial(apply, params) or jaxai.chain"
        )
    names, named = [name for name, _ in found], []
    for name, numbers in found:
        alone = names.count(name) == 1
        own = name if alone else ".".join(_words(paths[numbers[0]][0], model))
        named.append(Layer(own, tuple(numbers)))
    return tuple(named)


def _has_weights(numbers, paths):
    return any(jnp.ndim(paths[number][1]) > 1 for number in numbers)


def _place(path, model):
    """Return the place of an array, without its own name."""
    words = _words(path, model)
    return ".".join(words[:-1] or words) or "parameters"


def _words(path, model):
    words = [str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path]
    names = getattr(model, "layer_names", None)
    if names and words[0] == "stages" and len(words) > 1 and words[1].isdigit():
        words = [names[int(words[1])], *words[2:]]
    while words and words[-1] in ("value", "raw_value"):
        words.pop()
    return [word for word in words if word not in ("args", "module")]


@lru_cache(maxsize=64)
def _first_uses(structure, leaves) -> dict[int, int]:
    """Return the index of the first operation that combines each parameter with the images."""
    graph = graph_of(_model.program(structure, leaves), structured=True, opens=regions)
    count = len(graph.inputs) - 1
    seen = {graph.inputs[-1]}
    carried = {value: {number} for number, value in enumerate(graph.inputs[:count])}
    found: dict[int, int] = {}
    for position, node in enumerate(graph.nodes):
        inputs = list(values_of(node.inputs))
        own = set().union(*(carried.get(value, ()) for value in inputs))
        if seen.intersection(inputs):
            for number in own:
                found.setdefault(number, position)
            seen.update(node.outputs)
        else:
            carried.update((value, own) for value in node.outputs)
    return found


def chosen(found: Sequence[Layer], names: Sequence[str] | None) -> tuple[Layer, ...]:
    """Return the layers of these names, in forward order; None returns all.

    Raises:
        ValueError: If a name is unknown.
    """
    if names is None:
        return tuple(found)
    known = [layer.name for layer in found]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown layer {name!r}; the layers with parameters are {', '.join(known)}")
    return tuple(layer for layer in found if layer.name in names)


def redrawn(model: Any, numbers: Sequence[int], key: jax.Array, redraw: Any) -> Any:
    """Return the model with some leaves randomised; leaf i depends only on (key, i) and itself."""
    leaves, structure = jax.tree.flatten(model)
    draw = redraw if callable(redraw) else _DRAWS[checks.choice(redraw, "redraw", REDRAW)]
    for number in numbers:
        leaves[number] = _like(draw(jax.random.fold_in(key, number), leaves[number]), leaves[number])
    return jax.tree.unflatten(structure, leaves)


def _like(new, old):
    if jnp.shape(new) != jnp.shape(old):
        raise ValueError(f"`redraw` must keep the shape {jnp.shape(old)}; got {jnp.shape(new)}")
    return jnp.asarray(new, jnp.result_type(old))


@jax.jit
def _permuted(key, array):
    return _shuffle.shuffled(key, array.reshape(-1)).reshape(array.shape)


@jax.jit
def _normal(key, array):
    # Scales and variances of normalisations must keep their kind of values.
    if array.ndim < 2:
        return _permuted(key, array)
    return array.mean() + array.std() * jax.random.normal(key, array.shape, array.dtype)


_DRAWS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"permute": _permuted, "normal": _normal}
