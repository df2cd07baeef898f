"""Layered models of functions without marks, found by calls of modules, named scopes and bottlenecks."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial, register_dataclass
from jaxtyping import Array, Float

from .._frame import calls
from .._frame import model as _model
from . import layout, layouts
from .layouts import ByLayer, Layout
from .named import OUTPUT, Named, identity, marked, unknown, with_output
from .parts import FOUND, Program, between, program_of, split
from .run import evaluate, run_node

# The images that a model takes: a batch or one image, channels last or first.
IMAGE_FORMATS = ("NHWC", "NCHW", "HWC", "CHW")


@register_dataclass
@dataclass(frozen=True, eq=False)
class Recorded:
    """A model whose layers are marked: the results of its modules or the stages of a layered model."""

    model: Any

    def __call__(self, images: jax.Array) -> Any:
        """Return what the model returns."""
        with calls.recording():
            return marked(calls.watched(self.model, _model.unpacked), images)


@register_dataclass
@dataclass(frozen=True, eq=False)
class Adapted(_model.Layered):
    """A model that takes images [batch, height, width, channels] and returns one of the model's outputs.

    Attributes:
        model: The original model.
        output: Selects one of the model's outputs, or None.
        name: The selected key or attribute, or None.
        image_format: One of `IMAGE_FORMATS`.
    """

    model: Any
    output: Any = None
    name: str | int | None = field(default=None, metadata={"static": True})
    image_format: str = field(default="NHWC", metadata={"static": True})

    def __call__(self, images: jax.Array) -> Any:
        """Return the scores of these images."""
        if self.image_format in ("NCHW", "CHW"):
            images = jnp.moveaxis(images, -1, 1)
        model = self.model if self.image_format.startswith("N") else jax.vmap(self.model)
        return self.choose(model(images))

    def choose(self, outputs: Any) -> Any:
        """Return the selected output.

        Raises:
            ValueError: If there is no output of that name.
        """
        if self.output is not None:
            return self.output(outputs)
        if self.name is None:
            return outputs
        if isinstance(outputs, (Mapping, tuple, list)):
            try:
                return outputs[self.name]  # type: ignore[call-overload]
            except (KeyError, IndexError, TypeError):
                pass
        if isinstance(self.name, str) and hasattr(outputs, self.name):
            return getattr(outputs, self.name)
        raise ValueError(
            f"`output` must name an output of the model; got {self.name!r}, and it returns"
            f" {_model.kind(outputs)}"
        )


@register_dataclass
@dataclass(frozen=True, eq=False)
class Found(_model.Layered):
    """A layered model of any function; a pytree like the model.

    Attributes:
        model: The function; its leaves are the parameters.
        layer_names: The layers' names in forward order, the output last.
        example: Shape and type of the images with which the layers were found.
        data_format: Layouts of layers for which the program does not determine one; by layer, or for all.
    """

    model: Any
    layer_names: tuple[str, ...] = field(metadata={"static": True})
    example: tuple[tuple[int, ...], Any] = field(metadata={"static": True})
    data_format: Any = field(default=None, metadata={"static": True})

    def __call__(self, x: jax.Array, *, start: str | None = None, stop: str | None = None) -> Any:
        """Run the layers after `start` up to and including `stop`; None means from the first, to the last.

        Raises:
            ValueError: If a name is unknown, `stop` does not come after `start`, or values that depend on the
                images otherwise are needed after `start` as well; `jaxai.split` carries them.
        """
        if start is None:
            return self.model(x) if stop is None else self.split(stop, x)[0]
        shape, dtype = self.example
        program, flat = self.program(jax.ShapeDtypeStruct((x.shape[0], *shape[1:]), dtype))
        for name in (start, stop):
            if name is not None:
                self._is_output(program, name)
        if self._is_output(program, start):
            return x
        last = None if stop is None or self._is_output(program, stop) else stop
        return between(program, flat, x, start, last)

    def program(self, images: Any) -> tuple[Program, list[Any]]:
        """Return the program with its layers, and the arrays on which to evaluate it."""
        return program_of(Recorded(_model.as_model(self.model)), images, FOUND)

    def names(self, images: Any) -> tuple[str, ...]:
        """Return the layers' names in forward order for images of this shape."""
        return with_output(self.program(images)[0].layers)

    def split(
        self, layer: str, images: Float[Array, "batch height width channels"]
    ) -> tuple[Any, Callable[[jax.Array], jax.Array]]:
        """Return the values of `layer` and the rest of the network as a function of them.

        Raises:
            ValueError: If there is no such layer.
        """
        program, flat = self.program(images)
        if self._is_output(program, layer):
            return self.model(images), Partial(identity)
        return split(program, flat, layer)

    def marked(self, images: jax.Array) -> Any:
        """Return the scores of these images, with each layer marked by its name."""
        program, flat = self.program(images)
        names: dict[int, list[str]] = {}
        for name, value in program.layers.items():
            names.setdefault(value, []).append(name)

        def each(node, operands):
            results = operands[:1] if node.name == "name" else run_node(node, operands)
            marked = zip(node.outputs, results, strict=True)
            return [reduce(checkpoint_name, names.get(out, ()), result) for out, result in marked]

        return jax.tree.unflatten(program.tree, evaluate(program.graph, flat, each=each))

    def _is_output(self, program, layer):
        if layer not in program.layers and layer != OUTPUT:
            raise ValueError(unknown(layer, with_output(program.layers)))
        return layer not in program.layers

    def avals(self, images: Any) -> dict[str, Any]:
        """Return the shapes and types of all layers but the output, for images of this shape."""
        program, _ = self.program(images)
        return {name: program.aval(name) for name in program.layers}

    def layouts(self, images: Any) -> dict[str, tuple[bool, Layout | None]]:
        """Return the result of `layout_of` for each layer except the output."""
        program, _ = self.program(images)
        return {
            name: self._layout(program, name, value, images.shape[0])
            for name, value in program.layers.items()
        }

    def layout_of(self, layer: str, images: Any) -> tuple[bool, Layout | None]:
        """Return whether a layer's layout is known, and "NHWC", "NCHW", `Tokens`, or None for any other.

        Raises:
            ValueError: If the program contradicts `data_format`.
        """
        program, _ = self.program(images)
        if not self._is_output(program, layer):
            return self._layout(program, layer, program.layers[layer], images.shape[0])
        outputs = program.graph.outputs
        value = outputs[0] if len(outputs) == 1 else None
        return (
            self._layout(program, layer, value, images.shape[0]) if isinstance(value, int) else (True, None)
        )

    def _layout(self, program, layer, value, batch):
        shape, axes = program.graph.shape(value), program.axes[value]
        if len(shape) not in (3, 4) or batch not in shape[: 5 - len(shape)]:
            return True, None
        by_layer = isinstance(self.data_format, ByLayer)
        given = self.data_format.get(layer) if by_layer else self.data_format
        given = given if given is not None and layouts.fits(given, shape) else None
        if axes is None:
            return given is not None or shape[0] != batch, given
        read = layout.name(axes, shape, batch)
        if given not in (None, read) and (read is not None or by_layer):
            raise ValueError(
                f"`data_format` says {given} of layer {layer!r} of shape {shape}; by the program it is"
                f" {read or 'not laid out like an image'}"
            )
        return True, read

    def reaches(self, layer: str, images: Any) -> bool:
        """Return whether the scores depend on a layer's positions, not only on other tokens."""
        program, _ = self.program(images)
        return self._is_output(program, layer) or program.reaches(layer)

    def default_layer(self, images: Any) -> str | None:
        """Return the last layer with positions that reach the output, preferably one that carries everything.

        Pools are skipped, and dense scores, which are what is explained, with what only becomes them: layers
        of the output's shape, and those after the last product along the channels. Before dense scores it is
        the last layer that all outputs depend on: what carries everything may lie far before it, where each
        stage has an output.

        Raises:
            ValueError: If there is none, but there are layers whose layout is not known, or only scores.
        """
        program, _ = self.program(images)
        outputs = {program.graph.shape(ref) for ref in program.graph.outputs}
        names, unread, scores = [], None, []
        for name, value in reversed(program.layers.items()):
            shape = tuple(program.aval(name).shape)
            known, found = self._layout(program, name, value, images.shape[0])
            unread = unread if known or unread else ask(name, shape)
            if "pool" in name.lower() or found is None or math.prod(layouts.grid(found, shape)) == 1:
                continue
            # One channel, such as that of a side output, is a score, too.
            alone = program.scores and shape[1 if found == layouts.NCHW else -1] == 1
            (scores if alone or shape in outputs or value in program.scores else names).append(name)
        if program.scores:
            liked = (name for name in names if program.feeds_all(name))
        else:
            liked = (name for name in names if program.layers[name] in program.narrow)
        best = next((name for name in itertools.chain(liked, names) if program.reaches(name)), None)
        if best is None and unread:
            raise ValueError(unread)
        if best is None and scores:
            raise ValueError(
                f"all layers of this model with positions are its dense scores, such as {scores[0]!r}, and no"
                " hidden layer comes before them: pass `layer` for a map of the scores themselves"
            )
        return best


def ask(layer: str, shape: Sequence[int]) -> str:
    """Return the error message for a layer whose layout is not known."""
    return (
        f"the layout of layer {layer!r} of shape {tuple(shape)} cannot be read from the program: pass"
        " data_format='NHWC', 'NCHW' or jaxai.layers.Tokens(grid=(rows, columns), prefix=n) to"
        " jaxai.layers.find"
    )


def find(
    model: Callable[..., Any],
    images: Any,
    *,
    data_format: Any = None,
    image_format: str = "NHWC",
    output: Any = None,
) -> Found:
    """Return the layered model of a function, as `jaxai.layers.find` documents it."""
    if isinstance(model, (Found, Named)):
        model = model.model
    model = _model.as_model(model)
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"`image_format` must be one of {', '.join(IMAGE_FORMATS)}; got {image_format!r}")
    if output is not None or image_format != "NHWC":
        name = output if isinstance(output, (str, int)) and not isinstance(output, bool) else None
        if not (output is None or name is not None or callable(output)):
            raise TypeError(f"`output` must be a name, a place or a callable; got {output!r}")
        chooser = _model.as_model(output) if callable(output) else None
        model = Adapted(model, chooser, name, image_format)
    images = images if hasattr(images, "dtype") else jnp.asarray(images)
    found = Found(model, (), (tuple(images.shape), images.dtype), layouts.checked(data_format))
    found = replace(found, layer_names=found.names(images))
    if isinstance(found.data_format, ByLayer):
        for name in found.data_format.names():
            if name not in found.layer_names:
                raise ValueError(unknown(name, found.layer_names))
    return found
