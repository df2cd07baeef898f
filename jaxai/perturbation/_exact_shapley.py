"""Exact Shapley values of superpixels, by their definition from all coalitions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from ._explanation import ShapleyExplanation
from ._shapley_common import game, per_image

LARGEST = 12


@describes(
    title="exact Shapley",
    result="segments",
    cost=lambda o: Passes(2**o.segments),
    unit="change of probability",
    signed=True,
    explains="probability",
)
def exact_shapley(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "..."],
    fill: Any = 0.0,
    key: jax.Array | None = None,
    num_segments: int | None = None,
    batch_size: int | None = None,
) -> ShapleyExplanation:
    """Compute the Shapley values of at most 12 superpixels exactly, from all 2^S coalitions.

    Probabilities are explained (see `jaxai.targets`).

    Args:
        segments: Labels, int [batch, height, width] (or [height, width] for all images), at most 12 per
            image.

    Returns:
        `ShapleyExplanation` with `values` [batch, S] ([batch, k, S] for k classes per image).

    Raises:
        ValueError: If there are more than 12 superpixels.

    References:
        Shapley: A Value for n-Person Games. Contributions to the Theory of Games II, 1953.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: x[:, 0, 0] * x[:, 0, 1]
        >>> e = jaxai.exact_shapley(model, jnp.ones((1, 1, 2, 1)), lambda scores: scores[:, 0],
        ...     segments=jnp.array([[0, 1]]))
        >>> bool(jnp.allclose(e.values, 0.5))
        True
    """
    play = game(
        model,
        images,
        targets,
        segments=segments,
        fill=fill,
        num_segments=num_segments,
        batch_size=batch_size,
        key=key,
    )
    count = play.superpixels.count
    if count > LARGEST:
        raise ValueError(
            f"`segments` must have at most {LARGEST} superpixels (2^S forward passes); got {count}:"
            " use kernel_shap or permutation_shapley"
        )
    masks = (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(np.float32)
    values = play.values(jnp.asarray(masks))
    shares, base, total = _exact(values, jnp.asarray(masks), play.superpixels.present)
    return ShapleyExplanation(
        shares, base, total, jnp.zeros_like(shares), play.superpixels.labels, play.targets.plain
    )


@jax.jit
def _exact(values, masks, present):
    def one(v, exists):
        players = exists.sum()
        size = masks.sum(1)
        # Coalitions with a superpixel that the image lacks repeat others.
        real = ((masks * (1 - exists)[None]).sum(1) == 0).astype(jnp.float32)
        factorial = jax.scipy.special.gammaln
        # (size - 1)! (players - size)! / players! inside, size! (players - size - 1)! / players! outside.
        inside, outside = jnp.clip(size, 1, players), jnp.clip(size, 0, players - 1)
        every = factorial(players + 1)
        joined = jnp.exp(factorial(inside) + factorial(players - inside + 1) - every)
        left = jnp.exp(factorial(outside + 1) + factorial(players - outside) - every)
        joined = jnp.where(size > 0, joined, 0)
        left = jnp.where(size < players, left, 0)
        coefficients = (masks * joined[:, None] - (1 - masks) * left[:, None]) * real[:, None]
        coefficients = coefficients * exists[None]
        shares = jnp.dot(coefficients.T, v - v[:1], precision="highest")
        full = jnp.argmax((masks == exists[None]).all(1))
        return shares.T, v[0], v[full]

    return per_image(one, values, present)
