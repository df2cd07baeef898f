"""Perception through attention that heads share by what they carry, times feedback from the class."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.contract import completed
from .._frame.targets import Targets
from .._program.layouts import Tokens
from ._matrices import gradients, positions, read_out
from ._shared import explain, propagated


def _bidirectional(found, images, targets, *, batch_size, start, steps, queries):
    found.check_start(start)
    outputs, _ = found.run(images, found.zeros(images.shape[0]))
    # The class of the image itself, also where the image is dark.
    target = targets.frozen(outputs)
    matrices, slopes = gradients(found, images, target, batch_size=batch_size)
    weighted = []
    for matrix, slope in zip(matrices[start:], slopes[start:], strict=True):
        beside = matrix if slope.ndim == matrix.ndim else matrix[:, None]
        share = jnp.abs(jnp.swapaxes(beside, -1, -2) @ slope).mean((-1, -2))
        total = share.sum(-1, keepdims=True)
        share = share / jnp.where(total == 0, 1, total)
        weighted.append((share[..., None, None] * beside).sum(-3))
    perception = propagated(weighted, found.count)

    def at(share):
        return gradients(found, images * share, target, batch_size=batch_size)[1][-1]

    shares = jnp.linspace(0, 1, steps, dtype=images.dtype)
    feedback = jax.nn.relu(lax.map(at, shares).mean(0)).mean(-3)
    return positions(read_out(perception * feedback, found, queries), found)


@completed
def bidirectional(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    start: int = 0,
    steps: int = 20,
    queries: str | None = None,
    tokens: Tokens | None = None,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    r"""Multiply what the tokens perceive of each other by what the class asks of the last layer.

    Perception is $R \leftarrow R + (\sum_h I_h A_h) R$ from the identity, layer by layer, each head with the
    share $I_h \propto \overline{|A_h^T \nabla A_h|}$ of all heads (the head-wise variant of the paper; the
    token-wise one needs the values and is not here). Feedback is the positive part of the last layer's
    gradient, averaged over images that are brightened from 0 to the image, and over heads. The map is the
    product of both, in the row of the class token, or the mean of the grid's rows where there is none.

    Args:
        start: Index of the first layer that counts; the paper leaves out the first three or four of twelve.
        steps: How many brightnesses from 0 to 1, both included.

    Returns:
        Maps [batch, height, width] of values of at least zero ([batch, rows, columns] without `upsample`);
        [batch, k, ...] for k classes per image.

    References:
        Chen, Li, Yu, Dou, Xiong: Beyond Intuition: Rethinking Token Attributions inside Transformers. TMLR
        2023, openreview.net/forum?id=rm0zIzlhcX, sections 4.1 (head-wise) and 4.2.

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
        start=checks.at_least(start, "start", 0),
        steps=checks.at_least(steps, "steps", 2),
        queries=queries,
    )
