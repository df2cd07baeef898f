"""Gradients with modified ReLU rules: guided backprop, deconvnet, the redirected ReLU."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import describes, one_backward
from .._program.relus import activations, has_activation
from ._rewrite import Rewritten


class _ReluRule(NamedTuple):
    """A backward rule of ReLUs: the residuals `seen(x, upper)`, and the input's cotangent computed from them.

    `upper` is None, or the bound of a ReLU6.
    """

    seen: Callable[[jax.Array, float | None], Any]
    pull: Callable[[Any, jax.Array], jax.Array]


def _open(x, upper):
    """Return where the ReLU passes its input."""
    return x > 0 if upper is None else (x > 0) & (x < upper)


def _guided(passing, g):
    return jnp.where(passing & (g > 0), g, 0)


def _outside(x, upper):
    """Return where the input is below the ReLU's range, and where above it."""
    return x < 0, None if upper is None else x > upper


def _redirected(maximize, outside, g):
    below, above = outside
    dead, blocked = below, below & (g < 0 if maximize else g > 0)
    if above is not None:
        blocked |= above & (g > 0 if maximize else g < 0)
        dead |= above
    plain = jnp.where(dead, 0, g)
    redirected = jnp.where(blocked, 0, g)
    axes = tuple(range(1, g.ndim)) if g.ndim > 1 else None
    silent = ~jnp.any(plain != 0, axis=axes, keepdims=True)
    return jnp.where(silent, redirected, plain)


@cache
def _relu_with(rule: _ReluRule, upper: float | None):
    @jax.custom_vjp
    def relu(x):
        y = jnp.maximum(x, 0)
        return y if upper is None else jnp.minimum(y, jnp.asarray(upper, y.dtype))

    def forward(x):
        # The barrier makes XLA compute the residuals here, at one or two bytes per value, rather than keep
        # the values.
        return jax.lax.optimization_barrier((relu(x), rule.seen(x, upper)))

    relu.defvjp(forward, lambda seen, g: (rule.pull(seen, g),))
    return relu


def _replace(rule: _ReluRule, graph):
    return {out: (_relu_with(rule, relu.upper), (relu.x,)) for out, relu in activations(graph).items()}


# Created once, so that equal rules are equal in the compiler's cache.
_GUIDED = partial(_replace, _ReluRule(_open, _guided))
_DECONVOLUTION = partial(_replace, _ReluRule(lambda x, upper: None, lambda seen, g: jnp.maximum(g, 0)))
_REDIRECTED = {
    maximize: partial(_replace, _ReluRule(_outside, partial(_redirected, maximize)))
    for maximize in (True, False)
}


def _with_rule(model: Any, replacements: Any) -> Rewritten:
    return Rewritten(_targets.as_model(model), replacements, has_activation, "a ReLU")


def redirected_relu(fn: Callable[..., Any], *, maximize: bool = True) -> Rewritten:
    """Return a function whose dead ReLUs pass the gradient that would bring them back to life.

    The values are those of `fn`. If an example's whole gradient at a ReLU would be zero, because every
    relevant unit is at or below zero, the gradient passes to the units below zero that it would push up (and
    at a ReLU6 to those above six that it would push down). Otherwise it is the ReLU's own gradient, which
    passes at exactly zero. Examples are the entries of the first axis of a ReLU's input. ReLUs are recognised
    as in `guided_backprop`.

    Args:
        fn: Callable pytree of arrays; a layered model stays layered.
        maximize: Whether the incoming gradient is for ascent, as in activation maximisation. False is for the
            gradient of a loss to minimise, the sign convention of Lucid's rule.

    Returns:
        A callable pytree like `fn`, for reverse-mode differentiation; it raises ValueError when called if the
        function has no ReLU.

    References:
        Olah, Mordvintsev, Schubert: Feature Visualization. Distill 2017; the rule is that of its library
        Lucid.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> f = lambda x: jax.nn.relu(x).sum()
        >>> jax.grad(jaxai.rules.redirected_relu(f))(-jnp.ones((1, 2))).tolist()
        [[1.0, 1.0]]
    """
    return _with_rule(fn, _REDIRECTED[bool(maximize)])


@describes(title="guided backprop", result="pixels", cost=one_backward, signed=True)
def guided_backprop(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Return the gradient of the score with only positive gradients passed back through the ReLUs.

    A ReLU passes a gradient where both its input and the gradient are positive; a ReLU6 only where its input
    is also below six. ReLUs of any spelling count (`jax.nn.relu`, `relu6`, `jnp.maximum(x, 0)`, `jnp.clip`,
    `jnp.where(x > 0, x, 0)`, `x * (x > 0)`), also in loops and calls; a model without any raises an error. A
    maximum with zero that is not an activation keeps its gradient: the clamp of a norm's variance or of a
    distance, the guard of a root, and a part of another function such as a hard swish, a hard sigmoid or a
    softplus. The maps hardly depend on the class or on the weights of the upper layers (Adebayo et al. 2018,
    arXiv 1810.03292).

    Raises:
        ValueError: If the model has no ReLU.

    References:
        Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity. ICLR Workshop 2015,
        arXiv 1412.6806, section 3.4.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: jax.nn.relu(x).sum((1, 2)) @ jnp.array([[1.0, -1.0]])
        >>> jaxai.guided_backprop(net, jnp.ones((1, 1, 1, 1)), jnp.array([[0, 1]])).ravel().tolist()
        [1.0, 0.0]
    """
    return _rule_gradient(model, images, targets, _GUIDED, batch_size)


@describes(title="deconvnet", result="pixels", cost=one_backward, signed=True)
def deconvnet(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Return the gradient of the score with the ReLUs applied to the gradients instead of the activations.

    A ReLU (or ReLU6) passes a gradient where it is positive, whatever its input was. Max-pools route it to
    the position of their maximum ("switches"). ReLUs are recognised as in `guided_backprop`; a model without
    any raises an error.

    Raises:
        ValueError: If the model has no ReLU.

    References:
        Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv 1311.2901,
        section 2.1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: jax.nn.relu(x).sum((1, 2)) @ jnp.array([[1.0, -1.0]])
        >>> jaxai.deconvnet(net, -jnp.ones((1, 1, 1, 1)), jnp.array([[0, 1]])).ravel().tolist()
        [1.0, 0.0]
    """
    return _rule_gradient(model, images, targets, _DECONVOLUTION, batch_size)


def _rule_gradient(model, images, targets, rule, batch_size):
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
    return _gradient(
        _with_rule(model, rule),
        images,
        targets,
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames="batch_size")
def _gradient(model, images, targets, *, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(x, t):
        return t.gradients(model, x, batch_size=batch_size)[1]

    return batching.map_images(chunk, images, targets, batch_size=batch_size)
