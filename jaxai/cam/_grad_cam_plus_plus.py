"""Grad-CAM++: channel weights from derivatives up to the third."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame.describe import describes, one_head, unless_relu
from .._frame.targets import Targets
from ._core import View, explain, weighted


def plus_plus_weights(acts: jax.Array, first: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
    """Return Grad-CAM++'s channel weights from the first three derivatives of the target at every position.

    The ReLU is applied to `first`; equations 7 and 10 of the paper.
    """
    total = acts.sum((-3, -2), keepdims=True)
    denominator = 2 * second + total * third + 1e-6
    alpha = jnp.where(first != 0, second / jnp.where(denominator == 0, 1, denominator), 0)
    return (alpha * jax.nn.relu(first)).sum((-3, -2), keepdims=True)


def _plus_plus(view: View, *, score_function: Callable[[Any], Any] | None) -> jax.Array:
    scores, grads = view.gradients()
    acts = view.beside(grads)
    if score_function is None:
        return weighted(view, plus_plus_weights(acts, grads, grads**2, grads**3))
    slope = jax.grad(score_function)
    curve = jax.grad(slope)

    def at_scores(derivative):
        values = jax.vmap(derivative)(scores.ravel()).reshape(scores.shape)
        return values[..., None, None, None]

    # Numerator and denominator are divided by the second derivative, so that the 1e-6 has a fixed scale.
    bend = at_scores(curve)
    ratio = at_scores(jax.grad(curve)) / jnp.where(bend == 0, 1, bend)
    first = at_scores(slope) * grads
    return weighted(view, plus_plus_weights(acts, first, (bend != 0) * grads**2, ratio * grads**3))


@describes(title="Grad-CAM++", result="heatmap", cost=one_head, signed=unless_relu)
def grad_cam_plus_plus(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    score_function: Callable[[Any], Any] | None = None,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Weight each channel by its positive gradients, where positions count more if few are active.

    The paper explains Y = phi(S) of a class score S that is piecewise linear in the activations, so that the
    derivatives of Y are phi', phi'' and phi''' of S times powers of dS/dA. By default they are replaced by
    the powers of dS/dA themselves, as in pytorch-grad-cam: the shape of phi = exp, without its factor exp(S).

    Args:
        score_function: A smooth phi of one score, such as `jnp.exp` or `jax.nn.sigmoid`, whose second and
            third derivatives are then used exactly; None is the power formula. It must be nonlinear: a linear
            phi gives no weights.

    References:
        Chattopadhyay et al.: Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
        Convolutional Networks. WACV 2018, arXiv 1710.11063, equations 5, 7, 10 and 19.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"conv": lambda x: x, "pool": lambda x: x.mean((1, 2))})
        >>> jaxai.grad_cam_plus_plus(net, jnp.ones((1, 2, 2, 1)), 0).shape
        (1, 2, 2)
    """
    if score_function is not None and not callable(score_function):
        raise TypeError(f"`score_function` must be callable; got {type(score_function).__name__}")
    return explain(
        _plus_plus,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        score_function=score_function,
    )
