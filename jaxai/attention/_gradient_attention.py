"""Attention weighted by its gradient: the tokens that provide evidence for a class."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.contract import completed
from .._frame.targets import Targets
from .._program.layouts import Tokens
from ._matrices import gradients, positions, read_out
from ._shared import explain, propagated


def _gradient_attention(found, images, targets, *, batch_size, start, queries):
    found.check_start(start)
    matrices, slopes = gradients(found, images, targets, batch_size=batch_size)
    weighted = []
    for matrix, slope in zip(matrices[start:], slopes[start:], strict=True):
        beside = matrix if slope.ndim == matrix.ndim else matrix[:, None]
        weighted.append(jax.nn.relu(slope * beside).mean(-3))
    paths = propagated(weighted, found.count)
    return positions(read_out(paths, found, queries, slopes[-1]), found)


@completed
def gradient_attention(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    start: int = 0,
    queries: str | None = None,
    tokens: Tokens | None = None,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    r"""Propagate relevance through attention weighted by its gradient: where a class is seen.

    $R \leftarrow R + \overline{(\nabla A \odot A)^+} R$ from the identity, layer by layer, where the bar is a
    mean over heads. All gradients come from one backward pass per target. The map is the row of the class
    token, or the mean of the grid's rows if there is none, a case that the original does not cover.

    Args:
        start: Index of the first layer used.

    Returns:
        Maps [batch, height, width] of values of at least zero ([batch, rows, columns] without `upsample`);
        [batch, k, ...] for k classes per image.

    References:
        Chefer, Gur, Wolf: Generic Attention-model Explainability for Interpreting Bi-Modal and
        Encoder-Decoder Transformers. ICCV 2021, arXiv 2103.15679, equations 5 and 6.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> def net(x):  # four tokens of one pixel each, mixed once
        ...     tokens = x.reshape(x.shape[0], 4, 3)
        ...     matrix = jax.nn.softmax(tokens @ tokens.swapaxes(1, 2))
        ...     return (matrix @ tokens).mean(1)
        >>> x = jnp.zeros((1, 2, 2, 3)).at[0, 1, 0, 2].set(1.0)
        >>> jaxai.attention.gradient_attention(net, x, 2)[0].argmax().item()
        2
    """
    return explain(
        _gradient_attention,
        model,
        images,
        targets,
        tokens=tokens,
        upsample=upsample,
        batch_size=batch_size,
        start=checks.at_least(start, "start", 0),
        queries=queries,
    )
