"""Weighted linear regression on masks: one factorisation, all targets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

_EXACT = jax.lax.Precision.HIGHEST


class Fit(NamedTuple):
    """A linear model of each target: slopes [targets, S], intercept, R^2, standard errors [targets, S]."""

    weights: jax.Array
    intercept: jax.Array
    score: jax.Array
    standard_error: jax.Array


class Design(NamedTuple):
    """Centred masks [samples, S], their weighted mean [S], and the weights [samples]."""

    centred: jax.Array
    mean: jax.Array
    sample_weight: jax.Array


def centre(masks: jax.Array, sample_weight: jax.Array) -> Design:
    """Subtract the weighted mean of each column."""
    mean = jnp.dot(sample_weight, masks, precision=_EXACT) / sample_weight.sum()
    return Design(masks - mean, mean, sample_weight)


def centre_scores(scores: jax.Array, sample_weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return scores [samples, targets] less their weighted mean, and that mean.

    The first score is subtracted beforehand, so that constant scores become exact zeros and probabilities
    near one keep their digits.
    """
    shifted = scores - scores[:1]
    mean = jnp.dot(sample_weight, shifted, precision=_EXACT) / sample_weight.sum()
    return shifted - mean, scores[0] + mean


def ridge(
    masks: jax.Array,
    scores: jax.Array,
    sample_weight: jax.Array,
    present: jax.Array,
    alpha: jax.Array,
    clusters: int = 1,
) -> Fit:
    """Minimise sum_i w_i (y_i - b - z_i . beta)^2 + alpha |beta|^2, the intercept b free of penalty.

    Args:
        masks: float32 [samples, S].
        scores: float32 [samples, targets].
        sample_weight: float32 [samples], not negative.
        present: float32 [S], 0 for padding, whose slope is 0.
        alpha: Strength of the penalty.
        clusters: So many consecutive samples were drawn together (counted from the last one).

    Returns:
        The fit; NaN where the normal equations are singular to float32.
    """
    design = centre(masks * present, sample_weight)
    targets, mean = centre_scores(scores, sample_weight)
    weighted = design.centred * sample_weight[:, None]
    gram = jnp.dot(weighted.T, design.centred, precision=_EXACT)
    gram = gram + jnp.diag(alpha + (1 - present))
    factor, singular = factorise(gram)
    beta = solve(factor, gram, jnp.dot(weighted.T, targets, precision=_EXACT))
    beta = jnp.where(singular, jnp.nan, beta)
    residuals = targets - jnp.dot(design.centred, beta, precision=_EXACT)
    influence = cho_solve((factor, True), weighted.T).T
    error = jnp.sqrt(jnp.maximum(variance(influence, residuals, clusters), 0))
    return Fit(
        beta.T,
        mean - jnp.dot(design.mean, beta, precision=_EXACT),
        r_squared(targets, residuals, sample_weight),
        error.T,
    )


def factorise(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the lower Cholesky factor of a Gram matrix, and whether it is singular to float32."""
    factor = cho_factor(gram, lower=True)[0]
    pivots = jnp.square(jnp.diagonal(factor)) / jnp.maximum(jnp.diagonal(gram), 1e-30)
    # The negation also catches NaN, which the factorisation of an indefinite matrix gives.
    return factor, ~(pivots.min() > 32 * jnp.finfo(jnp.float32).eps)


def solve(factor: jax.Array, gram: jax.Array, right: jax.Array) -> jax.Array:
    """Solve gram @ x = right with one step of iterative refinement."""
    x = cho_solve((factor, True), right)
    return x + cho_solve((factor, True), right - jnp.dot(gram, x, precision=_EXACT))


def variance(influence: jax.Array, residuals: jax.Array, clusters: int) -> jax.Array:
    """Return the sandwich estimate sum_c (sum_{i in c} h_i r_i)^2 of each slope's variance, [S, targets]."""
    samples = influence.shape[0]
    first = samples % clusters
    total = jnp.dot(influence.T**2, residuals**2, precision=_EXACT)
    if clusters > 1:
        h = influence[first:].reshape(-1, clusters, influence.shape[1])
        r = residuals[first:].reshape(-1, clusters, residuals.shape[1])
        for i in range(clusters):
            for j in range(i):
                total = total + 2 * jnp.dot((h[:, i] * h[:, j]).T, r[:, i] * r[:, j], precision=_EXACT)
    return total


def r_squared(targets: jax.Array, residuals: jax.Array, sample_weight: jax.Array) -> jax.Array:
    """Return the weighted coefficient of determination; of constant targets 1 if the fit is exact, else 0."""
    left = jnp.dot(sample_weight, residuals**2, precision=_EXACT)
    total = jnp.dot(sample_weight, targets**2, precision=_EXACT)
    ratio = 1 - left / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, ratio, jnp.where(left > 0, 0.0, 1.0))
