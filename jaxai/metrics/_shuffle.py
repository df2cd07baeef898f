"""Large arrays in random order, without sorting random numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np

# For smaller arrays `jax.random.permutation` is fast, and the tables would be too short.
_SMALL = 4096
_ROUNDS = 6


def shuffled(key: jax.Array, values: jax.Array) -> jax.Array:
    """Return values [n] in random order; the order depends only on (key, n).

    Sorting millions of random numbers takes a second on a CPU. A Feistel network on pairs of digits (row,
    column) with random tables as its rounds takes a tenth of that: every round adds to one digit a table's
    entry for the other, so that two places never collide. With random tables a few rounds are
    indistinguishable from a random permutation (Luby, Rackoff: How to Construct Pseudorandom Permutations
    from Pseudorandom Functions. SIAM Journal on Computing 1988).
    """
    count = values.shape[0]
    if count <= _SMALL:
        return jax.random.permutation(key, values)
    return values[_places(key, count)]


def _places(key, count):
    rows, columns = _sides(count)
    sides = (rows, columns)
    bits = jax.random.bits(key, (_ROUNDS, max(sides)), jnp.uint32)
    tables = [(row % np.uint32(sides[i % 2])).astype(jnp.int32) for i, row in enumerate(bits)]

    def moved(place):
        digits = [place // columns, place % columns]
        for i, table in enumerate(tables):
            total = digits[i % 2] + table[digits[1 - i % 2]]
            digits[i % 2] = jnp.where(total >= sides[i % 2], total - sides[i % 2], total)
        return digits[0] * columns + digits[1]

    place = moved(jnp.arange(count, dtype=jnp.int32))
    if rows * columns == count:
        return place
    # Places beyond the end move on until they are inside (Black, Rogaway: Ciphers with Arbitrary Finite
    # Domains. CT-RSA 2002).
    return jax.lax.while_loop(
        lambda place: (place >= count).any(),
        lambda place: jnp.where(place < count, place, moved(place)),
        place,
    )


def _sides(count):
    """Return two sides of similar length whose product is `count` if possible, else slightly more."""
    root = math.isqrt(count - 1) + 1
    for rows in range(root, 4 * root):
        if count % rows == 0:
            return rows, count // rows
    return root, -(-count // root)
