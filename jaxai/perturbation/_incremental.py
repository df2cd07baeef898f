"""Scores of images that differ from one image in a window, recomputing only what the window affects.

The model is traced for one image. The region of every activation that a window affects is known beforehand: a
convolution or pool widens it by its own window, elementwise operations leave it unchanged. So only patches
are computed, cut out of the original activations and pasted into them, until a patch covers most of an
activation or an operation mixes all positions; from there on everything is computed. The results equal those
of the whole model up to float rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._program.facts import Window
from .._program.graph import Constant, Graph, Node, trace, values_of
from .._program.run import evaluate, values
from . import _local_operations as local
from ._windows import Windows

# A patch of this fraction of its activation is no longer worth cutting out.
_MOST = 0.7


@dataclass(frozen=True, eq=False)
class Span:
    """The range that windows affect along one axis of an activation.

    Attributes:
        low: First position that changes, per window.
        high: Position after the last that changes, per window.
        length: Length of the axis.
    """

    low: np.ndarray
    high: np.ndarray
    length: int

    @property
    def size(self) -> int:
        """Length of a patch: the same for all windows, so that shapes are static."""
        return int((self.high - self.low).max())

    @property
    def start(self) -> np.ndarray:
        """First positions of the patches: around the changes, inside the activation."""
        return np.clip(self.low, 0, self.length - self.size)

    def through(self, reads: Window, length: int) -> "Span":
        """Return the affected range of `length` results that read windows."""
        reach = max(reads.size, reads.stride)
        low = -(-(self.low + reads.before - reach + 1) // reads.stride)
        high = (self.high - 1 + reads.before) // reads.stride + 1
        low = np.clip(low, 0, length - 1)
        return Span(low, np.clip(high, low + 1, length), length)

    def joined(self, other: "Span") -> "Span":
        """Return the range affected in either of two activations."""
        return Span(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.length)

    def same(self, other: "Span") -> bool:
        """Return whether patches of both have the same positions."""
        return self.size == other.size and bool((self.start == other.start).all())


Field = tuple[Span, Span]


@dataclass(frozen=True, eq=False)
class Program:
    """A model traced for one image, with the regions that windows affect in its activations.

    Attributes:
        graph: The traced model; its last input is the image.
        fields: The affected regions, by value; values that are computed in full are missing.
        steps: How a node's patches are computed, by its first output.
        dependent: The values that depend on the image.
    """

    graph: Graph
    fields: dict[int, Field]
    steps: dict[int, local.Step]
    dependent: set[int]


def program(model: Any, image: jax.Array | jax.ShapeDtypeStruct, place: Windows) -> tuple[Program, list[Any]]:
    """Trace `model(image)` for image [1, height, width, channels] and plan the patches of all windows.

    Returns:
        The program, and the arrays on which to run its graph.

    Raises:
        TypeError: If the model returns anything but one array.
    """
    graph, flat, tree = trace(model, image, structured=True)
    if tree.num_leaves != 1:
        raise TypeError(f"`model` must return one array of scores; got {tree}")
    source = graph.inputs[-1]
    dependent = graph.dependents([source])
    axes = []
    for axis in (0, 1):
        low = place.strides[axis] * np.arange(place.counts[axis])
        axes.append(Span(low, np.minimum(low + place.window[axis], place.size[axis]), place.size[axis]))
    fields: dict[int, Field] = {source: (axes[0], axes[1])}
    steps: dict[int, local.Step] = {}
    for node in graph.nodes:
        moving = [ref for ref in values_of(node.inputs) if ref in dependent]
        if not moving or any(ref not in fields for ref in moving):
            continue
        step = local.step(node, graph, dependent)
        if step is None:
            continue
        field = fields[moving[0]]
        for ref in moving[1:]:
            field = (field[0].joined(fields[ref][0]), field[1].joined(fields[ref][1]))
        out = graph.shape(node.outputs[0])
        rows, columns = step.reads
        after = (field[0].through(rows, out[1]), field[1].through(columns, out[2]))
        if after[0].size * after[1].size < _MOST * out[1] * out[2]:
            fields[node.outputs[0]] = after
            steps[node.outputs[0]] = step
    return Program(graph, fields, steps, dependent), flat


def saving(plan: Program) -> float:
    """Return the factor by which windows need fewer multiplications than the whole model."""
    whole = partly = 0.0
    for node in plan.graph.nodes:
        work = local.multiplications(node, plan.graph)
        if not work or node.outputs[0] not in plan.dependent:
            continue
        whole += work
        if node.outputs[0] in plan.fields:
            rows, columns = plan.fields[node.outputs[0]]
            work *= rows.size * columns.size / (rows.length * columns.length)
        partly += work
    return whole / partly if partly else 1.0


def lightness(plan: Program) -> int:
    """Return how many windows need the memory of one whole image, comparing the largest value of each."""
    whole = partly = 1.0
    for ref in plan.dependent:
        size = float(np.prod(plan.graph.shape(ref)))
        whole = max(whole, size)
        if ref in plan.fields:
            rows, columns = plan.fields[ref]
            size *= rows.size * columns.size / (rows.length * columns.length)
        partly = max(partly, size)
    return max(1, int(whole / partly))


def originals(plan: Program, flat: list[Any]) -> dict[int, Any]:
    """Return every value of the graph for the original image."""
    return values(plan.graph, flat)


def scores(
    plan: Program, env: dict[int, Any], background: jax.Array, place: Windows, numbers: jax.Array
) -> jax.Array:
    """Return the model's outputs when these windows are covered.

    Args:
        plan: The program.
        env: The original image's values, as `originals` returns them.
        background: The content of covered windows, [1, height, width, channels].
        place: The windows.
        numbers: Which windows, int32 [chunk].

    Returns:
        [chunk, classes].
    """
    return _Run(plan, env, numbers // place.counts[1], numbers % place.counts[1]).run(background)


@dataclass(eq=False)
class _Patches:
    """The changed part of a value: [chunk, rows, columns, channels]."""

    ref: int
    patches: jax.Array
    whole: jax.Array | None = None


@dataclass(frozen=True, eq=False)
class _Whole:
    """A value for every window of the chunk in full, [chunk, 1, ...]."""

    values: jax.Array


class _Run:
    """One chunk of windows, run through the program as patches as far as possible, and then in full."""

    def __init__(self, plan: Program, env: dict[int, Any], rows: jax.Array, columns: jax.Array):
        self.plan, self.env = plan, env
        self.rows, self.columns = rows, columns

    def run(self, background: jax.Array) -> jax.Array:
        graph, dependent = self.plan.graph, self.plan.dependent
        *rest, source = graph.inputs
        image = _Patches(source, self.covered(source, background))
        known = {ref: value for ref, value in self.env.items() if ref not in dependent}
        (output,) = evaluate(graph, [*(self.env[ref] for ref in rest), image], known=known, each=self.each)
        if isinstance(output, _Patches | _Whole):
            return self.complete(output)[:, 0]
        return jnp.broadcast_to(output, (len(self.rows), *jnp.shape(output)[1:]))

    def each(self, node: Node, operands: Sequence[Any]) -> Sequence[Any]:
        step = self.plan.steps.get(node.outputs[0]) if node.outputs else None
        if step is None:
            return self.full(node, operands)
        return (_Patches(node.outputs[0], self.changed(node, operands, step)),)

    def covered(self, source, background):
        """Return patches of the image: background inside the window, the image around it."""
        down, across = self.plan.fields[source]
        shape = (down.size, across.size)
        starts = self.at(down.start, 0), self.at(across.start, 1)
        inside = []
        for axis, span in enumerate((down, across)):
            position = starts[axis][:, None] + jnp.arange(span.size)[None]
            low, high = self.at(span.low, axis)[:, None], self.at(span.high, axis)[:, None]
            inside.append((position >= low) & (position < high))
        window = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
        return jnp.where(window, cut(background[0], *starts, shape), cut(self.env[source][0], *starts, shape))

    def at(self, table: np.ndarray, axis: int) -> jax.Array:
        """Select the numbers of window rows (axis 0) or columns (axis 1) for this chunk."""
        return jnp.asarray(table, jnp.int32)[(self.rows, self.columns)[axis]]

    def changed(self, node: Node, operands: Sequence[Any], step: local.Step) -> jax.Array:
        """Compute a node's patches."""
        target = self.plan.fields[node.outputs[0]]
        return step.run(
            [
                self.region(value, target, step)
                if isinstance(value, _Patches)
                else value
                if isinstance(ref, Constant)
                else self.fixed(ref, value, target, step)
                for ref, value in zip(node.inputs, operands, strict=True)
            ]
        )

    def region(self, operand: _Patches, target: Field, step: local.Step) -> jax.Array:
        """Return the part of an operand, including changes, from which a node's patches are computed."""
        field, patch = self.plan.fields[operand.ref], operand.patches
        if step.pointwise and field[0].same(target[0]) and field[1].same(target[1]):
            return patch
        original, wide, inner = self.env[operand.ref][0], [], []
        pads, lengths, shifts = [], [], []
        for axis in (0, 1):
            _, window, stride, before = step.reads[axis]
            length = (target[axis].size - 1) * stride + window
            first, held = target[axis].start * stride, field[axis].start + before
            # Slices must contain the patch, even parts that no window reads.
            low = np.minimum(first, held)
            size = int((np.maximum(first + length, held + field[axis].size) - low).max())
            pads.append((before, max(0, int(low.max()) + size - before - field[axis].length)))
            wide.append(low)
            lengths.append(size)
            shifts.append(held - low)
            inner.append((first - low, length))
        if any(before or after for before, after in pads):
            original = jnp.pad(original, (*pads, (0, 0)), constant_values=step.padding_value)
        region = cut(original, self.at(wide[0], 0), self.at(wide[1], 1), tuple(lengths))
        region = paste(region, patch, self.at(shifts[0], 0), self.at(shifts[1], 1))
        if any((offset != 0).any() for offset, _ in inner) or [length for _, length in inner] != lengths:
            rows, columns = self.at(inner[0][0], 0), self.at(inner[1][0], 1)
            region = cut_each(region, rows, columns, (inner[0][1], inner[1][1]))
        return region

    def fixed(self, ref: int, value: Any, target: Field, step: local.Step) -> Any:
        """Return an operand independent of the image, cropped to the patches if it varies with position."""
        shape = jnp.shape(value)
        if not step.elementwise or len(shape) != 4 or shape[1:3] == (1, 1):
            return value
        if ref in step.uniform:
            return value[:, :1, :1]
        starts = self.at(target[0].start, 0), self.at(target[1].start, 1)
        return cut(value[0], *starts, (target[0].size, target[1].size))

    def complete(self, value: "_Patches | _Whole") -> jax.Array:
        """Return a value for every window of the chunk in full, [chunk, 1, ...]."""
        if isinstance(value, _Whole):
            return value.values
        if value.whole is None:
            field, patch = self.plan.fields[value.ref], value.patches
            original = self.env[value.ref]
            copies = jnp.broadcast_to(original, (patch.shape[0], *original.shape[1:]))
            starts = self.at(field[0].start, 0), self.at(field[1].start, 1)
            value.whole = paste(copies, patch, *starts)[:, None]
        return value.whole

    def full(self, node: Node, operands: Sequence[Any]) -> Sequence[Any]:
        """Compute a node for whole values."""
        moving = [isinstance(value, _Patches | _Whole) for value in operands]
        whole = [self.complete(v) if moves else v for v, moves in zip(operands, moving, strict=True)]
        if not any(moving):
            return node.run(*whole)
        return [_Whole(y) for y in jax.vmap(node.run, [0 if moves else None for moves in moving])(*whole)]


def cut(value: jax.Array, rows: jax.Array, columns: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Cut patches [chunk, *size, channels] out of one activation [height, width, channels]."""
    sizes = (*size, value.shape[2])
    return jax.vmap(lambda row, column: lax.dynamic_slice(value, (row, column, 0), sizes))(rows, columns)


def cut_each(values: jax.Array, rows: jax.Array, columns: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Cut one patch out of each activation [chunk, height, width, channels]."""

    def one(value, row, column):
        return lax.dynamic_slice(value, (row, column, 0), (*size, value.shape[2]))

    return jax.vmap(one)(values, rows, columns)


def paste(values: jax.Array, patches: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Put a patch into each activation [chunk, height, width, channels]."""

    def one(value, patch, row, column):
        return lax.dynamic_update_slice(value, patch, (row, column, 0))

    return jax.vmap(one)(values, patches, rows, columns)
