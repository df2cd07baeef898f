"""Concept activation vectors: directions of a layer's activations that separate examples of a concept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from .._frame import checks

METHODS = ("pattern", "ridge", "logistic", "svm")
_STEPS = 30
_ROUNDING = 3e-6


def cav(
    acts: Float[Array, "examples *features"],
    labels: Bool[Array, " examples"],
    *,
    method: str = "pattern",
    alpha: float = 0.01,
) -> Float[Array, "*features"]:
    r"""Return the direction of a concept in activation space: from other examples to those that show it.

    The pattern, $\mathrm{cov}(a, t) / \mathrm{var}(t)$ with t = 1 for the concept, is the difference of the
    two means: it points to the concept whatever else varies with it. The normal of a classifier also points
    away from such distractors, so that scores can seem to depend on the concept although they do not.

    Args:
        acts: Activations of examples, with any axes after the first. Average them over positions for a
            direction of channels.
        labels: Which of the examples show the concept; [examples].
        method: `"pattern"`; or the normal of a linear model of the labels, `"ridge"` (least squares),
            `"logistic"` or `"svm"` (squared hinge loss).
        alpha: Strength of the classifiers' penalty, alpha / 2 times the squared norm added to the mean loss,
            for activations of unit variance on average.

    Returns:
        The direction [*features], float32 of length one.

    Raises:
        ValueError: If shapes do not fit, one kind of examples is missing, activations are not finite, both
            kinds have the same mean, or an option does not exist.

    References:
        Pahde et al.: Navigating Neural Space: Revisiting Concept Activation Vectors to Overcome Directional
        Divergence. ICLR 2025, arXiv 2202.03482, equation 5 (pattern).
        Kim et al.: Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
        Vectors (TCAV). ICML 2018, arXiv 1711.11279, section 3.2 (classifier).

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> acts = jnp.array([[0.0, 1.0], [2.0, 1.0], [0.0, 4.0], [2.0, 4.0]])
        >>> jaxai.concepts.cav(acts, jnp.array([False, False, True, True])).tolist()
        [0.0, 1.0]
    """
    acts = jnp.asarray(acts, jnp.float32)
    checks.choice(method, "method", METHODS)
    alpha = checks.number(alpha, "alpha", "(0, inf)")
    shown = np.asarray(labels) if not isinstance(labels, Tracer) else None
    shape = jnp.shape(labels)
    if acts.ndim < 2 or shape != acts.shape[:1]:
        raise ValueError(
            f"`acts` must be [examples, *features] and `labels` [examples]; got {acts.shape} and {shape}"
        )
    if shown is not None and (not np.isin(shown, (0, 1)).all() or shown.min() == shown.max()):
        raise ValueError("`labels` must be bool, with examples of the concept and others")
    found = vector(acts.reshape(len(acts), -1), jnp.asarray(labels, jnp.float32), alpha, method=method)
    if not isinstance(found, Tracer) and not np.isclose(float(jnp.linalg.norm(found)), 1, atol=1e-3):
        raise ValueError(
            "`acts` must be finite and differ between the examples of the concept and the others: no"
            " direction tells them apart"
        )
    return found.reshape(acts.shape[1:])


@partial(jax.jit, static_argnames="method")
def vector(acts: jax.Array, labels: jax.Array, alpha: jax.Array, *, method: str) -> jax.Array:
    """Return the direction of activations [examples, features] and labels 0 and 1; zero if there is none."""
    ours, others = labels / labels.sum(), (1 - labels) / (1 - labels).sum()
    if method == "pattern":
        return _unit(ours @ acts - others @ acts, jnp.sqrt(jnp.square(acts).mean()))
    centred = acts - acts.mean(0)
    spread = jnp.sqrt(jnp.square(centred).mean())
    centred = centred / jnp.where(spread > 0, spread, 1)
    # All normals are linear combinations of the examples, which are fewer than the features.
    kernel = centred @ centred.T
    count = len(labels)
    if method == "ridge":
        shares = jnp.linalg.solve(kernel + count * alpha * jnp.eye(count), labels - labels.mean())
    else:
        shares = _newton(kernel, 2 * labels - 1, alpha, method)
    return _unit(shares @ centred, 1.0)


def _unit(direction: jax.Array, scale: jax.Array | float) -> jax.Array:
    """Return a direction of length one; zero if it is only rounding error relative to `scale`."""
    length = jnp.linalg.norm(direction)
    kept = length > _ROUNDING * scale
    return jnp.where(kept, direction, 0) / jnp.where(kept, length, 1)


def _newton(kernel, signs, alpha, method):
    """Minimise mean loss(sign (kernel a + b)) + alpha / 2 a' kernel a by damped Newton steps."""
    count = len(signs)

    def loss(parameters):
        shares, offset = parameters[:-1], parameters[-1]
        margins = signs * (kernel @ shares + offset)
        each = jax.nn.softplus(-margins) if method == "logistic" else jnp.square(jax.nn.relu(1 - margins))
        return each.mean() + alpha / 2 * shares @ (kernel @ shares)

    def step(parameters, _):
        slope, curve = jax.grad(loss)(parameters), jax.hessian(loss)(parameters)
        scale = jnp.trace(curve) / (count + 1)
        direction = jnp.linalg.solve(curve + 1e-6 * scale * jnp.eye(count + 1), slope)
        tries = parameters - jnp.array([1.0, 0.5, 0.25, 0.1, 0.01, 0.0])[:, None] * direction
        values = jax.vmap(loss)(tries)
        return tries[jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))], None

    return jax.lax.scan(step, jnp.zeros(count + 1, jnp.float32), length=_STEPS)[0][:-1]
