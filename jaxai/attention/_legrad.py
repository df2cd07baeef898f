"""LeGrad: the gradient of each layer's own score with respect to its attention."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.contract import completed
from .._frame.targets import Targets
from .._program.graph import Graph
from .._program.layouts import Tokens
from .._program.run import evaluate
from .._program.wholes import dominators
from ._matrices import Matrix, positions
from ._shared import explain, is_sum


def _legrad(found, images, targets, *, batch_size, start):
    found.check_start(start)
    graph = found.program.graph
    streams = _streams(graph, found.matrices)
    head = graph.part([streams[-1], *graph.inputs], graph.outputs)

    def one(image, deltas):
        seen = {}

        def look(value, result):
            if value not in streams:
                return result
            seen[value] = result
            # A layer's score is differentiated only with respect to its own attention.
            return jax.lax.stop_gradient(result)

        found.one(image, deltas, look)
        ends = [evaluate(head, [seen[value], *found.flat[:-1], image]) for value in streams[start:]]
        return [jax.tree.map(lambda s: s[0], jax.tree.unflatten(found.program.tree, end)) for end in ends]

    deltas = found.zeros(images.shape[0])
    outputs, pullback = jax.vjp(partial(jax.vmap(one), images[:, None]), deltas)
    target = targets.frozen(outputs[-1])
    directions = [target.cotangents(output) for output in outputs]
    slopes = target.pull(lambda d: pullback(d)[0], directions, batch_size=batch_size)[start:]
    return positions(jnp.stack([jax.nn.relu(s).mean((-3, -2)) for s in slopes]).mean(0), found)


@lru_cache(maxsize=32)
def _streams(graph: Graph, matrices: tuple[Matrix, ...]) -> tuple[int, ...]:
    """Return the result of each attention layer's block: the sum through which everything after it passes.

    Raises:
        ValueError: If there is none.
    """
    if any(matrix.queries is None for matrix in matrices):
        raise ValueError("`legrad` has no rule for a pool by attention: use gradient_attention")
    above, producers = dominators(graph, graph.inputs[-1]), graph.producers()
    dependent = graph.dependents(graph.inputs[-1:])
    found = []
    ends = [*(matrix.value for matrix in matrices[1:]), *(r for r in graph.outputs[:1] if isinstance(r, int))]
    for matrix, value in zip(matrices, ends, strict=True):
        after = graph.dependents([matrix.value])
        while value in after and not is_sum(graph, producers.get(value), dependent):
            value = above[value]
        if value not in after:
            raise ValueError(
                "`model` must have residual connections around its attention layers, and a head behind the"
                " last block that reads nothing else: `legrad` applies it to each block's result"
            )
        found.append(value)
    return tuple(found)


@completed
def legrad(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    start: int = 0,
    tokens: Tokens | None = None,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    r"""Average the positive gradients of every layer's own score with respect to its attention.

    A layer's score is the output of the network's end (final norm and head) for that layer's result:
    $\frac{1}{L} \sum_l \frac{1}{h n} \sum_{h, i} (\partial s_l / \partial A^l_{h i \cdot})^+$, over heads and
    all query tokens. The values are raw; the paper's maps are scaled to [0, 1] (`jaxai.maps.normalize`). For
    a head that reads many tokens (dense prediction) the mean over tokens is not informative; use
    `gradient_attention`.

    Args:
        start: Index of the first layer used; the authors' code uses only the last layers.

    Returns:
        Maps [batch, height, width] of values of at least zero ([batch, rows, columns] without `upsample`);
        [batch, k, ...] for k classes per image.

    Raises:
        ValueError: If there are no residual connections that give the layers' results.

    References:
        Bousselham, Boggust, Chaybouti, Strobelt, Kuehne: LeGrad: An Explainability Method for Vision
        Transformers via Feature Formation Sensitivity. 2024, arXiv 2404.03214, equations 5 to 8.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> def net(x):  # four tokens of one pixel each, mixed once
        ...     tokens = x.reshape(x.shape[0], 4, 3)
        ...     matrix = jax.nn.softmax(tokens @ tokens.swapaxes(1, 2))
        ...     return (tokens + matrix @ tokens).mean(1)
        >>> x = jnp.zeros((1, 2, 2, 3)).at[0, 1, 0, 2].set(1.0)
        >>> jaxai.attention.legrad(net, x, 2)[0].argmax().item()
        2
    """
    return explain(
        _legrad,
        model,
        images,
        targets,
        tokens=tokens,
        upsample=upsample,
        batch_size=batch_size,
        start=checks.at_least(start, "start", 0),
    )
