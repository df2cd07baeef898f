"""Layered models: named stages, and splitting a network into activations and a head.

A layered model has `layer_names` in forward order and two static keywords: `model(images, stop=name)` returns
the activation after that layer, and `model(acts, start=name)` runs the rest of the network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial, register_dataclass

from ._frame import model as _model
from ._program import found as _found
from ._program import layout, layouts
from ._program.chained import Chain as Chain
from ._program.chained import chain as chain
from ._program.chained import run_stages as run_stages
from ._program.dense import is_dense
from ._program.graph import graph_of
from ._program.layouts import Layout
from ._program.layouts import Tokens as Tokens
from ._program.listing import Tree as Tree
from ._program.named import FEW, Named, identity, unknown
from ._program.named import OUTPUT as OUTPUT
from ._program.named import named as named


@register_dataclass
@dataclass(frozen=True, eq=False)
class Head:
    """The part of a layered model after a layer: `head(acts) -> scores`."""

    model: Any
    layer: str = field(metadata={"static": True})

    def __call__(self, acts: jax.Array) -> jax.Array:
        """Return the scores of these activations."""
        return self.model(acts, start=self.layer)


@register_dataclass
@dataclass(frozen=True, eq=False)
class Body:
    """The part of a layered model up to a layer: `body(images) -> acts`.

    It is itself a model: with a callable target, such as `lambda acts: acts[:, 3, 4, 12]`, every method
    explains a neuron.
    """

    model: Any
    layer: str = field(metadata={"static": True})

    def __call__(self, images: jax.Array) -> Any:
        """Return the layer's activations of these images."""
        return _split(self.model, self.layer, images)[0]


def layer_names(model: Any, images: Any = None) -> tuple[str, ...]:
    """Return the names of a model's layers in forward order; a model without layers has only its output.

    `named` models made without example images need `images` to find their layers.
    """
    if images is not None and isinstance(model, (Named, _found.Found)):
        return model.names(images)
    return tuple(getattr(model, "layer_names", (OUTPUT,)))


def resolve(model: Any, layer: str | None, images: Any) -> str:
    """Return the name of `layer`; None picks the last hidden one with positions that is not a pool.

    Stages that return no array are skipped.

    Raises:
        ValueError: If the name is unknown, or no layer has positions.
        TypeError: If `layer` is not a string.
    """
    if layer is not None:
        if not isinstance(layer, str):
            raise TypeError(f"`layer` must be a layer's name; got {layer!r}")
        if layer in getattr(model, "layer_names", ()):
            return layer
    names = layer_names(model, images)
    if layer is not None:
        if layer not in names and layer != OUTPUT:
            raise ValueError(unknown(layer, names))
        return layer
    model = _model.as_model(model)
    own = getattr(model, "default_layer", None)
    found = _default(model, images) if own is None else own(images)
    if found is not None:
        return found
    advice = "Mark the stages with jaxai.chain or jaxai.layers.named"
    raise ValueError(
        "no hidden layer of this model has positions [batch, height, width, channels]; the layers are"
        f" {_listed(names)}. {advice}{'' if own else ', or let jaxai.layers.find look for them'}"
    )


def _listed(names):
    return ", ".join(names) if len(names) <= FEW else f"{', '.join(names[:FEW])}, ..."


def _default(model, images):
    outputs = _model.output_shapes(model, images)
    output = getattr(outputs, "shape", None)
    names = layer_names(model, images)
    if any(is_dense(leaf.shape) for leaf in jax.tree.leaves(outputs)):
        # What comes before dense scores, such as those of a segmentation, is read from the program.
        found = _before_scores(model, images)
        if found in names:
            return found
    last, likest = names[-1], None
    for name, aval, _, grid in _all(model, images, backwards=True):
        if "pool" in name or grid is None or grid[0] * grid[1] == 1:
            continue
        # Dense scores, such as those of a segmentation, are what is explained, also before a softmax.
        if aval.shape != output:
            return name
        likest = likest or (name if name != last else None)
    return likest


def _before_scores(model, images):
    try:
        return _found.find(model, images).default_layer(images)
    except ValueError:
        return None


def grids(model: Any, images: Any) -> dict[str, tuple[int, int]]:
    """Return the rows and columns of the layers laid out like an image, in forward order."""
    return {name: grid for name, _, _, grid in _all(_model.as_model(model), images) if grid is not None}


def reaches(model: Any, layer: str, images: Any) -> bool:
    """Return whether the scores depend on a layer's positions; True if unknown."""
    model = _model.as_model(model)
    return not hasattr(model, "reaches") or model.reaches(layer, images)


def _all(model, images, backwards=False):
    """Yield each layer's name, shape and type, layout or "unknown", and rows and columns or None."""
    own = hasattr(model, "layout_of")
    avals = model.avals(images) if own else {}
    known = model.layouts(images) if own else {}
    names = layer_names(model, images)
    for name in reversed(names) if backwards else names:
        aval = avals.get(name) or _shape(model, name, images)
        if aval is None:
            continue
        read, found = True, None
        if len(aval.shape) in (3, 4):
            read, found = known.get(name) or _layout(model, name, images)
        # For layers that a user marked, the axes of the images are assumed.
        lies = layouts.NHWC if not (read or own) and len(aval.shape) == 4 else found
        grid = None if lies is None else layouts.grid(lies, aval.shape)
        yield name, aval, found if read else "unknown", grid


def _shape(model, name, images):
    """Return the shape and type of a layer; None if it is not an array."""
    found = _model.output_shapes(Body(model, name), images)
    return found if hasattr(found, "shape") else None


def layer_layout(model: Any, layer: str, images: Any) -> Layout | None:
    """Return a layer's layout on the images, "NHWC", "NCHW" or `Tokens`; None if it has none or unknown."""
    return _layout(model, layer, images)[1]


def _layout(model: Any, layer: str, images: Any) -> tuple[bool, Layout | None]:
    """Return whether a layer's layout is known, and the layout, "NHWC", "NCHW" or `Tokens`, if it has one."""
    model = _model.as_model(model)
    if hasattr(model, "layout_of"):
        return model.layout_of(layer, images)
    return _read_layout(*_model.abstract(Body(model, layer), images))


@lru_cache(maxsize=256)
def _read_layout(structure, leaves):
    graph = graph_of(_model.program(structure, leaves))
    if len(graph.outputs) != 1 or not graph.inputs:
        return False, None
    axes, batch = layout.of(graph), next(iter(graph.shape(graph.inputs[-1])), None)
    return axes is not None, None if axes is None else layout.name(axes, graph.shape(graph.outputs[0]), batch)


def channels_last(model: Any, layer: str, images: jax.Array, acts: jax.Array) -> jax.Array:
    """Return a layer's activations as [batch, height, width, channels] if they are laid out like an image.

    The meaning of the axes is read from the program. Values of other layouts are returned unchanged.
    """
    return layouts.channels_last(_layout(model, layer, images)[1], acts) if acts.ndim in (3, 4) else acts


def split_positions(
    model: Any, layer: str | None, images: jax.Array, *, dense: bool = False
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Split a network as `split` does, with activations [batch, height, width, channels].

    Layers [batch, channels, height, width] are transposed; of tokens [batch, tokens, channels] the grid is
    returned, and the head keeps the other tokens unchanged. The meaning of the axes is read from the program;
    where an operation cannot be followed, the axes of the images are assumed for layers that a user marked.
    With `dense`, layers [batch, features] are split unchanged.

    Raises:
        ValueError: If the layer's values are not laid out like an image (such as attention matrices), or
            their layout is unknown.
    """
    model = _model.as_model(model)
    layer = resolve(model, layer, images)
    acts, head = split(model, layer, images)
    if dense and acts.ndim == 2:
        return acts, head
    check_positions(model, layer, images, acts.shape)
    found = _layout(model, layer, images)[1]
    if found in (None, layouts.NHWC):
        return acts, head
    return layouts.channels_last(found, acts), Partial(layouts.Back(found), head, layouts.others(found, acts))


def check_positions(model: Any, layer: str, images: jax.Array, shape: Sequence[int]) -> None:
    """Check that a layer's values, of this shape, are laid out like an image.

    Raises:
        ValueError: If they are not, or their layout is unknown.
    """
    known, found = _layout(model, layer, images) if len(shape) in (3, 4) else (True, None)
    if not known and hasattr(model, "layout_of"):
        raise ValueError(_found.ask(layer, shape))
    if found is None and (known or len(shape) == 3):
        why = ", whose axes do not run along the images' height and width" if len(shape) == 4 else ""
        raise ValueError(
            "`layer` must have activations [batch, height, width, channels];"
            f" {layer!r} has shape {tuple(shape)}{why}"
        )


def split(
    model: Any, layer: str | None, images: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Split a network at a layer into the activations of the images and the rest as a function of them.

    Args:
        model: A layered model (`jaxai.models`, `chain`, `layers.named`); any model can be split at its
            output, `"logits"`.
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
        return model(images), Partial(identity)
    return model(images, stop=layer), Head(model, layer)


def find(
    model: Callable[..., Any],
    images: Any,
    *,
    data_format: Layout | Mapping[str, Layout] | None = None,
    image_format: Literal["NHWC", "NCHW", "HWC", "CHW"] = "NHWC",
    output: str | int | Callable[[Any], Any] | None = None,
) -> _found.Found:
    """Return a layered model of any function, whose layers are found by tracing; the function is not changed.

    Layers are the results of its modules, by their paths: `layer4.1.conv2` for Flax NNX and Equinox,
    `encoder/block_1/Conv_0` for Flax Linen and Haiku, the layer's name for Keras, and the results of
    `jax.named_scope` elsewhere. Values marked by `checkpoint_name` keep their names. In a function without
    any of these, layers are the values that alone carry everything that depends on the images, named by the
    functions or operations that return them. Repeated names are numbered, `block#2`; loops of at most 64
    steps are unrolled, `blocks/[1]/attention`. Functions with a derivative of their own keep it.

    A layer's layout on the image is read from the program: channels last, channels first, or tokens.

    Args:
        model: Callable of any library, as in `jaxai.grad_cam`.
        images: Example images, an array or `jax.ShapeDtypeStruct`, [batch, height, width, channels].
        data_format: "NHWC", "NCHW" or `Tokens`, for layers of that rank whose layout cannot be read from the
            program; or a layout per layer, by name.
        image_format: Layout of the images that the model takes: a batch or, without N, one image; channels
            last or first. The layered model takes images like every method, [batch, height, width, channels].
        output: Which output to explain if the model returns several: a key, an attribute or an index, or a
            function of the model's outputs.

    Returns:
        A callable pytree like the model with `layer_names`, `model(images, stop=name)`, `split`, and
        `model(acts, start=name)` if no other value that depends on the images is needed after the layer.

    Raises:
        TypeError: If `model` cannot be called, or `output` is of the wrong kind.
        ValueError: If a format is unknown, or there is no such output.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> from flax import nnx
        >>> class Net(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        ...         self.head = nnx.Linear(4, 10, rngs=rngs)
        ...     def __call__(self, x):
        ...         return self.head(jax.nn.relu(self.conv(x)).mean((1, 2)))
        >>> images = jnp.ones((2, 8, 8, 3))
        >>> net = jaxai.layers.find(Net(nnx.Rngs(0)), images)
        >>> net.layer_names
        ('conv', 'head', 'logits')
        >>> jaxai.grad_cam(net, images, 3, layer="conv").shape
        (2, 8, 8)
    """
    return _found.find(model, images, data_format=data_format, image_format=image_format, output=output)


def tree(model: Callable[..., Any], images: Any, **options: Any) -> Tree:
    """Return a model's layers with their shapes and layouts; printing it gives one line per layer.

    Args:
        model: A layered model, or any model for `find`.
        images: Example images, an array or `jax.ShapeDtypeStruct`, [batch, height, width, channels].
        **options: Options of `find`.

    Returns:
        The layers in forward order; the layer that methods explain by default is marked.

    Raises:
        TypeError: As `find`.
        ValueError: As `find`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> def net(x):
        ...     with jax.named_scope("features"):
        ...         x = jax.nn.relu(x[:, ::2])
        ...     return x.mean((1, 2))
        >>> print(jaxai.layers.tree(net, jnp.ones((2, 8, 8, 3))))
        features  float32[2,4,8,3]  NHWC  <- default
        logits    float32[2,3]
    """
    if options or not hasattr(model, "layer_names"):
        model = find(model, images, **options)
    model = _model.as_model(model)
    images = images if hasattr(images, "dtype") else jnp.asarray(images)
    rows = [(name, aval, lies) for name, aval, lies, _ in _all(model, images)]
    try:
        default = resolve(model, None, images)
    except ValueError:
        default = None
    shapes = {name: jax.ShapeDtypeStruct(aval.shape, aval.dtype) for name, aval, _ in rows}
    return Tree(shapes, {name: lies for name, _, lies in rows}, default)
