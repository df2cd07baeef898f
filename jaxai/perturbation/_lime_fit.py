"""LIME's regression on given masks and scores, and in the limit of infinitely many masks."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from .._frame.results import brief
from . import _designs, _kernels, _regression, _scoring

REGRESSIONS = ("ridge", "lasso")


class LimeFit(NamedTuple):
    """The surrogate: `weights` [..., S], `intercept` [...] and `score` [...] (weighted R^2)."""

    weights: Float[Array, "*batch segments"]
    intercept: Float[Array, "*batch"]
    score: Float[Array, "*batch"]

    __repr__ = brief


def fit_lime(
    masks: Float[ArrayLike, "*each samples segments"],
    scores: Float[ArrayLike, "..."],
    *,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
) -> LimeFit:
    """Fit LIME's weighted ridge regression to given masks and scores.

    It is scikit-learn's `Ridge(alpha).fit(masks, scores, sample_weight)` with the weights of `lime_image`'s
    kernel, for all targets and images in one solve.

    Args:
        masks: [samples, S] for all images, or [batch, samples, S].
        scores: For masks [samples, S]: [samples], [samples, k], or (if the first axis is not as long as the
            masks) [batch, samples] or [batch, samples, k]. For masks with a batch: [batch, samples] or
            [batch, samples, k].
        kernel_width: Width of the kernel on the cosine distance of masks.
        alpha: Strength of the ridge penalty.

    Returns:
        `(weights, intercept, score)`: weights [*batch, *k, S], intercept and weighted R^2 [*batch, *k].

    Raises:
        ValueError: If shapes do not fit, values are not finite, masks are all equal, or the regression is
            singular.

    References:
        Ribeiro, Singh, Guestrin: "Why Should I Trust You?". KDD 2016, arXiv 1602.04938, equation 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> masks = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> weights, intercept, score = jaxai.fit_lime(masks, masks @ jnp.array([3.0, -1.0]), alpha=0.0)
        >>> [round(float(weight), 3) for weight in weights]
        [3.0, -1.0]
    """
    masks, predictions, single = _aligned(masks, scores)
    fit = fit_images(
        masks,
        predictions,
        np.ones((predictions.shape[0], masks.shape[-1]), np.float32),
        None,
        np.float32(kernel_width),
        np.float32(alpha),
        shared=True,
    )
    check_solved(fit)
    first = (lambda x: x[0]) if single else (lambda x: x)
    return LimeFit(first(fit.weights), first(fit.intercept), first(fit.score))


def _aligned(masks, scores):
    """Return checked masks, scores as [batch, samples, *k], and whether there was no batch."""
    masks = jnp.asarray(masks, jnp.float32)
    scores = jnp.asarray(scores, jnp.float32)
    if masks.ndim not in (2, 3) or 0 in masks.shape:
        raise ValueError(f"`masks` must be [samples, S] or [batch, samples, S]; got shape {masks.shape}")
    samples = masks.shape[-2]
    single = masks.ndim == 2 and scores.ndim in (1, 2) and scores.shape[0] == samples
    batched = scores.ndim in (2, 3) and scores.shape[1] == samples
    if masks.ndim == 3:
        batched = batched and scores.shape[0] == masks.shape[0]
    if not (single or batched):
        raise ValueError(
            f"`scores` must have one value a mask; got shape {scores.shape} for masks {masks.shape}"
        )
    masks = _designs.given(masks, masks.shape[0] if masks.ndim == 3 else 1, masks.shape[-1])
    _scoring.check_finite(scores)
    return masks, scores[None] if single else scores, single


def check_solved(fit: _regression.Fit) -> None:
    """Raise ValueError if a concrete fit is NaN: its normal equations were singular."""
    if not isinstance(fit.weights, Tracer) and np.isnan(np.asarray(fit.weights)).any():
        raise ValueError(
            "the regression is singular: the masks do not tell the superpixels apart;"
            " draw more masks or raise `alpha`"
        )


_STATIC = ("shared", "distance", "loss", "selection", "num_features", "constant_weight", "clusters")


@partial(jax.jit, static_argnames=_STATIC)
def fit_images(
    masks: jax.Array,
    predictions: jax.Array,
    present: jax.Array,
    sums: _kernels.Moments | None,
    kernel_width: jax.Array | float,
    alpha: jax.Array | float,
    used: jax.Array | int | None = None,
    *,
    shared: bool,
    distance: str = "mask_cosine",
    loss: str = "ridge",
    selection: str = "none",
    num_features: int | None = None,
    constant_weight: bool = False,
    clusters: int = 1,
) -> _regression.Fit:
    """Fit all images: one factorisation if they share masks and superpixels, else one per image.

    Args:
        masks: float32 [samples, S] or [batch, samples, S].
        predictions: float32 [batch, samples, *k].
        present: float32 [batch, S].
        sums: Sums for pixel distances.
        kernel_width: Width of the kernel.
        alpha: Strength of the penalty.
        used: Use only this many masks, the first ones; None means all.
        shared: Whether all images have S superpixels.
        distance: One of `kernels.DISTANCES`.
        loss: One of `REGRESSIONS`.
        selection: As `selection.resolve` returns it.
        num_features: Number of superpixels to choose.
        constant_weight: Give all masks the kernel's mean weight, for masks drawn according to the kernel.
        clusters: This many consecutive masks were drawn together.

    Returns:
        Arrays with axes [batch, *k, ...].
    """
    batch, samples, *rest = predictions.shape
    flat = predictions.astype(jnp.float32).reshape(batch, samples, -1)

    def weights(mask, exists, own_sums):
        if constant_weight:
            probability, kernel = _kernels.of_counts(exists, kernel_width)
            weight = jnp.full(samples, jnp.sum(probability * kernel), jnp.float32)
        else:
            weight = _kernels.exponential(_kernels.distances(distance, mask, exists, own_sums), kernel_width)
        return weight if used is None else jnp.where(jnp.arange(samples) < used, weight, 0)

    def solve(mask, scores, exists, own_sums):
        p = _regression.problem(mask, scores, weights(mask, exists, own_sums), exists)
        if loss == "lasso":
            return _regression.lasso(p, alpha, clusters)
        if selection == "none" or num_features is None:
            return _regression.ridge(p, alpha, clusters)
        return _regression.sparse_ridge(p, alpha, selection, num_features, clusters)

    if masks.ndim == 2 and shared and sums is None:
        fit = solve(masks, jnp.moveaxis(flat, 0, 1).reshape(samples, -1), present[0], None)
    else:
        fit = jax.vmap(solve, (None if masks.ndim == 2 else 0, 0, 0, 0))(masks, flat, present, sums)
    count = masks.shape[-1:]
    shapes = (count, (), (), count)
    return _regression.Fit(*(x.reshape(batch, *rest, *s) for x, s in zip(fit, shapes, strict=True)))


def lime_limit(
    masks: Float[ArrayLike, "*each samples segments"],
    scores: Float[ArrayLike, "..."],
    *,
    kernel_width: float = 0.25,
) -> LimeFit:
    """Return the surrogate to which LIME converges with infinitely many samples, from its closed form.

    The expectations of kernel x masks under fair coins are known exactly; only those of kernel x score x mask
    are averaged over `masks`. With all 2^S masks the result is the exact limit (of the weighted regression;
    the ridge penalty vanishes in the limit). With fair coins it is an estimate that requires no linear solve.

    Args:
        masks: Binary masks, all of them or fair coins: shapes as in `fit_lime`.
        scores: Their scores, as in `fit_lime`.
        kernel_width: Width of the kernel on the cosine distance of masks.

    Returns:
        `(weights, intercept, score)` as `fit_lime` returns them; the score refers to the given masks.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or masks are all equal.

    References:
        Garreau, Mardaoui: What does LIME really see in images? ICML 2021, arXiv 2102.06307, theorem 1 and
        proposition 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> masks = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> weights, intercept, score = jaxai.perturbation.lime_limit(masks, masks @ jnp.array([3.0, -1.0]))
        >>> [round(float(weight), 3) for weight in weights]
        [3.0, -1.0]
    """
    masks, predictions, single = _aligned(masks, scores)
    weights, intercept, score = _limit(masks, predictions, np.float32(kernel_width))
    first = (lambda x: x[0]) if single else (lambda x: x)
    return LimeFit(first(weights), first(intercept), first(score))


@jax.jit
def _limit(masks, predictions, kernel_width):
    batch, samples, *rest = predictions.shape
    count = masks.shape[-1]
    present = jnp.ones(count, jnp.float32)
    probability, kernel = _kernels.of_counts(present, kernel_width)
    shown = jnp.arange(count + 1, dtype=jnp.float32)
    # alpha_p = E[kernel z_1 ... z_p]; two given superpixels are among j shown ones with probability j (j - 1)
    # / (S (S - 1)).
    alpha0 = jnp.sum(probability * kernel)
    alpha1 = jnp.sum(probability * kernel * shown / count)
    alpha2 = jnp.sum(probability * kernel * shown * (shown - 1) / (count * (count - 1)))

    def one(mask, scores):
        weight = _kernels.exponential(_kernels.distances("mask_cosine", mask, present, None), kernel_width)
        shifted = scores - scores[:1]
        zeroth = jnp.dot(weight, shifted, precision="highest") / samples
        first = jnp.dot((mask * weight[:, None]).T, shifted, precision="highest") / samples
        # Row 0 and the sum of the other rows of Sigma (b, beta) = Gamma are two equations in b and sum(beta).
        a, c, d = alpha0, alpha1, alpha1 - alpha2 + count * alpha2
        determinant = a * d - count * c * c
        intercept = (d * zeroth - c * first.sum(0)) / determinant
        total = (a * first.sum(0) - count * c * zeroth) / determinant
        beta = (first - alpha1 * intercept - alpha2 * total) / (alpha1 - alpha2)
        p = _regression.problem(mask, scores, weight, present)
        left = shifted - intercept - jnp.dot(mask, beta, precision="highest")
        return beta.T, intercept + scores[0], _regression.r_squared(p, left)

    flat = predictions.reshape(batch, samples, -1)
    results = jax.vmap(one, (None if masks.ndim == 2 else 0, 0))(masks, flat)
    return [x.reshape(batch, *rest, *x.shape[2:]) for x in results]
