"""Attention matrices in the program of any network: softmaxes that are multiplied by values.

All gradients come from one backward pass: zeros are added to each matrix, and the score is differentiated
with respect to them. The program is that of one image, mapped over the images, so that an image's matrices
are [heads, queries, keys] however a library arranges its heads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._frame.targets import Target
from .._program import layout
from .._program.facts import fact
from .._program.graph import Graph, Node, graph_of
from .._program.layouts import Tokens
from .._program.names import marks_of
from .._program.parts import MOST_STEPS, Program, Reading, program_of
from .._program.run import evaluate, run_node
from .._program.wholes import find_softmaxes


class Matrix(NamedTuple):
    """The location of an attention matrix.

    Attributes:
        value: Its number in the program.
        queries: The axis of the query tokens; None if there is a single query, as in a pool.
        keys: The axis of the key tokens.
    """

    value: int
    queries: int | None
    keys: int


def _has_softmax(graph: Graph) -> bool:
    return any(node.name == "exp" or any(map(_has_softmax, node.bodies)) for node in graph.nodes)


def _opens(primitive: str, params: dict[str, Any], body: Graph) -> bool:
    return _has_softmax(body) and params.get("length", 0) <= MOST_STEPS


def _read(closed: Any) -> Graph:
    return graph_of(closed, structured=True, enter=_has_softmax, opens=_opens)


READING = Reading(_read, marks_of)


@dataclass(frozen=True)
class Attention:
    """The program of a network on one image, with its attention matrices.

    Attributes:
        program: The program.
        flat: The arrays on which it is evaluated, the image last.
        matrices: In forward order.
        tokens: Layout of the tokens on the image.
    """

    program: Program
    flat: list[Any]
    matrices: tuple[Matrix, ...]
    tokens: Tokens

    @property
    def count(self) -> int:
        """Number of tokens."""
        return _rows_and_columns(self.program.graph, self.matrices[0])[1]

    def check_start(self, start: int) -> None:
        """Check the index of the first layer used.

        Raises:
            ValueError: If there is no such layer.
        """
        if start >= len(self.matrices):
            raise ValueError(
                f"`start` must be less than {len(self.matrices)}, the number of attention layers; got {start}"
            )

    def zeros(self, batch: int) -> tuple[jax.Array, ...]:
        """Return zeros to add to each matrix, [batch, heads, queries, keys]."""
        found = []
        for matrix in self.matrices:
            rows, columns = _rows_and_columns(self.program.graph, matrix)
            heads = math.prod(self.program.graph.shape(matrix.value)) // (rows * columns)
            found.append(jnp.zeros((batch, heads, rows, columns), jnp.float32))
        return tuple(found)

    def run(self, images: jax.Array, deltas: Sequence[jax.Array]) -> tuple[Any, tuple[jax.Array, ...]]:
        """Return the network's output with something added to each matrix, and the matrices.

        Args:
            images: [batch, height, width, channels].
            deltas: Per matrix [batch, heads, queries, keys].
        """
        return jax.vmap(self.one)(images[:, None], tuple(deltas))

    def one(
        self,
        image: jax.Array,
        deltas: Sequence[jax.Array],
        look: Callable[[int, jax.Array], jax.Array] = lambda value, result: result,
    ) -> tuple[Any, tuple[jax.Array, ...]]:
        """Do the same for one image [1, height, width, channels], without the batch axis.

        Args:
            image: The image.
            deltas: Per matrix [heads, queries, keys].
            look: `look(value, result) -> result` is called with each value of the program, by number.
        """
        places = {matrix.value: i for i, matrix in enumerate(self.matrices)}
        seen: dict[int, jax.Array] = {}

        def each(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
            results = list(run_node(node, operands))
            for place, out in enumerate(node.outputs):
                if out in places:
                    i = places[out]
                    seen[i], results[place] = self._added(self.matrices[i], results[place], deltas[i])
                results[place] = look(out, results[place])
            return results

        outputs = evaluate(self.program.graph, [*self.flat[:-1], image], each=each)
        scores = jax.tree.unflatten(self.program.tree, outputs)
        return jax.tree.map(lambda s: s[0], scores), tuple(seen[i] for i in range(len(places)))

    def _added(self, matrix, value, delta):
        """Return a matrix as [heads, queries, keys], and the matrix with something added in its own shape."""
        last = [matrix.keys] if matrix.queries is None else [matrix.queries, matrix.keys]
        order = [axis for axis in range(value.ndim) if axis not in last] + last
        moved = value.transpose(order)
        back = delta.reshape(moved.shape).transpose([order.index(axis) for axis in range(value.ndim)])
        return moved.reshape(delta.shape).astype(jnp.float32), value + back.astype(value.dtype)


def find(model: Any, image: Any, tokens: Tokens | None) -> Attention:
    """Return the attention matrices of a network.

    Args:
        model: Callable pytree.
        image: [1, height, width, channels].
        tokens: Layout of the tokens on the image; None reads it from the program.

    Raises:
        ValueError: If there are no attention matrices, they do not belong to one set of tokens, or the
            program does not determine the layout of the tokens.
    """
    program, flat = program_of(model, image, READING)
    matrices = _matrices(program.graph)
    if not matrices:
        raise ValueError(
            "`model` must have attention matrices: softmaxes along the tokens, multiplied by values; its"
            " program has none (kernels that never write them down, such as flash attention, hide them)"
        )
    shapes = {m: _rows_and_columns(program.graph, m) for m in matrices}
    counts = {shape for m, shape in shapes.items() if m.queries is not None}
    columns = {shape[1] for shape in shapes.values()}
    if len(columns) > 1 or any(rows != keys for rows, keys in counts) or not counts:
        listed = ", ".join(f"{rows} x {keys}" for rows, keys in dict.fromkeys(shapes.values()))
        raise ValueError(
            "`model` must have attention between all of one set of tokens, the same in each layer; its"
            f" matrices are {listed} (windows and pyramids have no map of this kind)"
        )
    return Attention(program, flat, matrices, _tokens(program, matrices, tokens))


def _rows_and_columns(graph: Graph, matrix: Matrix) -> tuple[int, int]:
    shape = graph.shape(matrix.value)
    return 1 if matrix.queries is None else shape[matrix.queries], shape[matrix.keys]


def _tokens(program: Program, matrices: tuple[Matrix, ...], given: Tokens | None) -> Tokens:
    count = _rows_and_columns(program.graph, matrices[0])[1]
    if given is not None:
        if given.prefix + given.grid[0] * given.grid[1] > count:
            raise ValueError(f"`tokens` must fit the network's {count} tokens; got {given}")
        return given
    for matrix in matrices:
        axes = program.axes[matrix.value]
        found = None if axes is None else layout.name(((), axes[matrix.keys], ()), (1, count, 1))
        if isinstance(found, Tokens):
            return found
    raise ValueError(
        f"the program does not tell how its {count} tokens lie on the image: pass"
        " tokens=jaxai.layers.Tokens(grid=(rows, columns), prefix=n)"
    )


@lru_cache(maxsize=32)
def _matrices(graph: Graph) -> tuple[Matrix, ...]:
    """Return the attention matrices of a program, in forward order."""
    image = graph.inputs[-1]
    dependent, readers = graph.dependents([image]), graph.readers()
    found = []
    for softmax in find_softmaxes(graph, image):
        value = softmax.nodes[-1].outputs[0]
        if len(softmax.axes) != 1:
            continue
        rank, keys = len(graph.shape(value)), softmax.axes[0]
        queries = _queries(graph, readers, dependent, value, tuple(range(rank)), keys)
        if queries is not None:
            found.append(Matrix(value, *queries, keys))
    return tuple(found)


def _queries(graph, readers, dependent, value, places, keys) -> tuple[int | None] | None:
    """Return the axis of the queries if a value is multiplied by others along its keys.

    Args:
        graph: The program.
        readers: The readers of each value.
        dependent: The values that depend on the image.
        value: A softmax, or a value derived from it.
        places: The axis of the softmax that each axis of the value corresponds to.
        keys: The softmax's axis.
    """
    for node in readers.get(value, ()):
        if node.name == "dot_general":
            side = 0 if node.inputs[0] == value else 1
            contracted, batched = (pair[side] for pair in node.params["dimension_numbers"])
            other = node.inputs[1 - side]
            if [places[axis] for axis in contracted] == [keys] and other in dependent:
                shape = graph.shape(value)
                free = [a for a in range(len(shape)) if a not in (*contracted, *batched) and shape[a] > 1]
                if len(free) <= 1:
                    return (places[free[0]] if free else None,)
            continue
        moved = _moved(graph, node, value, places)
        others = [ref for ref in node.inputs if ref != value and ref in dependent]
        if moved is not None and not others:
            found = _queries(graph, readers, dependent, node.outputs[0], moved, keys)
            if found is not None:
                return found
    return None


def _moved(graph, node, value, places):
    """Return the axes of a value after a node that only scales or rearranges it; None otherwise."""
    if node.name == "transpose":
        return tuple(places[axis] for axis in node.params["permutation"])
    old, new = graph.shape(value), graph.shape(node.outputs[0])
    if old == new and (fact(node.name).elementwise or node.name == "name"):
        return places
    if not fact(node.name).rearranges or len(node.inputs) != 1:
        return None
    # Axes of length one may be added and removed.
    before = [axis for axis, size in enumerate(old) if size > 1]
    after = [axis for axis, size in enumerate(new) if size > 1]
    if [old[axis] for axis in before] != [new[axis] for axis in after]:
        return None
    known = dict(zip(after, (places[axis] for axis in before), strict=True))
    return tuple(known.get(axis, -1) for axis in range(len(new)))


def gradients(
    found: Attention, images: jax.Array, targets: Target, *, batch_size: int | None
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Return the attention matrices, and the gradients of the explained value with respect to them.

    Returns:
        Per layer [batch, heads, queries, keys]; gradients have an axis k after the batch for k targets.
    """
    outputs, pullback, matrices = jax.vjp(
        partial(found.run, images), found.zeros(images.shape[0]), has_aux=True
    )
    target = targets.frozen(outputs)
    directions = target.cotangents(outputs)
    slopes = target.pull(lambda d: pullback(d)[0], directions, batch_size=batch_size)
    return matrices, slopes


def positions(relevance: jax.Array, found: Attention) -> jax.Array:
    """Return the values of the grid's tokens, from [..., tokens], as [..., rows, columns]."""
    rows, columns = found.tokens.grid
    start = found.tokens.prefix
    inside = relevance[..., start : start + rows * columns]
    return inside.reshape(*relevance.shape[:-1], rows, columns)


def slopes_of_all_outputs(found: Attention, images: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Return the attention matrices, and the last layer's gradient of a mixture of all outputs.

    Only what comes after the last matrix is differentiated.
    """
    *others, last = found.zeros(images.shape[0])

    def outputs(delta):
        results, matrices = found.run(images, (*others, delta))
        return [
            leaf for leaf in jax.tree.leaves(results) if jnp.issubdtype(leaf.dtype, jnp.inexact)
        ], matrices

    results, pullback, matrices = jax.vjp(outputs, last, has_aux=True)
    # Different for each output, since the sum of probabilities has no gradient.
    mixture = [
        jnp.cos(jnp.arange(r.size, dtype=jnp.float32)).reshape(r.shape).astype(r.dtype) for r in results
    ]
    return matrices, pullback(mixture)[0]


def read_out(paths: jax.Array, found: Attention, queries: str | None, last: jax.Array | None) -> jax.Array:
    """Return how much the result reads of each token, given each token's composition.

    Args:
        paths: [..., rows, tokens]; a single row is that of a pool.
        found: The network.
        queries: `"class"`, the first token; `"mean"`, all tokens of the grid; None is the class token if
            there are tokens before the grid and the network reads the first.
        last: The gradient with respect to the last matrix [..., heads, rows, tokens], which tells what is
            read; not needed if `queries` is given or nothing is before the grid.
    """
    if paths.shape[-2] == 1:
        return paths[..., 0, :]
    start, (rows, columns) = found.tokens.prefix, found.tokens.grid
    of_class = paths[..., 0, :]
    if queries == "class":
        return of_class
    of_grid = paths[..., start : start + rows * columns, :].mean(-2)
    if queries == "mean" or not start:
        return of_grid
    assert last is not None
    read = (last != 0).any((-3, -1))
    # Where nothing has a gradient, nothing is known of what is read.
    by_class = read[..., 0] | ~read.any(-1)
    return jnp.where(by_class[..., None], of_class, of_grid)
