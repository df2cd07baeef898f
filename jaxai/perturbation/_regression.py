"""Weighted linear regression on masks, with standard errors: one factorisation for all targets."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.linalg import cho_factor, cho_solve

from . import _selection

_EXACT = jax.lax.Precision.HIGHEST


class Fit(NamedTuple):
    """A linear model of each target: slopes [targets, S], intercept, R^2, standard errors [targets, S]."""

    weights: jax.Array
    intercept: jax.Array
    score: jax.Array
    standard_error: jax.Array


class Problem(NamedTuple):
    """A centred weighted regression of scores [samples, targets] on masks [samples, S]."""

    centred: jax.Array
    mean: jax.Array
    targets: jax.Array
    target_mean: jax.Array
    weight: jax.Array
    present: jax.Array
    gram: jax.Array
    products: jax.Array


def problem(masks: jax.Array, scores: jax.Array, weight: jax.Array, present: jax.Array) -> Problem:
    """Centre masks and scores by their weighted means and form the normal equations.

    The first score is subtracted beforehand, so that constant scores become exact zeros and probabilities
    near one keep their precision.

    Args:
        masks: float32 [samples, S].
        scores: float32 [samples, targets].
        weight: float32 [samples], not negative.
        present: float32 [S], 0 for padding, whose slopes are 0.
    """
    masks = masks * present[None]
    total = weight.sum()
    mean = jnp.dot(weight, masks, precision=_EXACT) / total
    centred = masks - mean[None]
    shifted = scores - scores[:1]
    shift = jnp.dot(weight, shifted, precision=_EXACT) / total
    targets = shifted - shift[None]
    weighted = centred * weight[:, None]
    return Problem(
        centred,
        mean,
        targets,
        scores[0] + shift,
        weight,
        present,
        jnp.dot(weighted.T, centred, precision=_EXACT),
        jnp.dot(weighted.T, targets, precision=_EXACT),
    )


def ridge(p: Problem, alpha: jax.Array | float, clusters: int = 1) -> Fit:
    """Minimise sum_i w_i (y_i - b - z_i . beta)^2 + alpha |beta|^2, without a penalty on the intercept b.

    The standard error is the root of the mean squared distance to the limit of infinitely many samples, in
    which the penalty vanishes: the error due to the drawn samples (`spread`) and the shrinkage by the
    penalty, which is the distance to the fit without it.

    Args:
        p: The regression.
        alpha: Strength of the penalty.
        clusters: This many consecutive samples were drawn together (counted from the first one).

    Returns:
        The fit; NaN if the normal equations are singular in float32. The standard error is also NaN if the
        samples do not determine the slopes without the penalty.
    """
    beta, factor, singular = _ridge(p.gram, p.products, p.present, alpha)
    beta = jnp.where(singular, jnp.nan, beta)
    residuals = p.targets - jnp.dot(p.centred, beta, precision=_EXACT)
    plain, plain_factor, undetermined = _ridge(p.gram, p.products, p.present, 0.0)
    left = p.targets - jnp.dot(p.centred, plain, precision=_EXACT)
    samples = Samples(p.centred, p.weight, clusters, intercept=True)
    squares = spread(samples, factor, leave_out(samples, plain_factor, left)) + (beta - plain) ** 2
    unknown = undetermined | (samples.freedom(p.present) < LEAST_FREEDOM)
    return Fit(beta.T, _intercept(p, beta), r_squared(p, residuals), root(squares, unknown).T)


def _ridge(gram, products, present, alpha):
    matrix = gram + jnp.diag(alpha + (1 - present))
    factor, singular = factorise(matrix)
    return solve(factor, matrix, products) * present[:, None], factor, singular


def sparse_ridge(p: Problem, alpha: jax.Array | float, method: str, number: int, clusters: int = 1) -> Fit:
    """Choose at most `number` superpixels per target, then fit `ridge` on only those.

    Args:
        p: The regression.
        alpha: Strength of the penalty.
        method: As `selection.choose` takes it.
        number: Number of superpixels.
        clusters: As in `ridge`.
    """

    def one(targets, mean, products):
        chosen = _selection.choose(method, p.gram, products, p.present, number)
        return _restricted(p, targets, mean, products, chosen, alpha, clusters)

    fit = jax.vmap(one, (1, 0, 1))(p.targets, p.target_mean, p.products)
    return Fit(*(x[:, 0] for x in fit))


def _restricted(p, targets, mean, products, chosen, alpha, clusters):
    """Fit one target on the chosen superpixels."""
    alone = p._replace(
        centred=p.centred * chosen[None],
        mean=p.mean * chosen,
        targets=targets[:, None],
        target_mean=mean[None],
        present=chosen,
        gram=p.gram * jnp.outer(chosen, chosen),
        products=(products * chosen)[:, None],
    )
    return ridge(alone, alpha, clusters)


def lasso(p: Problem, alpha: jax.Array | float, clusters: int = 1) -> Fit:
    """Minimise sum_i w_i (y_i - b - z_i . beta)^2 / (2 sum_i w_i) + alpha |beta|_1 (scikit-learn's Lasso).

    The standard errors are those of the least squares fit on the superpixels with a slope.

    Args:
        p: The regression.
        alpha: Strength of the penalty.
        clusters: As in `ridge`.
    """
    total = p.weight.sum()

    def one(targets, mean, products):
        beta = _selection.lasso(p.gram / total, products / total, p.present, jnp.asarray(alpha, jnp.float32))
        refit = _restricted(p, targets, mean, products, (beta != 0).astype(jnp.float32), 0.0, clusters)
        return beta, refit.standard_error[0]

    beta, error = jax.vmap(one, (1, 0, 1))(p.targets, p.target_mean, p.products)
    residuals = p.targets - jnp.dot(p.centred, beta.T, precision=_EXACT)
    return Fit(beta, _intercept(p, beta.T), r_squared(p, residuals), error)


def _intercept(p, beta):
    return p.target_mean - jnp.dot(p.mean, beta, precision=_EXACT)


def factorise(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the lower Cholesky factor of a Gram matrix, and whether it is singular in float32."""
    factor = cho_factor(gram, lower=True)[0]
    pivots = jnp.square(jnp.diagonal(factor)) / jnp.maximum(jnp.diagonal(gram), 1e-30)
    # The negation also catches NaN, which the factorisation of an indefinite matrix gives.
    return factor, ~(pivots.min() > 32 * jnp.finfo(jnp.float32).eps)


def solve(factor: jax.Array, gram: jax.Array, right: jax.Array) -> jax.Array:
    """Solve gram @ x = right with one step of iterative refinement."""
    x = cho_solve((factor, True), right)
    return x + cho_solve((factor, True), right - jnp.dot(gram, x, precision=_EXACT))


# With fewer degrees of freedom, two standard errors contain the truth too rarely (Student's t: 88 % for 4).
LEAST_FREEDOM = 5


class Samples(NamedTuple):
    """The rows of a regression, from which standard errors of its slopes are estimated.

    Attributes:
        centred: Masks minus their mean, float32 [samples, S].
        weight: float32 [samples].
        clusters: This many consecutive samples were drawn together.
        intercept: Whether an intercept is also fitted.
    """

    centred: jax.Array
    weight: jax.Array
    clusters: int
    intercept: bool

    def folded(self, x: jax.Array) -> jax.Array:
        """Return x [samples, ...] as [clusters, samples per cluster, ...], padded with zeros."""
        missing = -x.shape[0] % self.clusters
        x = jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)])
        return x.reshape(-1, self.clusters, *x.shape[1:])

    def freedom(self, present: jax.Array) -> jax.Array:
        """Return the number of clusters minus the number of unknowns."""
        drawn = (self.folded(self.weight) > 0).any(1).astype(jnp.float32).sum()
        return drawn - present.sum() - int(self.intercept)


def leave_out(samples: Samples, factor: jax.Array, residuals: jax.Array) -> jax.Array:
    """Return the residuals of each cluster under the fit to all others: (I - H_c)^-1 r_c.

    A fit follows its own samples, especially if they hardly outnumber the unknowns, so plain residuals are
    too small.

    Args:
        samples: The rows.
        factor: The Cholesky factor of the Gram matrix.
        residuals: float32 [samples, targets].

    Returns:
        float32 [clusters, samples per cluster, targets].

    References:
        Bell, McCaffrey: Bias Reduction in Standard Errors for Linear Regression with Multi-Stage Samples.
        Survey Methodology 2002 (the estimator CR3).
    """
    centred = samples.folded(samples.centred)
    turned = samples.folded(cho_solve((factor, True), samples.centred.T).T)
    hat = jnp.einsum("cis,cjs->cij", centred, turned, precision=_EXACT)
    if samples.intercept:
        hat = hat + 1 / samples.weight.sum()
    hat = hat * samples.folded(samples.weight)[:, None, :]
    found = samples.folded(residuals)
    if samples.clusters == 1:
        return found / (1 - hat)
    return jnp.linalg.solve(jnp.eye(samples.clusters, dtype=jnp.float32)[None] - hat, found)


def spread(samples: Samples, factor: jax.Array, residuals: jax.Array) -> jax.Array:
    """Return the sandwich estimate sum_c (sum_{i in c} h_i r_i)^2 of each slope's variance, [S, targets].

    Args:
        samples: The rows.
        factor: The Cholesky factor of the matrix used to solve.
        residuals: r, as `leave_out` returns them.
    """
    weighted = samples.centred * samples.weight[:, None]
    influence = samples.folded(cho_solve((factor, True), weighted.T).T)
    total = jnp.einsum("cis,cit->st", influence**2, residuals**2, precision=_EXACT)
    for i in range(samples.clusters):
        for j in range(i):
            pairs = influence[:, i] * influence[:, j]
            total = total + 2 * jnp.dot(pairs.T, residuals[:, i] * residuals[:, j], precision=_EXACT)
    return total


def root(squares: jax.Array, unknown: jax.Array) -> jax.Array:
    """Return standard errors from their squares; NaN where they are `unknown` or not numbers."""
    return jnp.where(unknown | ~jnp.isfinite(squares), jnp.nan, jnp.sqrt(jnp.maximum(squares, 0)))


def warn_unknown(error: jax.Array, masks: int, present: jax.Array) -> None:
    """Warn if concrete standard errors of some image are unknown, and name the image.

    Args:
        error: Standard errors [batch, *k, S].
        masks: Number of masks.
        present: Superpixels of each image, float32 [batch, S].
    """
    if isinstance(error, Tracer) or not (unknown := unsolved(error)).any():
        return
    first = int(np.argmax(unknown))
    others = f" and of {unknown.sum() - 1} more" if unknown.sum() > 1 else ""
    warnings.warn(
        f"{masks} masks are too few to tell how far the values of image {first}, with"
        f" {int(present[first].sum())} superpixels,{others} may be off: `standard_error` is NaN there;"
        " draw more masks or cut fewer superpixels",
        RuntimeWarning,
        stacklevel=3,
    )


def unsolved(values: jax.Array) -> np.ndarray:
    """Return which images have a NaN in concrete values [batch, ...], bool [batch]."""
    return np.asarray(np.isnan(np.asarray(values)).reshape(len(values), -1).any(1))


def r_squared(p: Problem, residuals: jax.Array) -> jax.Array:
    """Return the weighted coefficient of determination; constant targets give 1 if fitted exactly, else 0."""
    left = jnp.dot(p.weight, residuals**2, precision=_EXACT)
    total = jnp.dot(p.weight, p.targets**2, precision=_EXACT)
    ratio = 1 - left / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, ratio, jnp.where(left > 0, 0.0, 1.0))
