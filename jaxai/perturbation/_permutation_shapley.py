"""Shapley values of superpixels from random orders."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame import checks
from .._frame.describe import Passes, describes
from .._frame.spread import standard_error
from .._frame.targets import Targets
from . import _designs
from ._explanation import ShapleyExplanation
from ._shapley_common import game, per_image


@describes(
    title="permutation Shapley",
    result="segments",
    cost=lambda o: Passes(2 * o.num_permutations * (o.segments - 1) + 2),
    unit="change of probability",
    signed=True,
    explains="probability",
)
def permutation_shapley(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "..."],
    key: jax.Array,
    num_permutations: int = 10,
    fill: Any = 0.0,
    num_segments: int | None = None,
    batch_size: int | None = None,
) -> ShapleyExplanation:
    """Estimate Shapley values from random orders, each walked forwards and backwards.

    Superpixels are shown one after the other; each gets the change of the score that it causes, averaged over
    the orders. The values are unbiased and sum to score(image) - score(all hidden). Probabilities are
    explained (see `jaxai.targets`). Costs 2 num_permutations (S - 1) + 2 forward passes.

    Args:
        key: Randomness of the orders; a typed key.
        num_permutations: Number of orders.

    Returns:
        `ShapleyExplanation`; `standard_error` is over the orders, and NaN if there is only one.

    References:
        Mitchell et al.: Sampling Permutations for Shapley Value Estimation. JMLR 2022, arXiv 2104.12199,
        section 4.1 (antithetic orders).
        Castro, Gomez, Tejada: Polynomial calculation of the Shapley value based on sampling. Computers and
        Operations Research 36, 2009.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: x[:, 0, 0] * x[:, 0, 1]
        >>> e = jaxai.permutation_shapley(model, jnp.ones((1, 1, 2, 1)), lambda scores: scores[:, 0],
        ...     segments=jnp.array([[0, 1]]), key=jax.random.key(0), num_permutations=3)
        >>> e.values.tolist()
        [[0.5, 0.5]]
    """
    play = game(
        model,
        images,
        targets,
        segments=segments,
        fill=fill,
        num_segments=num_segments,
        batch_size=batch_size,
        key=checks.key(key),
    )
    number = checks.positive(num_permutations, "num_permutations")
    present = play.superpixels.present
    masks, ranks = _orders(key, present, number=number)
    values = play.values(masks)
    shares, error, base, total = _walks(values, ranks, present)
    return ShapleyExplanation(shares, base, total, error, play.superpixels.labels, play.targets.plain)


@partial(jax.jit, static_argnames="number")
def _orders(key, present, *, number):
    """Return masks [batch, 2 + 2 number (S - 1), S] and the rank of each superpixel [batch, 2 number, S]."""
    count = present.shape[1]
    noise = _designs.uniforms(key, samples=number, count=count)

    def one(exists):
        forward = jnp.argsort(jnp.argsort(jnp.where(exists > 0, noise, 2.0), axis=1), axis=1)
        players = exists.sum().astype(jnp.int32)
        backward = jnp.where(exists > 0, players - 1 - forward, forward)
        ranks = jnp.stack([forward, backward], axis=1).reshape(2 * number, count)
        steps = jnp.arange(1, count)
        walks = (ranks[:, None, :] < steps[None, :, None]).astype(exists.dtype) * exists[None, None]
        ends = jnp.stack([jnp.zeros_like(exists), exists])
        return jnp.concatenate([ends, walks.reshape(-1, count)]), ranks

    return jax.vmap(one)(present)


@jax.jit
def _walks(values, ranks, present):
    count = present.shape[1]

    def one(v, rank, exists):
        walks = v[2:].reshape(rank.shape[0], count - 1, -1)
        first = jnp.broadcast_to(v[0], walks[:, :1].shape)
        last = jnp.broadcast_to(v[1], walks[:, :1].shape)
        path = jnp.concatenate([first, walks, last], axis=1)
        gains = path[:, 1:] - path[:, :-1]
        shares = jnp.take_along_axis(gains, rank[:, :, None], axis=1) * exists[None, :, None]
        pairs = shares.reshape(-1, 2, *shares.shape[1:]).mean(1)
        return pairs.mean(0).T, standard_error(pairs).T, v[0], v[1]

    return per_image(one, values, ranks, present)
