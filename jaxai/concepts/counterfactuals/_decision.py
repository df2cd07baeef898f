"""Decisions: the winning class, or the sign of a callable target, and the margin."""

from typing import Any

import jax
import jax.numpy as jnp

from ..._frame import targets as _targets
from ..._frame.targets import Target


def prepare(model: Any, images: Any, targets: Any) -> tuple[Any, jax.Array, Target]:
    """Check the arguments that all counterfactuals share.

    Raises:
        ValueError: If there are several targets per image: each has its own counterfactual.
    """
    model, images, target = _targets.prepare(model, images, targets, probability=True)
    if target.axes:
        raise ValueError(
            "`targets` must be one class per image, int or int[batch], or a callable; got int[batch, k]"
        )
    return model, images, target


def margin(target: Target, outputs: Any) -> tuple[jax.Array, jax.Array]:
    """Return the margin by which the target wins, float32[batch], and whether it does, bool[batch].

    For a class the margin is its log odds, log p / (1 - p), which stay precise if p is almost 1; a class wins
    if its score is the largest. A callable target wins if its value is above zero.
    """
    if target.function is not None:
        value = target.of(outputs)
        return value, value > 0
    scores = outputs.astype(jnp.float32)
    own = target.of(scores)
    if target.normalized:
        odds = jnp.log(jnp.maximum(own, 1e-30)) - jnp.log(jnp.maximum(1 - own, 1e-30))
    elif scores.shape[-1] == 1:
        odds = own
    else:
        chosen = _targets.is_class(target.classes, scores.shape[-1])
        odds = own - jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, scores), axis=-1)
    if scores.shape[-1] == 1:
        return odds, odds > 0
    return odds, jnp.argmax(scores, axis=-1) == target.classes


def shown(target: Target, margins: jax.Array) -> jax.Array:
    """Convert margins to reported values: the probability of a class, the value of a callable."""
    return margins if target.function is not None else jax.nn.sigmoid(margins)
