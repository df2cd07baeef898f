"""Attention rollout: how much of each token reaches the network's result; not class-specific."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.contract import completed
from .._frame.targets import Targets
from .._program.layouts import Tokens
from ._matrices import positions, read_out, slopes_of_all_outputs
from ._shared import explain

FUSIONS = {"mean": jnp.mean, "max": jnp.max, "min": jnp.min}


def _rollout(found, images, targets, *, batch_size, head_fusion, discard_ratio, queries):
    last = None
    if queries is None and found.tokens.prefix:
        matrices, last = slopes_of_all_outputs(found, images)
    else:
        _, matrices = found.run(images, found.zeros(images.shape[0]))
    paths = jnp.eye(found.count, dtype=jnp.float32)
    for matrix in matrices:
        mixing = _discarded(FUSIONS[head_fusion](matrix, axis=1), discard_ratio)
        if mixing.shape[-2] > 1:
            mixing = mixing + jnp.eye(found.count)
        # The rows of a softmax sum to one; those of a maximum over heads or after discarding entries do not.
        paths = mixing / mixing.sum(-1, keepdims=True) @ paths
    return targets.spread(positions(read_out(paths, found, queries, last), found))


def _discarded(mixing: jax.Array, ratio: float) -> jax.Array:
    """Set an image's smallest entries to zero, except those of the first token."""
    count = int(ratio * mixing[0].size)
    if not count:
        return mixing
    flat = mixing.reshape(mixing.shape[0], -1)
    least = jnp.sort(flat, axis=1)[:, count - 1, None]
    kept = (flat > least) | (jnp.arange(flat.shape[1]) % mixing.shape[-1] == 0)
    return jnp.where(kept, flat, 0).reshape(mixing.shape)


@completed
def rollout(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
    queries: str | None = None,
    tokens: Tokens | None = None,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Multiply the attention matrices of all layers: the composition of each token; not class-specific.

    A baseline: it depends neither on the class nor on the values, and marks attention sinks in the background
    if a network has them. `gradient_attention` is specific to the class.

    Args:
        targets: Not used, except that k classes per image repeat the map k times.
        head_fusion: How heads are combined: their `"mean"`, `"max"` or `"min"`.
        discard_ratio: Fraction of each layer's smallest entries to discard, in [0, 1); the first token's are
            kept.

    Returns:
        Maps [batch, height, width], which sum to at most one on the tokens' grid ([batch, rows, columns]
        without `upsample`); [batch, k, ...] for k classes per image.

    References:
        Abnar, Zuidema: Quantifying Attention Flow in Transformers. ACL 2020, arXiv 2005.00928, equation 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> def net(x):  # four tokens of one pixel each, mixed once
        ...     tokens = x.reshape(x.shape[0], 4, 3)
        ...     matrix = jax.nn.softmax(tokens @ tokens.swapaxes(1, 2))
        ...     return (matrix @ tokens).mean(1)
        >>> jaxai.attention.rollout(net, jnp.ones((1, 2, 2, 3))).round(3).tolist()
        [[[0.25, 0.25], [0.25, 0.25]]]
    """
    return explain(
        _rollout,
        model,
        images,
        targets,
        tokens=tokens,
        upsample=upsample,
        batch_size=batch_size,
        head_fusion=checks.choice(head_fusion, "head_fusion", tuple(FUSIONS)),
        discard_ratio=checks.number(discard_ratio, "discard_ratio", "[0, 1)"),
        queries=queries,
    )
