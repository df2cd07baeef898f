"""Layers of functions that are not chains: values marked by name, and the other values that bypass them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial, register_dataclass
from jaxtyping import Array, Float

from .._frame import model as _model
from .parts import MARKS, program_of, split

OUTPUT = "logits"
# Errors list all layers if there are at most this many.
FEW = 24


@register_dataclass
@dataclass(frozen=True, eq=False)
class Named(_model.Layered):
    """A model whose layers are the values it marks; a pytree like the model.

    Attributes:
        model: The function; its leaves are the parameters.
        known: The layers' names, if example images were given; otherwise each call finds them.
    """

    model: Any
    known: tuple[str, ...] | None = field(default=None, metadata={"static": True})

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the scores of these images."""
        return self.model(images)

    def __getattr__(self, name: str) -> Any:
        if name == "layer_names" and self.known is not None:
            return self.known
        raise AttributeError(name)

    def names(self, images: Any) -> tuple[str, ...]:
        """Return the layers' names in forward order, the output last."""
        return with_output(program_of(self.model, images, MARKS)[0].layers)

    def split(
        self, layer: str, images: Float[Array, "batch height width channels"]
    ) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """Return the values of `layer` and the rest of the network as a function of them.

        Raises:
            ValueError: If no value is marked by this name.
        """
        program, flat = program_of(self.model, images, MARKS)
        if layer in program.layers:
            return split(program, flat, layer)
        if layer == OUTPUT:
            return self.model(images), Partial(identity)
        raise ValueError(unknown(layer, with_output(program.layers)))


def identity(x: jax.Array) -> jax.Array:
    """Return activations unchanged: the head at the output."""
    return x


def with_output(names: Iterable[str]) -> tuple[str, ...]:
    """Return names followed by that of the output."""
    return tuple(names) if OUTPUT in names else (*names, OUTPUT)


def unknown(layer: str, names: Sequence[str]) -> str:
    """Return the message for an unknown layer, with all names if they are few or else the closest."""
    if len(names) <= FEW:
        return f"unknown layer {layer!r}; the layers are {', '.join(names)}"
    near = get_close_matches(layer, names, n=5, cutoff=0.0)
    return f"unknown layer {layer!r}; the nearest of {len(names)} layers are {', '.join(near)}"


def marked(model: Any, x: jax.Array) -> Any:
    """Run a layered model with each layer's output marked by its name; other models run unchanged."""
    names = getattr(model, "layer_names", ())
    if hasattr(model, "marked"):
        return model.marked(x)
    if not names or hasattr(model, "split"):
        return model(x)
    x = checkpoint_name(model(x, stop=names[0]), names[0])
    for before, name in pairwise(names):
        x = checkpoint_name(model(x, start=before, stop=name), name)
    return x


def named(model: Callable[..., Any], images: Any = None) -> Named:
    """Make a layered model of any JAX function: values marked by `checkpoint_name` become its layers.

    Mark a value where the model computes it, `x = jax.ad_checkpoint.checkpoint_name(x, "block3")`; the mark
    changes nothing else. Every layer method then works, also with skip connections, since the part after a
    layer carries the values that bypass it. A name used more than once is numbered: `block`, `block#2`, ...

    Args:
        model: Callable pytree of any library, `model(images) -> scores`: `Partial(apply, params)` for Haiku
            or Linen, an Equinox module (`jax.vmap` over it in a function), an NNX module.
        images: Example images, an array or `jax.ShapeDtypeStruct`; with them `layer_names` lists the layers.
            Without, the names are looked up at each call.

    Returns:
        A callable pytree with `split`, and with `layer_names` if images are given. Marks inside loops are
        ignored.

    Raises:
        TypeError: If `model` cannot be called.
        ValueError: If example images are given and no value is marked.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax.ad_checkpoint import checkpoint_name
        >>> import jaxai
        >>> def net(x):
        ...     y = checkpoint_name(jax.nn.relu(x), "features")
        ...     return (x + y).sum((1, 2))
        >>> model = jaxai.layers.named(net)
        >>> jaxai.grad_cam(model, jnp.ones((1, 2, 2, 3)), 0, layer="features", upsample=False)[0, 0].tolist()
        [1.0, 1.0]
    """
    model = _model.as_model(model)
    if images is None:
        return Named(model)
    names = Named(model).names(images)
    if names == (OUTPUT,):
        raise ValueError("`model` must mark a value with jax.ad_checkpoint.checkpoint_name; it marks none")
    return Named(model, names)
