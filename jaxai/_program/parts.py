"""Programs with named values, and their two parts: up to a value, and from it on."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
from jax.core import Tracer
from jax.tree_util import register_dataclass

from .._frame import model as _model
from . import layout
from .control_flow import REMAT
from .dense import PRODUCTS, scores_of
from .graph import Graph, graph_of, jaxpr_of, values_of
from .names import cuts, has_names, layers_of, marks_of
from .run import evaluate

# Loops of more steps are not unrolled, because every step would be compiled separately.
MOST_STEPS = 64


def _has_mark(graph: Graph) -> bool:
    return any(node.name == "name" for node in graph.nodes)


def _marked_regions(primitive, params, body):
    return primitive in REMAT and _has_mark(body)


def _marked(closed):
    return graph_of(closed, structured=True, enter=_has_mark, opens=_marked_regions)


def _worth_opening(primitive, params, body):
    if primitive not in REMAT and params["length"] > MOST_STEPS:
        return False
    return has_names(body) or any(node.name in PRODUCTS for node in body.nodes)


def _found(closed):
    """Inline loops and regions, but not functions with a derivative of their own."""
    return graph_of(closed, structured=True, enter=lambda graph: False, opens=_worth_opening)


@dataclass(frozen=True)
class Reading:
    """Options for reading a program: what is inlined, and which values are layers."""

    graph: Callable[[Any], Graph]
    layers: Callable[[Graph], dict[str, int]]


MARKS = Reading(_marked, marks_of)
FOUND = Reading(_found, layers_of)


class Program:
    """A traced function of images with its layers; one object per program, so that splits compile once.

    Attributes:
        graph: The program.
        tree: The tree of its results.
        layers: The number of each layer's value, by name, in forward order.
    """

    def __init__(self, closed: Any, tree: Any, reading: Reading):
        self.graph, self.tree = reading.graph(closed), tree
        self.layers = reading.layers(self.graph)
        self._parts: dict[str, tuple[Graph, Graph]] = {}

    def aval(self, layer: str) -> Any:
        """Return the shape and type of a layer."""
        return self.graph.avals[self.layers[layer]]

    def parts(self, layer: str) -> tuple[Graph, Graph]:
        """Return the graphs before a layer (its value, then the values that bypass it) and after it."""
        if layer not in self._parts:
            graph, mark = self.graph, self.layers[layer]
            above = graph.dependents([mark])
            after = [n for n in graph.nodes if mark not in n.outputs and above.intersection(n.outputs)]
            read = values_of([*(ref for node in after for ref in node.inputs), *graph.outputs])
            crossing = [ref for ref in dict.fromkeys(read) if ref not in above]
            rest = replace(graph, nodes=after, inputs=[mark, *crossing], constants={})
            self._parts[layer] = graph.part(graph.inputs, [mark, *crossing]), rest
        return self._parts[layer]

    def run(self, before: Graph, flat: list[Any]) -> list[Any]:
        """Evaluate a part of the program from its start."""
        if any(isinstance(x, Tracer) for x in flat):
            return evaluate(before, flat)
        return _run(before, flat)

    @cached_property
    def axes(self) -> dict[int, Any]:
        """The image axes of each value (see `layout`)."""
        return layout.of_values(self.graph)

    @cached_property
    def scores(self) -> set[int]:
        """The values that are dense scores, or become them without another product along the channels."""
        return scores_of(self.graph, self.axes)

    @cached_property
    def narrow(self) -> set[int]:
        """The values that alone carry all that depends on the images, and the values with their names."""
        found = {value for _, value in cuts(self.graph)}
        names = {node.outputs[0]: node.inputs[0] for node in self.graph.nodes if node.name == "name"}
        return found | {named for named, value in names.items() if value in found}

    def feeds_all(self, layer: str) -> bool:
        """Return whether all results that depend on the images depend on a layer."""
        moving = self.graph.dependents(self.graph.inputs[-1:]).intersection(values_of(self.graph.outputs))
        return moving <= self.graph.dependents([self.layers[layer]])

    def reaches(self, layer: str) -> bool:
        """Return whether the result depends on a layer's positions, not only on other tokens."""
        _, rest = self.parts(layer)
        return layout.reaches(rest, self.axes[self.layers[layer]])


@partial(jax.jit, static_argnums=0)
def _run(graph, flat):
    return evaluate(graph, flat)


def program_of(model: Any, images: Any, reading: Reading) -> tuple[Program, list[Any]]:
    """Return the program of `model(images)`, and the arrays on which to evaluate it."""
    flat, structure = jax.tree.flatten((model, images))
    found = _program(structure, _model.shapes_and_types(flat), reading)
    if found is not None:
        return found, flat
    # The function closes over traced values.
    closed, flat, tree = jaxpr_of(model, images)
    return Program(closed, tree, reading), flat


@lru_cache(maxsize=32)
def _program(structure, leaves, reading) -> Program | None:
    traced = _model.call.trace(*_model.concrete(structure, leaves))
    if len(traced.jaxpr.jaxpr.invars) != len(leaves):
        return None
    return Program(traced.jaxpr, jax.tree.structure(traced.out_info), reading)


@register_dataclass
@dataclass(frozen=True, eq=False)
class Rest:
    """The part of a function after a value: `rest(acts) -> scores`.

    Attributes:
        crossing: Earlier values that are used after it: parameters, skip connections.
        program: The graph to run, and the tree of its results.
        layer: The value's name.
    """

    crossing: tuple[jax.Array, ...]
    program: Any = field(metadata={"static": True})
    layer: str = field(metadata={"static": True})

    def __call__(self, acts: jax.Array) -> Any:
        """Return the scores of these activations.

        Raises:
            ValueError: If their shape differs from that of the images with which the network was split. The
                head of a single image takes any number of activations.
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


def split(program: Program, flat: list[Any], layer: str) -> tuple[jax.Array, Rest]:
    """Return the values of a layer and the rest of the program as a function of them."""
    before, after = program.parts(layer)
    acts, *crossing = program.run(before, flat)
    return acts, Rest(tuple(crossing), (after, program.tree), layer)


def between(program: Program, flat: list[Any], acts: jax.Array, start: str, stop: str | None) -> Any:
    """Compute the program's result, or another layer's values, from a layer's values alone.

    Raises:
        ValueError: If the values are of the wrong shape, other values that depend on the images are needed as
            well, or `stop` does not come after `start`.
    """
    graph, (_, rest) = program.graph, program.parts(start)
    expected = graph.shape(rest.inputs[0])
    if acts.shape != expected:
        raise ValueError(f"activations at {start!r} must have shape {expected}; got {acts.shape}")
    if stop is not None:
        value = program.layers[stop]
        if value not in graph.dependents(rest.inputs[:1]):
            raise ValueError(f"`stop` must not come before `start`; got start={start!r}, stop={stop!r}")
        rest = rest.part(rest.inputs, [value])
    read = {ref for node in rest.nodes for ref in values_of(node.inputs)} | set(values_of(rest.outputs))
    crossing = [ref for ref in rest.inputs[1:] if ref in read]
    if graph.dependents(graph.inputs[-1:]).intersection(crossing):
        raise ValueError(
            f"what follows {start!r} needs other values of the images too (skip connections):"
            f" jaxai.split(model, {start!r}, images) returns a head that carries them"
        )
    before = graph.part(graph.inputs[:-1], crossing)
    rest = replace(rest, inputs=[rest.inputs[0], *crossing])
    results = evaluate(rest, [acts, *evaluate(before, flat[:-1])])
    return results[0] if stop is not None else jax.tree.unflatten(program.tree, results)
