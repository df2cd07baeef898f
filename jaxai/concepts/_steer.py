"""Steering: scores with more or less of a concept."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from ._codes import as_codes


@completed
def steer(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    concepts: Any,
    concept: int,
    *,
    layer: str | None = None,
    factors: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0),
    batch_size: int | None = None,
) -> Float[Array, "factors batch classes"]:
    """Return the scores of images in which a concept is scaled: 0 removes it, 1 leaves it unchanged.

    The concept's code is scaled at each position; the rest of the activations is unchanged.

    Args:
        concepts: A `Craft`, an `Sae`, or directions [concepts, channels].
        concept: The concept's index.
        factors: Factors by which the concept is scaled.

    Returns:
        Scores [factors, batch, classes].

    Raises:
        ValueError: If the concept does not exist, the layer has no positions, or the model does not return
            scores [batch, classes].

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> scores = jaxai.concepts.steer(net, jnp.ones((1, 2, 2, 3)), jnp.eye(3), 1, layer="features",
        ...     factors=(0.0, 2.0))
        >>> scores[:, 0].tolist()
        [[1.0, 0.0, 1.0], [1.0, 2.0, 1.0]]
    """
    model, images, _ = _targets.prepare(model, images, lambda scores: scores)
    _targets.class_count(_targets.scores_shape(model, images))
    codes = as_codes(concepts)
    concept = checks.at_least(concept, "concept", 0)
    if concept >= len(codes.directions):
        raise ValueError(f"`concept` must be 0 to {len(codes.directions) - 1}; got {concept}")
    numbers = np.asarray(factors, np.float32)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"`factors` must be one number or more, all finite; got {factors!r}")
    return _steered(
        model,
        images,
        codes,
        jnp.int32(concept),
        jnp.asarray(numbers),
        layer=layers.resolve(model, layer or getattr(concepts, "layer", None), images),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("layer", "batch_size"))
def _steered(model, images, codes, concept, factors, *, layer, batch_size):
    size = batching.chunk_size(batch_size, model, images)

    def chunk(x):
        acts, head = layers.split_positions(model, layer, x)
        amounts = codes.encode(acts.astype(jnp.float32))[..., concept]
        whole = (amounts[..., None] * codes.directions[concept]).astype(acts.dtype)
        scores = jax.lax.map(lambda factor: head(acts + (factor - 1).astype(acts.dtype) * whole), factors)
        return jnp.moveaxis(scores, 0, 1).astype(jnp.float32)

    return jnp.moveaxis(batching.map_chunks(chunk, images, batch_size=size), 0, 1)
