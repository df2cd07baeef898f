"""Layered models: named stages, and the split of a network into activations and a head.

A layered model has `layer_names` in forward order and two static keywords: `model(images, stop=name)`
returns the activation after that layer, `model(acts, start=name)` runs the rest of the network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial, register_dataclass

from ._frame import model as _model
from ._program import layout
from ._program.graph import graph_of
from ._program.named import Named
from ._program.named import named as named

OUTPUT = "logits"


def run_stages(
    names: Sequence[str],
    stages: Sequence[Callable[[jax.Array], jax.Array]],
    x: jax.Array,
    start: str | None = None,
    stop: str | None = None,
) -> jax.Array:
    """Run the stages after `start` up to and including `stop`; None means from the first, to the last.

    Raises:
        ValueError: If a name is unknown, or `stop` does not come after `start`.
    """
    first = 0 if start is None else _index(names, start) + 1
    last = len(names) if stop is None else _index(names, stop) + 1
    if last < first:
        raise ValueError(f"`stop` must not come before `start`; got start={start!r}, stop={stop!r}")
    for stage in stages[first:last]:
        x = stage(x)
    return x


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise ValueError(f"unknown layer {name!r}; the layers are {', '.join(names)}")
    return list(names).index(name)


@register_dataclass
@dataclass(frozen=True)
class Chain:
    """A layered model made of functions; a pytree whose leaves are the stages' parameters."""

    layer_names: tuple[str, ...] = field(metadata={"static": True})
    stages: tuple[Callable[[jax.Array], jax.Array], ...]

    def __call__(self, x: jax.Array, *, start: str | None = None, stop: str | None = None) -> jax.Array:
        """Run the stages after `start` up to and including `stop`."""
        return run_stages(self.layer_names, self.stages, x, start, stop)


def chain(stages: Mapping[str, Callable[[jax.Array], jax.Array]]) -> Chain:
    """Build a layered model from named functions, so that layer methods can explain any JAX code.

    Args:
        stages: Callable pytrees (or plain functions, which are wrapped in `Partial`) in forward order,
            by layer name. Each takes what the one before returns.

    Returns:
        A layered model, `model(x, start=None, stop=None)`, with the names in `model.layer_names`.

    Raises:
        ValueError: If there is no stage.
        TypeError: If a stage cannot be called or a name is not a string.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"double": lambda x: 2 * x, "sum": lambda x: x.sum((1, 2))})
        >>> net(jnp.ones((1, 2, 2, 3)), stop="double").shape
        (1, 2, 2, 3)
    """
    if not stages:
        raise ValueError("`stages` must name at least one function; got none")
    for name, stage in stages.items():
        if not isinstance(name, str) or not callable(stage):
            raise TypeError(f"`stages` must map names to callables; got {name!r}: {stage!r}")
    return Chain(tuple(stages), tuple(_model.as_model(stage) for stage in stages.values()))


@register_dataclass
@dataclass(frozen=True)
class Head:
    """The part of a layered model after a layer: `head(acts) -> scores`."""

    model: Any
    layer: str = field(metadata={"static": True})

    def __call__(self, acts: jax.Array) -> jax.Array:
        """Return the scores of these activations."""
        return self.model(acts, start=self.layer)


@register_dataclass
@dataclass(frozen=True)
class Body:
    """The part of a layered model up to a layer: `body(images) -> acts`.

    It is a model of its own: with a callable target, such as `lambda acts: acts[:, 3, 4, 12]`, every method
    explains a neuron.
    """

    model: Any
    layer: str = field(metadata={"static": True})

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the layer's activations of these images."""
        return _split(self.model, self.layer, images)[0]


def _identity(x: jax.Array) -> jax.Array:
    return x


def layer_names(model: Any, images: Any = None) -> tuple[str, ...]:
    """Return the names of a model's layers in forward order; a model without layers has its output only.

    `named` models that were made without example images need `images` to know their layers.
    """
    if images is not None and isinstance(model, Named):
        return model.names(images)
    return tuple(getattr(model, "layer_names", (OUTPUT,)))


def resolve(model: Any, layer: str | None, images: jax.Array) -> str:
    """Return the name of `layer`; None picks the last hidden one with positions that is not a pool.

    Stages that return no array are passed over.

    Raises:
        ValueError: If the name is unknown, or no layer has positions.
        TypeError: If `layer` is not a string.
    """
    names = layer_names(model, images)
    if layer is not None:
        if not isinstance(layer, str):
            raise TypeError(f"`layer` must be a layer's name; got {layer!r}")
        if layer not in names and layer != OUTPUT:
            raise ValueError(f"unknown layer {layer!r}; the layers are {', '.join(names)}")
        return layer
    model = _model.as_model(model)
    output = getattr(_model.output_shapes(model, images), "shape", None)
    likest = None
    for name in reversed(names):
        shape = getattr(_model.output_shapes(Body(model, name), images), "shape", ())
        if "pool" in name or len(shape) != 4:
            continue
        known, found = _layout(model, name, images)
        height, width = (2, 3) if found == layout.NCHW else (1, 2)
        if not (found or not known) or shape[height] * shape[width] == 1:
            continue
        # Dense scores, those of a segmentation for example, are what is explained, also before a softmax.
        if shape != output:
            return name
        likest = likest or (name if name != names[-1] else None)
    if likest is not None:
        return likest
    raise ValueError(
        f"no hidden layer of this model has positions [batch, height, width, channels]; the layers are"
        f" {', '.join(names)}. Mark the stages with jaxai.chain or jaxai.layers.named"
    )


def _layout(model: Any, layer: str, images: jax.Array) -> tuple[bool, str | None]:
    """Return whether the axes of a layer are known, and "NHWC" or "NCHW" if they lie so."""
    return _read_layout(*_model.abstract(Body(_model.as_model(model), layer), images))


@lru_cache(maxsize=256)
def _read_layout(structure, leaves):
    graph = graph_of(_model.program(structure, leaves))
    if len(graph.outputs) != 1 or not graph.inputs:
        return False, None
    axes = layout.of(graph)
    return axes is not None, None if axes is None else layout.name(axes, graph.shape(graph.outputs[0]))


def channels_last(model: Any, layer: str, images: jax.Array, acts: jax.Array) -> jax.Array:
    """Return a layer's activations of images, with their channels moved last where those come first.

    Which axis is which is read from the program. Values of other layouts are returned as they are.
    """
    if acts.ndim == 4 and _layout(model, layer, images)[1] == layout.NCHW:
        return jnp.moveaxis(acts, 1, -1)
    return acts


def _moved_back(head: Callable[[jax.Array], jax.Array], acts: jax.Array) -> jax.Array:
    return head(jnp.moveaxis(acts, -1, 1))


def split_positions(
    model: Any, layer: str | None, images: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Split a network as `split` does, with activations [batch, height, width, channels].

    Layers [batch, channels, height, width] are transposed. Which axis is which is read from the program;
    where an operation cannot be followed, the order of the images is assumed.

    Raises:
        ValueError: If the layer's values are not laid out like an image, as attention matrices are not.
    """
    model = _model.as_model(model)
    layer = resolve(model, layer, images)
    acts, head = split(model, layer, images)
    check_positions(model, layer, images, acts.shape)
    last = channels_last(model, layer, images, acts)
    return last, head if last is acts else Partial(_moved_back, head)


def check_positions(model: Any, layer: str, images: jax.Array, shape: Sequence[int]) -> None:
    """Check that a layer's values, of this shape, are laid out like an image.

    Raises:
        ValueError: If they are not.
    """
    known, found = _layout(model, layer, images) if len(shape) == 4 else (True, None)
    if known and found is None:
        why = ", whose axes do not run along the images' height and width" if len(shape) == 4 else ""
        raise ValueError(
            "`layer` must have activations [batch, height, width, channels];"
            f" {layer!r} has shape {tuple(shape)}{why}"
        )


def split(
    model: Any, layer: str | None, images: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Split a network at a layer: the activations of the images, and the rest as a function of them.

    Args:
        model: A layered model (`jaxai.models`, `chain`, `layers.named`); any model at its output, `"logits"`.
        layer: A name of `model.layer_names`; None picks the last layer that is not a pool and has more
            than one position.
        images: Float array [batch, height, width, channels].

    Returns:
        `acts`, the layer's output, and `head`, a callable pytree with `head(acts) == model(images)`.

    Raises:
        ValueError: If there is no such layer, or it returns no array.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"double": lambda x: 2 * x, "sum": lambda x: x.sum((1, 2))})
        >>> acts, head = jaxai.split(net, "double", jnp.ones((1, 2, 2, 3)))
        >>> acts.shape, head(acts).tolist()
        ((1, 2, 2, 3), [[8.0, 8.0, 8.0]])
    """
    model = _model.as_model(model)
    layer = resolve(model, layer, images)
    acts, head = _split(model, layer, images)
    return one_array(acts, layer), head


def one_array(acts: Any, layer: str) -> jax.Array:
    """Return a layer's activations if they are one array.

    Raises:
        ValueError: If they are not.
    """
    if not hasattr(acts, "shape"):
        raise ValueError(
            f"`layer` must be a layer that returns one array; {layer!r} returns {_model.kind(acts)}"
        )
    return acts


def _split(model, layer, images):
    if hasattr(model, "split"):
        return model.split(layer, images)
    if layer not in layer_names(model) or not hasattr(model, "layer_names"):
        return model(images), Partial(_identity)
    return model(images, stop=layer), Head(model, layer)
