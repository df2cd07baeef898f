"""Shapley values of superpixels by weighted regression: KernelSHAP and Leverage SHAP."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame import checks
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _regression
from ._explanation import ShapleyExplanation
from ._shapley_common import game, per_image
from ._shapley_design import Coalitions, coalitions

SAMPLING = ("kernel", "leverage")
_EXACT = jax.lax.Precision.HIGHEST


@describes(
    title="kernel SHAP",
    result="segments",
    cost=lambda o: Passes(2 + o.num_samples),
    unit="change of probability",
    signed=True,
    explains="probability",
)
def kernel_shap(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "..."],
    key: jax.Array,
    num_samples: int = 2048,
    fill: Any = 0.0,
    sampling: str = "leverage",
    num_segments: int | None = None,
    batch_size: int | None = None,
) -> ShapleyExplanation:
    """Estimate the Shapley values of superpixels by regression with the Shapley kernel.

    Coalitions of the smallest and largest sizes are enumerated as far as `num_samples` allows; the rest is
    drawn in complementary pairs whose sizes are spread evenly; coalitions of one size are disjoint pieces of
    random orders. The efficiency constraint is eliminated, so the values sum to score(image) - score(all
    hidden). With num_samples >= 2^S - 2 they are exact. Probabilities are explained (see `jaxai.targets`).

    Args:
        key: Randomness of the coalitions; a typed key.
        num_samples: Number of masks, rounded down to an even number, in addition to the two that show
            everything and nothing.
        sampling: `"leverage"` draws all sizes equally often and weights them (Leverage SHAP: lower error);
            `"kernel"` draws sizes by the Shapley kernel, as shap's KernelExplainer does.

    Returns:
        `ShapleyExplanation` with `values` [batch, S], `base`, `total`, `standard_error` and `heatmap`; for k
        classes per image there is an axis k after the batch.

    Warns:
        RuntimeWarning: If there are too few masks to estimate the standard error of an image, which is then
            NaN.

    Raises:
        ValueError: If there are too few masks to distinguish the superpixels.

    References:
        Lundberg, Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS 2017, arXiv 1705.07874,
        theorem 2.
        Covert, Lee: Improving KernelSHAP. AISTATS 2021, arXiv 2012.01536, section 3 (pairs, constraint).
        Musco, Witter: Provably Accurate Shapley Value Estimation via Leverage Score Sampling. ICLR 2025,
        arXiv 2410.01917, algorithm 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> thirds = jnp.array([[0, 1, 2]])
        >>> model = lambda x: (x[:, 0, 0] * x[:, 0, 1] + x[:, 0, 2])  # an interaction, and a part alone
        >>> e = jaxai.kernel_shap(model, jnp.ones((1, 1, 3, 1)), lambda scores: scores[:, 0],
        ...     segments=thirds, key=jax.random.key(0), num_samples=6)
        >>> [round(float(value), 3) for value in e.values[0]]
        [0.5, 0.5, 1.0]
    """
    checks.choice(sampling, "sampling", SAMPLING)
    num_samples = checks.positive(num_samples, "num_samples")
    if num_samples < 2:
        raise ValueError(f"`num_samples` must be at least 2; got {num_samples}")
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
    present = play.superpixels.present
    design, masks = _designs(key, present, samples=num_samples, leverage=sampling == "leverage")
    values = play.values(masks)
    fit, error, base, total = _solve_all(values, design, present)
    if not isinstance(fit, Tracer) and (unsolved := _regression.unsolved(fit)).any():
        image = int(np.argmax(unsolved))
        raise ValueError(
            f"{num_samples} masks do not tell {int(present[image].sum())} superpixels apart (image {image});"
            " raise `num_samples`"
        )
    _regression.warn_unknown(error, num_samples, present)
    return ShapleyExplanation(fit, base, total, error, play.superpixels.labels, play.targets.plain)


@partial(jax.jit, static_argnames=("samples", "leverage"))
def _designs(key, present, *, samples, leverage):
    """Return the coalitions of every image, and all masks to score: nothing, everything, the coalitions."""

    def draw(exists):
        return coalitions(key, exists, samples=samples, leverage=leverage)

    design = jax.vmap(draw)(present)
    ends = jnp.stack([jnp.zeros_like(present), present], axis=1)
    return design, jnp.concatenate([ends, design.masks], axis=1)


@jax.jit
def _solve_all(values, design, present):
    def one(v, masks, weights, sampled, exists):
        return _solve(v, Coalitions(masks, weights, sampled), exists)

    return per_image(one, values, *design, present)


def _solve(values, design, present):
    """Minimise sum_i w_i (v(z_i) - v(0) - z_i . phi)^2 with sum(phi) = v(1) - v(0).

    Subtracting each mask's mean, size / S, turns the constraint into orthogonality to the vector of ones: a
    regression on the centred masks whose Gram matrix only needs that direction filled in.

    Args:
        values: float32 [2 + samples, targets]: of the empty mask, of the full mask, of the design's masks.
        design: The coalitions.
        present: float32 [S].
    """
    base, total, values = values[0], values[1], values[2:]
    players = present.sum()
    share = (design.masks.sum(1) / players)[:, None]
    centred = (design.masks - share) * present[None]
    residual = values - base[None] - share * (total - base)[None]
    weighted = centred * design.weights[:, None]
    gram = jnp.dot(weighted.T, centred, precision=_EXACT)
    scale = jnp.trace(gram) / players
    gram = gram + scale * (jnp.outer(present, present) / players + jnp.diag(1 - present))
    factor, singular = _regression.factorise(gram)
    beta = _regression.solve(factor, gram, jnp.dot(weighted.T, residual, precision=_EXACT))
    beta = (beta - (beta * present[:, None]).sum(0)[None] / players) * present[:, None]
    left = residual - jnp.dot(centred, beta, precision=_EXACT)
    samples = _regression.Samples(centred, design.weights, 2, intercept=False)
    # Enumerated coalitions are not random: only the drawn ones contribute to the error.
    drawn = samples.folded(jnp.where(design.weights > 0, design.sampled, 0))[..., None]
    squares = _regression.spread(samples, factor, _regression.leave_out(samples, factor, left) * drawn)
    pairs = drawn[:, 0].sum()
    # The constraint removes one unknown.
    freedom = samples.freedom(present) + 1
    few = jnp.minimum(freedom, pairs) < _regression.LEAST_FREEDOM
    # The pieces of one order determine each other, so leaving one out is not enough: the correction by
    # degrees of freedom, as for plain residuals, compensates for it.
    squares = squares * (freedom + players - 1) / jnp.maximum(freedom, 1)
    error = _regression.root(squares, few & (pairs > 0))
    phi = beta + present[:, None] * (total - base)[None] / players
    return jnp.where(singular, jnp.nan, phi).T, error.T, base, total
