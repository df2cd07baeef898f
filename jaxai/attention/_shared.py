"""Shared parts of the attention methods: checks, chunks of images, and maps of the tokens' relevance."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import maps
from .._frame import batching, checks
from .._frame import options as _options
from .._frame import targets as _targets
from .._program.layouts import Tokens
from . import _matrices

QUERIES = ("class", "mean")
Member = Callable[..., jax.Array]


def explain(
    member: Member,
    model: Any,
    images: Any,
    targets: Any,
    *,
    tokens: Tokens | None,
    upsample: bool,
    batch_size: int | None,
    **options: Any,
) -> jax.Array:
    """Check the arguments and run a member of the family in chunks of images.

    Args:
        member: `member(found, images, targets, batch_size=, **options)` returns [batch, rows, columns], with
            an axis k after the batch for k targets.
        model: As users pass it.
        images: As users pass them.
        targets: As users pass them.
        tokens: Layout of the tokens on the image, or None.
        upsample: Whether maps are resized to the image.
        batch_size: At most this many images in flight.
        **options: Passed to the member.
    """
    model, images, targets = _targets.prepare(model, images, targets)
    if tokens is not None and not isinstance(tokens, Tokens):
        raise TypeError(f"`tokens` must be a jaxai.layers.Tokens; got {tokens!r}")
    if options.get("queries") is not None:
        checks.choice(options["queries"], "queries", QUERIES)
    static, arrays = _options.split(options)
    return _explain(
        model,
        images,
        targets,
        arrays,
        member=member,
        static=static,
        tokens=tokens,
        upsample=bool(upsample),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("member", "static", "tokens", "upsample", "batch_size"))
def _explain(model, images, targets, arrays, *, member, static, tokens, upsample, batch_size):
    def chunk(x, t):
        found = _matrices.find(model, x[:1], tokens)
        cam = member(found, x, t, batch_size=batch_size, **dict(static), **arrays)
        return maps.upsample(cam, x.shape[1:3]) if upsample else cam

    together = batching.chunk_size(batch_size, model, images)
    return batching.map_images(chunk, images, targets, batch_size=together)


def propagated(matrices: list[jax.Array], count: int) -> jax.Array:
    """Return (M_L + I) ... (M_1 + I), [..., tokens, tokens]; a pool has one row and no identity."""
    paths = jnp.eye(count, dtype=jnp.float32)
    for matrix in matrices:
        mixed = matrix @ paths
        paths = mixed if matrix.shape[-2] == 1 < count else paths + mixed
    return paths


def is_sum(graph, node, dependent):
    """Return whether a node adds two image-dependent values of one shape, like a residual connection."""
    if node is None or node.name not in ("add", "add_any"):
        return False
    shapes = {graph.shape(ref) for ref in node.inputs}
    return len(shapes) == 1 and all(isinstance(ref, int) and ref in dependent for ref in node.inputs)
