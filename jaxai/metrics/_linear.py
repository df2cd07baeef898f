"""Removed pixels as weighted means of their neighbours, by conjugate gradients on the full grid (ROAD)."""

import jax
import jax.numpy as jnp

# Weights of the four neighbours at an edge and of the four at a corner (Rong et al. 2022, section 4.2).
_EDGE, _CORNER = 1 / 6, 1 / 12


def linear(
    images: jax.Array, hidden: jax.Array, *, tolerance: float = 1e-5, iterations: int = 1000
) -> jax.Array:
    """Replace hidden pixels so that each is the weighted mean of its eight neighbours.

    With neighbours outside of the image left out, x_i sum_n w_n = sum_n w_n x_n for every hidden i. The
    system is symmetric and positive definite: conjugate gradients with the diagonal as the preconditioner
    start from the means of ever larger blocks.

    Args:
        images: [batch, height, width, channels].
        hidden: [batch, height, width]; where it is not 0 a pixel is replaced.
        tolerance: Of the residual's norm, as a fraction of the right side's norm.
        iterations: At most so many.

    Returns:
        float32 like `images`. An image of which nothing is left shows its mean colour.
    """
    x = images.astype(jnp.float32)
    free = (hidden != 0)[..., None].astype(jnp.float32)
    degree = _neighbours(jnp.ones((1, *x.shape[1:3], 1)))
    right = free * _neighbours((1 - free) * x)

    def system(p):
        return free * (degree * p - _neighbours(p))

    def dot(a, b):
        return (a * b).sum((1, 2), keepdims=True)

    found = free * _pull_push((1 - free) * x, 1 - free, x.mean((1, 2), keepdims=True))
    residual = right - system(found)
    scaled = residual / degree
    # Where nothing is known the system is singular, and the start is a solution.
    bound = jnp.where(free.min((1, 2), keepdims=True) > 0, jnp.inf, tolerance**2 * dot(right, right))
    state = (found, residual, scaled, dot(residual, scaled), 0)

    def unfinished(state):
        return (state[4] < iterations) & (dot(state[1], state[1]) > bound).any()

    def step(state):
        found, residual, direction, energy, count = state
        moved = system(direction)
        curvature = dot(direction, moved)
        # Where the residual is exactly zero there is nothing left to do.
        length = jnp.where(curvature > 0, energy / jnp.where(curvature > 0, curvature, 1), 0)
        found, residual = found + length * direction, residual - length * moved
        scaled = residual / degree
        new = dot(residual, scaled)
        direction = scaled + jnp.where(energy > 0, new / jnp.where(energy > 0, energy, 1), 0) * direction
        return found, residual, direction, new, count + 1

    found = jax.lax.while_loop(unfinished, step, state)[0]
    return jnp.where(free > 0, found, x)


def _neighbours(x):
    """Return the weighted sum of the eight neighbours, those outside being zero."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = jnp.zeros_like(x)
    for down in range(3):
        for right in range(3):
            apart = abs(down - 1) + abs(right - 1)
            if apart:
                shifted = padded[:, down : down + height, right : right + width]
                total += (_EDGE if apart == 1 else _CORNER) * shifted
    return total


def _pull_push(total, weight, mean):
    """Return the mean of the known pixels in the smallest block, 1, 2, 4, ... wide, that has any."""
    own = total / jnp.maximum(weight, 1)
    height, width = weight.shape[1:3]
    if height == width == 1:
        return jnp.where(weight > 0, own, mean)

    def halved(x):
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).sum((2, 4))

    coarse = _pull_push(halved(total), halved(weight), mean)
    wide = jnp.repeat(jnp.repeat(coarse, 2, axis=1), 2, axis=2)[:, :height, :width]
    return jnp.where(weight > 0, own, wide)
