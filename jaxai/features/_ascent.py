"""Gradient ascent on images: the plain rule, compiled as one loop."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._frame import batching, checks
from .._frame import targets as _targets


def gradient_ascent(
    objective: Callable[[Any], Any],
    x0: Float[Array, "batch *shape"],
    *,
    step_size: ArrayLike,
    steps: int,
    batch_size: int | None = None,
) -> Float[Array, "batch *shape"]:
    """Climb an objective from given images by the plain rule: x <- x + step_size * d objective / d x.

    It uses no normalisation, momentum, prior or clipping; see `visualize` and `deep_dream` for these.

    Args:
        objective: Callable pytree, x [batch, ...] -> values [batch], which treats each image independently.
            Bind a model with `jax.tree_util.Partial`, so that its parameters are arguments of the compiled
            loop.
        x0: Initial images, floating point, any shape with a batch axis.
        step_size: A number (it does not recompile); negative descends.
        steps: Number of steps; a change recompiles.
        batch_size: At most this many images in flight; None means all.

    Returns:
        The images after the last step, like `x0`.

    Raises:
        TypeError: If `objective` cannot be called or `x0` is not floating point.
        ValueError: If `objective` does not return shape [batch], or `steps` is not positive.

    References:
        Erhan, Bengio, Courville, Vincent: Visualizing Higher-Layer Features of a Deep Network. Technical
        report 1341, University of Montreal, 2009.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> hill = lambda x: -((x - 3) ** 2).sum((1, 2, 3))
        >>> jaxai.gradient_ascent(hill, jnp.zeros((1, 1, 1, 1)), step_size=0.25, steps=2).item()
        2.25
    """
    objective = as_objective(objective)
    x0 = jnp.asarray(x0)
    if x0.ndim < 1 or 0 in x0.shape:
        raise ValueError(f"`x0` must be [batch, ...] with no empty axis; got shape {x0.shape}")
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise TypeError(f"`x0` must be floating point; got {x0.dtype}")
    step_size = jnp.asarray(step_size, jnp.float32)
    if step_size.ndim:
        raise ValueError(f"`step_size` must be one number; got shape {step_size.shape}")
    return _gradient_ascent(
        objective,
        x0,
        step_size,
        steps=checks.positive(steps, "steps"),
        batch_size=checks.batch_size(batch_size),
    )


def as_objective(objective: Any) -> Callable[[Any], Any]:
    """Return `objective` as a callable pytree, or raise TypeError."""
    if not callable(objective):
        raise TypeError(f"`objective` must be callable, x -> float[batch]; got {type(objective).__name__}")
    return _targets.as_model(objective)


@partial(jax.jit, static_argnames=("steps", "batch_size"))
def _gradient_ascent(objective, x0, step_size, *, steps, batch_size):
    def total(x):
        return values_of(objective, x).sum()

    def climb(x):
        def step(x, _):
            return x + step_size.astype(x.dtype) * jax.grad(total)(x), None

        return jax.lax.scan(step, x, length=steps)[0]

    return batching.map_chunks(climb, x0, batch_size=batch_size)


def values_of(objective: Callable[[Any], Any], x: jax.Array) -> jax.Array:
    """Return `objective(x)` as float32[batch], or raise ValueError if it has another shape."""
    values = jnp.asarray(objective(x))
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"`objective` must return shape {x.shape[:1]}, one value per image; got {values.shape}"
        )
    return values.astype(jnp.float32)
