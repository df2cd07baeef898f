"""How close a masked image is to the original: the weights of the local regression."""

import jax
import jax.numpy as jnp

_EXACT = jax.lax.Precision.HIGHEST


def exponential(distance: jax.Array, width: jax.Array | float) -> jax.Array:
    """Return exp(-d^2 / (2 width^2)): `lime_image`'s sqrt(exp(-d^2 / width^2)), and Captum's kernel."""
    return jnp.exp(-jnp.square(distance) / (2 * width**2))


def mask_cosine(masks: jax.Array, present: jax.Array) -> jax.Array:
    """Return 1 - cosine of masks [samples, S] with the mask that shows everything; 1 where all is hidden.

    For binary masks this is 1 - sqrt(shown / S).
    """
    masks = masks * present
    norm = jnp.sqrt(jnp.square(masks).sum(-1) * present.sum())
    return 1 - jnp.where(norm > 0, masks.sum(-1) / jnp.where(norm > 0, norm, 1), 0)
