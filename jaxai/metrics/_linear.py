"""Removed pixels as weighted means of their neighbours, by conjugate gradients on the full grid (ROAD)."""

import jax
import jax.numpy as jnp
from jax import lax


def linear(
    images: jax.Array, hidden: jax.Array, *, tolerance: float = 1e-6, iterations: int = 300
) -> jax.Array:
    """Replace hidden pixels so that each is the weighted mean of its eight neighbours.

    Without neighbours outside the image, x_i sum_n w_n = sum_n w_n x_n for every hidden i, where w is 1/6 for
    the four neighbours at an edge and 1/12 for the four at a corner (Rong et al. 2022, section 4.2). The
    system is symmetric and positive definite. Conjugate gradients start from the means of increasingly large
    blocks; the preconditioner adds the residual's sums over increasingly large blocks, so that large holes
    need hardly more iterations than single pixels (Bramble, Pasciak, Xu: Parallel Multilevel Preconditioners.
    Mathematics of Computation 1990).

    Args:
        images: [batch, height, width, channels].
        hidden: [batch, height, width]; nonzero where a pixel is replaced.
        tolerance: Tolerance of the residual's norm, as a fraction of the right-hand side's norm.
        iterations: At most this many.

    Returns:
        float32 like `images`. An image that is entirely hidden becomes its mean colour.
    """
    return _solve(images, hidden, tolerance, iterations)[0]


def _solve(images, hidden, tolerance, iterations):
    """Return the images and the number of iterations."""
    # Channels precede the positions: loops over rows of pixels are vectorised, loops over three channels are
    # not.
    x = jnp.moveaxis(images.astype(jnp.float32), -1, 1)
    free = (hidden != 0)[:, None].astype(jnp.float32)
    degree = _neighbours(jnp.ones((1, 1, *x.shape[2:])))
    right = free * _neighbours((1 - free) * x)
    levels = _levels(free)

    def system(p):
        return free * (degree * p - _neighbours(p))

    def dot(a, b):
        return (a * b).sum((2, 3), keepdims=True)

    found = free * _pull_push((1 - free) * x, 1 - free, x.mean((2, 3), keepdims=True))
    residual = right - system(found)
    scaled = _precondition(residual, levels)
    # If no pixel is known, the system is singular and the initial value is a solution.
    bound = jnp.where(free.min((2, 3), keepdims=True) > 0, jnp.inf, tolerance**2 * dot(right, right))
    state = (found, residual, scaled, dot(residual, scaled), 0)

    def unfinished(state):
        return (state[4] < iterations) & (dot(state[1], state[1]) > bound).any()

    def step(state):
        found, residual, direction, energy, count = state
        moved = system(direction)
        curvature = dot(direction, moved)
        # Nothing is left to do where the residual is exactly zero.
        length = jnp.where(curvature > 0, energy / jnp.where(curvature > 0, curvature, 1), 0)
        found, residual = found + length * direction, residual - length * moved
        scaled = _precondition(residual, levels)
        new = dot(residual, scaled)
        direction = scaled + jnp.where(energy > 0, new / jnp.where(energy > 0, energy, 1), 0) * direction
        return found, residual, direction, new, count + 1

    state = lax.while_loop(unfinished, step, state)
    return jnp.moveaxis(jnp.where(free > 0, state[0], x), 1, -1), state[4]


def _smooth(x):
    """Return x filtered by (1, 2, 1) down and across; zeros outside.

    The barriers keep XLA from recomputing a value for each of its three readers in every pass: six times
    faster on the CPU.
    """
    height, width = x.shape[2:]
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0))))
    x = x[:, :, :height] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1))))
    return x[..., :width] + 2 * x[..., 1:-1] + x[..., 2:]


def _neighbours(x):
    """Return the weighted sum of the eight neighbours, with zeros outside."""
    return (_smooth(x) - 4 * x) / 12


def _halved(x, reduce=jnp.sum):
    """Return blocks of 2 x 2 reduced to one; odd sides are padded with zeros."""
    height, width = x.shape[2:]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, height % 2), (0, width % 2)))
    return reduce(x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2), axis=(3, 5))


def _doubled(x, like):
    return jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)[:, :, : like.shape[2], : like.shape[3]]


def _levels(free):
    """Return where pixels are free, then where all pixels of blocks are, each level twice as wide."""
    found = [free]
    while min(found[-1].shape[2:]) > 2:
        found.append(_halved(found[-1], jnp.min))
    return found


def _precondition(residual, levels):
    """Return the residual summed to each level and interpolated back, added up over levels.

    On each level the system is the same to leading order, with ones on its diagonal, because sums of the
    residual over four times the pixels correspond to derivatives over twice the distance.
    """
    if len(levels) == 1:
        return residual
    free, coarser = levels[0], levels[1:]
    below = coarser[0] * _halved(_smooth(residual) / 16)
    wide = _doubled(_precondition(below, coarser), residual)
    return residual + free * _smooth(wide) / 16


def _pull_push(total, weight, mean):
    """Return the mean of the known pixels in the smallest block, 1, 2, 4, ... wide, that has any."""
    own = total / jnp.maximum(weight, 1)
    if max(weight.shape[2:]) == 1:
        return jnp.where(weight > 0, own, mean)
    wide = _doubled(_pull_push(_halved(total), _halved(weight), mean), weight)
    return jnp.where(weight > 0, own, wide)
