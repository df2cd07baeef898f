"""Layers of functions that are not chains: values marked by name, and what else crosses them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial, register_dataclass
from jaxtyping import Array, Float

from .._frame import model as _model
from .graph import Graph, graph_of, jaxpr_of, values_of
from .run import evaluate

OUTPUT = "logits"


@register_dataclass
@dataclass(frozen=True)
class Named:
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
        marks = tuple(_marks(_trace(self.model, images)[-1]))
        return marks if OUTPUT in marks else (*marks, OUTPUT)

    def split(
        self, layer: str, images: Float[Array, "batch height width channels"]
    ) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """Return the values of `layer` and the rest of the network as a function of them.

        Raises:
            ValueError: If no value is marked by this name.
        """
        graph, flat, tree, key = _trace(self.model, images)
        marks = _marks(key)
        if layer not in marks:
            if layer == OUTPUT:
                return self.model(images), Partial(_identity)
            raise ValueError(f"unknown layer {layer!r}; the layers are {', '.join((*marks, OUTPUT))}")
        before, after = _cut(key, layer)
        acts, *crossing = evaluate(before, flat)
        return acts, NamedHead(tuple(crossing), (after, tree), layer)


@register_dataclass
@dataclass(frozen=True)
class NamedHead:
    """The part of a function after a marked value: `head(acts) -> scores`.

    Attributes:
        crossing: Values from before the mark that are used after it: parameters, skip connections.
        program: What to run, and the tree of its results.
        layer: The mark's name.
    """

    crossing: tuple[jax.Array, ...]
    program: Any = field(metadata={"static": True})
    layer: str = field(metadata={"static": True})

    def __call__(self, acts: jax.Array) -> jax.Array:
        """Return the scores of these activations.

        Raises:
            ValueError: If they are of other shape than those of the images that the network was split at. One
                image's head takes any number of them.
        """
        graph, tree = self.program
        expected = graph.shape(graph.inputs[0])

        def run(acts):
            return jax.tree.unflatten(tree, evaluate(graph, [acts, *self.crossing]))

        if acts.shape == expected:
            return run(acts)
        if expected[:1] == (1,) and acts.shape[1:] == expected[1:]:
            scores = jax.vmap(run)(acts[:, None])
            return jax.tree.map(lambda s: s.reshape(-1, *s.shape[2:]), scores)
        raise ValueError(
            f"activations at {self.layer!r} must have shape {expected}, as those of the images the model was"
            f" split at, whose skip connections the head carries; got {acts.shape}. Use jax.vmap for copies"
        )


def _identity(x):
    return x


class _Key:
    """A traced function as a key of a cache: equal if it is the same jaxpr."""

    def __init__(self, closed):
        self.closed = closed

    def __eq__(self, other):
        return isinstance(other, _Key) and self.closed is other.closed

    def __hash__(self):
        return id(self.closed)


def _trace(model, images):
    images = jax.ShapeDtypeStruct(images.shape, images.dtype) if not hasattr(images, "aval") else images
    closed, flat, tree = jaxpr_of(model, images)
    key = _Key(closed)
    return _graph(key), flat, tree, key


# The same program must be the same object each time, or every split would be compiled anew.
@lru_cache(maxsize=32)
def _graph(key: _Key) -> Graph:
    return graph_of(key.closed, structured=True, enter=_has_mark, open_remat=True)


def _has_mark(graph: Graph) -> bool:
    return any(node.name == "name" for node in graph.nodes)


@lru_cache(maxsize=32)
def _marks(key: _Key) -> dict[str, int]:
    """Return the marked values that depend on the images, by name; repeated names are numbered."""
    graph = _graph(key)
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    dependent = graph.dependents(graph.inputs[-1:])
    for node in graph.nodes:
        if node.name != "name" or node.outputs[0] not in dependent:
            continue
        if not jnp.issubdtype(graph.avals[node.outputs[0]].dtype, jnp.floating):
            continue
        name = node.params["name"]
        counts[name] = counts.get(name, 0) + 1
        found[name if counts[name] == 1 else f"{name}#{counts[name]}"] = node.outputs[0]
    return found


@lru_cache(maxsize=256)
def _cut(key: _Key, layer: str) -> tuple[Graph, Graph]:
    """Return the graphs before a mark (its value, then what crosses) and after it."""
    graph = _graph(key)
    mark = _marks(key)[layer]
    above = graph.dependents([mark])
    after = [node for node in graph.nodes if mark not in node.outputs and above.intersection(node.outputs)]
    read = values_of([*(ref for node in after for ref in node.inputs), *graph.outputs])
    crossing = [ref for ref in dict.fromkeys(read) if ref not in above]
    rest = replace(graph, nodes=after, inputs=[mark, *crossing], constants={})
    return graph.part(graph.inputs, [mark, *crossing]), rest


def marked(model: Any, x: jax.Array) -> jax.Array:
    """Run a layered model with each layer's output marked by its name; other models as they are."""
    names = getattr(model, "layer_names", ())
    if not names or hasattr(model, "split"):
        return model(x)
    x = checkpoint_name(model(x, stop=names[0]), names[0])
    for before, name in pairwise(names):
        x = checkpoint_name(model(x, start=before, stop=name), name)
    return x


def named(model: Callable[..., Any], images: Any = None) -> Named:
    """Make a layered model of any JAX function: values marked by `checkpoint_name` become its layers.

    Mark a value where the model computes it, `x = jax.ad_checkpoint.checkpoint_name(x, "block3")`; the mark
    changes nothing else. Then every layer method works, through skip connections too, since the part after a
    layer carries whatever else crosses it. A name used more than once is numbered: `block`, `block#2`, ...

    Args:
        model: Callable pytree of any library, `model(images) -> scores`: `Partial(apply, params)` for Haiku
            or Linen, an Equinox module (`jax.vmap` over it in a function), an NNX module.
        images: Example images, an array or `jax.ShapeDtypeStruct`; with them `layer_names` lists the layers.
            Without, the names are looked up at each call.

    Returns:
        A callable pytree with `split`, and with `layer_names` if images are given. Marks inside loops are
        passed over.

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
