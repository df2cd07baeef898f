"""Activations as codes of concepts, for every kind of concepts."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

from ._craft import Craft
from ._parts import parts
from ._sae import Sae


@register_dataclass
@dataclass(frozen=True)
class Codes:
    """An encoding of activations as concepts, and the direction that each code adds to them.

    Attributes:
        directions: [concepts, channels], of length one: the activation added per unit of a code.
        source: The `Sae` that encodes, or None.
        bounded: Whether codes are non-negative.
    """

    directions: jax.Array
    source: Sae | None
    bounded: bool = field(metadata={"static": True})

    def encode(self, acts: jax.Array) -> jax.Array:
        """Return the codes [..., concepts] of activations [..., channels], in units of the activations."""
        if self.source is not None:
            return self.source.encode(acts) * self.source.scale
        if self.bounded:
            return parts(acts, self.directions)
        return acts @ self.directions.T


def as_codes(concepts: Any) -> Codes:
    """Return any kind of concepts in one form.

    Args:
        concepts: A `Craft`, an `Sae`, or directions [concepts, channels].

    Raises:
        ValueError: If they are none of these, not finite, or a direction is zero.
    """
    if isinstance(concepts, Craft):
        return Codes(concepts.directions, None, True)
    if isinstance(concepts, Sae):
        return Codes(concepts.directions, concepts, True)
    directions = jnp.asarray(concepts, jnp.float32)
    lengths = jnp.linalg.norm(directions, axis=-1, keepdims=True)
    if directions.ndim != 2 or not np.isfinite(lengths).all() or float(lengths.min()) == 0:
        raise ValueError(
            "`concepts` must be a Craft, an Sae, or directions [concepts, channels], finite and none of them"
            f" zero; got shape {tuple(directions.shape)}"
        )
    return Codes(directions / lengths, None, False)
