"""Encodings of sparse autoencoders: the selection of the dictionary entries that compose an activation."""

import jax
import jax.numpy as jnp

KINDS = ("top_k", "batch_top_k", "jump_relu", "matching_pursuit")
DICTIONARIES = ("free", "archetypal")


def activated(encoder: jax.Array, threshold: jax.Array, x: jax.Array) -> jax.Array:
    """Return relu(x W + c), [rows, codes]."""
    return jax.nn.relu(x @ encoder + threshold)


def largest(codes: jax.Array, k: int) -> jax.Array:
    """Keep the k largest codes of each row; among equal ones at the threshold, the first."""
    values, places = jax.lax.top_k(codes, k)
    rows = jnp.arange(len(codes))[:, None]
    return jnp.zeros_like(codes).at[rows, places].set(values)


def border(codes: jax.Array, count: int) -> jax.Array:
    """Return the `count`-th largest of non-negative codes, by bisection of their bits.

    Such floats are ordered like their bits, so 31 counting passes find it exactly; sorting all codes of a
    batch takes longer.
    """
    bits = jax.lax.bitcast_convert_type(codes.astype(jnp.float32), jnp.int32)

    def step(_, ends):
        low, high = ends
        middle = low + (high - low) // 2
        enough = (bits >= middle).sum(dtype=jnp.int32) >= count
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.fori_loop(0, 31, step, (jnp.int32(0), jnp.int32(0x7F800000)))
    return jax.lax.bitcast_convert_type(low, jnp.float32)


@jax.custom_vjp
def jump_relu(codes: jax.Array, gate: jax.Array, bandwidth: jax.Array) -> jax.Array:
    r"""Return the codes above their gates, [rows, codes].

    Its pseudo-derivative for a gate is $-\frac{\theta}{\epsilon} K((x - \theta) / \epsilon)$ with a
    rectangular kernel (equation 11 of Rajamanoharan et al. 2024).
    """
    return jnp.where(codes > gate, codes, 0)


def _near(codes, gate, bandwidth):
    return (jnp.abs(codes - gate) < bandwidth / 2).astype(codes.dtype)


def _jump_forward(codes, gate, bandwidth):
    return jump_relu(codes, gate, bandwidth), (codes, gate, bandwidth)


def _jump_backward(kept, slope):
    codes, gate, bandwidth = kept
    moved = -(gate / bandwidth) * (_near(codes, gate, bandwidth) * slope).sum(0)
    return slope * (codes > gate), moved, jnp.zeros_like(bandwidth)


jump_relu.defvjp(_jump_forward, _jump_backward)


@jax.custom_vjp
def number_above(codes: jax.Array, gate: jax.Array, bandwidth: jax.Array) -> jax.Array:
    r"""Return the mean number per row of codes above their gates.

    The pseudo-derivative for a gate is $-\frac{1}{\epsilon} K((x - \theta) / \epsilon)$ (equation 12).
    """
    return (codes > gate).sum(-1).astype(codes.dtype).mean()


def _number_forward(codes, gate, bandwidth):
    return number_above(codes, gate, bandwidth), (codes, gate, bandwidth)


def _number_backward(kept, slope):
    codes, gate, bandwidth = kept
    return (
        jnp.zeros_like(codes),
        -slope / bandwidth * _near(codes, gate, bandwidth).mean(0),
        jnp.zeros_like(bandwidth),
    )


number_above.defvjp(_number_forward, _number_backward)


def pursued(x: jax.Array, directions: jax.Array, k: int) -> jax.Array:
    """Return non-negative codes by k steps of matching pursuit; each explains most of the residual.

    Args:
        x: [rows, features].
        directions: [codes, features], of length one.
        k: Number of steps; a direction may be chosen again.
    """

    # Only the chosen direction has a derivative: its row is gathered, and no product with all directions is
    # differentiated.
    def step(rest, _):
        place = jnp.argmax(jax.lax.stop_gradient(rest) @ jax.lax.stop_gradient(directions).T, axis=-1)
        taken = directions[place]
        amount = jax.nn.relu((rest * taken).sum(-1))
        return rest - amount[:, None] * taken, (place, amount)

    places, amounts = jax.lax.scan(step, x, length=k)[1]
    rows = jnp.broadcast_to(jnp.arange(len(x)), places.shape)
    return jnp.zeros((len(x), len(directions)), x.dtype).at[rows, places].add(amounts)
