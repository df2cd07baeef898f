"""Bidirectional maps: perception through weighted attention, times feedback from the class."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.contract import completed
from .._frame.targets import Targets
from .._program import layout
from .._program.graph import Graph
from .._program.layouts import Tokens
from .._program.wholes import dominators
from ._matrices import Attention, Matrix, gradients, positions, read_out
from ._shared import explain, is_sum, propagated

APPROXIMATIONS = ("head", "token")


def _bidirectional(found, images, targets, *, batch_size, approximation, start, steps, queries):
    found.check_start(start)
    outputs, _ = found.run(images, found.zeros(images.shape[0]))
    # The class of the original image, also for the darkened images.
    target = targets.frozen(outputs)
    if approximation == "head":
        matrices, slopes = gradients(found, images, target, batch_size=batch_size)
        weighted = _by_heads(matrices[start:], slopes[start:])
    else:
        weighted = _by_tokens(found, images)[start:]
    perception = propagated(weighted, found.count)

    def at(share):
        return gradients(found, images * share, target, batch_size=batch_size)[1][-1]

    shares = jnp.linspace(0, 1, steps, dtype=images.dtype)
    slope = lax.map(at, shares).mean(0)
    feedback = jax.nn.relu(slope).mean(-3)
    if perception.ndim < feedback.ndim:
        # The weights of tokens are the same for every class.
        perception = perception[:, None]
    return positions(read_out(perception * feedback, found, queries, slope), found)


def _by_heads(matrices, slopes):
    """Return sum_h I_h A_h for each layer."""
    weighted = []
    for matrix, slope in zip(matrices, slopes, strict=True):
        beside = matrix if slope.ndim == matrix.ndim else matrix[:, None]
        share = jnp.abs(jnp.swapaxes(beside, -1, -2) @ slope).mean((-1, -2))
        total = share.sum(-1, keepdims=True)
        share = share / jnp.where(total == 0, 1, total)
        weighted.append((share[..., None, None] * beside).sum(-3))
    return weighted


def _by_tokens(found: Attention, images: jax.Array) -> list[jax.Array]:
    """Return the mean over heads of A, times the length of each token's value relative to the token's.

    The contribution of the values to the stream of tokens is linear in A: what it gains if the identity
    matrix is added to A, in all heads at once, is each token's own value after all linear maps (projection,
    scales), without bias. The stream itself is kept as it is, so that later layers see the same tokens.
    """
    graph = found.program.graph
    branches = _branches(graph, found.matrices)
    axes = [_token_axis(found, branch.stream) for branch in branches]
    ends = {branch.end for branch in branches}

    def one(image, zeros, along):
        plain: dict[int, jax.Array] = {}
        moved: dict[int, jax.Array] = {}

        def look(value, result):
            plain[value] = result
            return result

        def look_again(value, result):
            moved[value] = result
            return plain[value] if value in ends else result

        _, matrices = found.one(image, zeros, look)
        found.one(image, along, look_again)
        values = [moved[branch.added] - plain[branch.added] for branch in branches]
        return values, [plain[branch.stream] for branch in branches], matrices

    zeros = found.zeros(images.shape[0])
    along = tuple(jnp.broadcast_to(jnp.eye(found.count, dtype=z.dtype), z.shape) for z in zeros)
    values, streams, matrices = jax.vmap(one)(images[:, None], zeros, along)
    weighted = []
    for matrix, value, stream, axis in zip(matrices, values, streams, axes, strict=True):
        own, whole = _lengths(value, axis), _lengths(stream, axis)
        ratio = own / jnp.where(whole == 0, 1, whole)
        weighted.append(matrix.mean(-3) * ratio[:, None, :])
    return weighted


class Branch(NamedTuple):
    """Where attention joins the stream of tokens: the numbers of the stream, the summand and the sum."""

    stream: int
    added: int
    end: int


@lru_cache(maxsize=32)
def _branches(graph: Graph, matrices: tuple[Matrix, ...]) -> tuple[Branch, ...]:
    """Return per attention layer the first later sum through which everything after it passes.

    Raises:
        ValueError: If there is none.
    """
    above, producers = dominators(graph, graph.inputs[-1]), graph.producers()
    dependent = graph.dependents(graph.inputs[-1:])
    found = []
    ends = [*(matrix.value for matrix in matrices[1:]), *(r for r in graph.outputs[:1] if isinstance(r, int))]
    for matrix, value in zip(matrices, ends, strict=True):
        after, first = graph.dependents([matrix.value]), None
        while value in after:
            node = producers.get(value)
            if node is not None and is_sum(graph, node, dependent):
                inputs = [ref for ref in node.inputs if isinstance(ref, int)]
                if len({ref in after for ref in inputs}) == 2:
                    stream, added = sorted(inputs, key=lambda ref: ref in after)
                    first = Branch(stream, added, value)
            value = above[value]
        if first is None or matrix.queries is None:
            raise ValueError(
                "`model` must have residual connections around its attention layers for `approximation`"
                ' "token", which compares what is added with what is there: use "head"'
            )
        found.append(first)
    return tuple(found)


def _token_axis(found: Attention, value: int) -> int:
    """Return the axis of the tokens in a value of the program of one image.

    Raises:
        ValueError: If it is unknown.
    """
    shape, runs = found.program.graph.shape(value), found.program.axes[value]
    places = [axis for axis, size in enumerate(shape) if size == found.count]
    if len(places) > 1 and runs is not None and len(runs) == len(shape):
        for axis in places:
            known = isinstance(runs[axis], tuple)
            if known and isinstance(layout.name(((), runs[axis], ()), (1, shape[axis], 1)), Tokens):
                return axis
    if len(places) != 1:
        raise ValueError(
            f'`approximation` "token" must know the axis of the {found.count} tokens in values of shape'
            f' {shape}, and cannot tell: use "head"'
        )
    return places[0]


def _lengths(value, axis):
    """Return the length of each token, [batch, tokens], of values [batch, ...] with tokens on an axis."""
    moved = jnp.moveaxis(value.astype(jnp.float32), axis + 1, 1)
    return jnp.sqrt(jnp.square(moved).reshape(*moved.shape[:2], -1).sum(-1))


@completed
def bidirectional(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    approximation: str = "head",
    start: int = 0,
    steps: int = 20,
    queries: str | None = None,
    tokens: Tokens | None = None,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    r"""Multiply what the tokens perceive of each other by the class's gradient at the last layer.

    Perception is $R \leftarrow R + M R$ from the identity, layer by layer. Head-wise $M = \sum_h I_h A_h$,
    where each head has the weight $I_h \propto \overline{|A_h^T \nabla A_h|}$ of all heads. Token-wise
    $M_{ij} = \overline{A}_{ij} \lVert z_j W \rVert / \lVert z_j \rVert$: the mean over heads times the
    relative length of what a token $z_j$ of the residual stream passes on, with $W$ all linear maps from
    token to stream (values, projection, LayerScale; the projection's bias belongs to no token). Feedback is
    the positive part of the last layer's gradient, averaged over heads and over images brightened from 0 to
    the image. The map is the product of both in the row of the class token, or the mean of the grid's rows if
    there is none.

    Args:
        approximation: How heads are combined: `"head"` or `"token"`.
        start: Index of the first layer used; the paper skips the first three or four of twelve.
        steps: Number of brightness levels from 0 to 1, both included.

    Returns:
        Maps [batch, height, width] of values of at least zero ([batch, rows, columns] without `upsample`);
        [batch, k, ...] for k classes per image.

    Raises:
        ValueError: If `approximation="token"` finds no residual connections with tokens to compare with.

    References:
        Chen, Li, Yu, Dou, Xiong: Beyond Intuition: Rethinking Token Attributions inside Transformers. TMLR
        2023, openreview.net/forum?id=rm0zIzlhcX, sections 4.1 (head-wise and token-wise) and 4.2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> def net(x):  # four tokens of one pixel each, mixed once
        ...     tokens = x.reshape(x.shape[0], 4, 3)
        ...     matrix = jax.nn.softmax(tokens @ tokens.swapaxes(1, 2))
        ...     return (matrix @ tokens).mean(1)
        >>> x = jnp.zeros((1, 2, 2, 3)).at[0, 1, 0, 2].set(1.0)
        >>> jaxai.attention.bidirectional(net, x, 2)[0].argmax().item()
        2
    """
    return explain(
        _bidirectional,
        model,
        images,
        targets,
        tokens=tokens,
        upsample=upsample,
        batch_size=batch_size,
        approximation=checks.choice(approximation, "approximation", APPROXIMATIONS),
        start=checks.at_least(start, "start", 0),
        steps=checks.at_least(steps, "steps", 2),
        queries=queries,
    )
