"""Non-negative least squares of activations on directions, with implicit derivatives."""

from functools import partial

import jax
import jax.numpy as jnp

from ..features._factors import non_negative

STEPS = 200


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def parts(acts: jax.Array, directions: jax.Array, steps: int = STEPS) -> jax.Array:
    r"""Return non-negative coefficients u [..., concepts] that minimise the distance of u D from activations.

    Derivatives are those of the minimum, by the implicit function theorem: coefficients that are zero stay
    zero, and the others solve $D_S D_S' u_S = D_S a$.

    Args:
        acts: [..., channels]; negative values count.
        directions: D, [concepts, channels].
        steps: Number of accelerated projected gradient steps.
    """
    wanted = (acts @ directions.T).reshape(-1, len(directions)).T
    start = jnp.zeros(wanted.shape, wanted.dtype)
    found = non_negative(start, wanted, directions @ directions.T, steps).T
    return found.reshape(*acts.shape[:-1], -1)


@parts.defjvp
def _derivative(steps, primals, tangents):
    (acts, directions), (acts_dot, directions_dot) = primals, tangents
    found = parts(acts, directions, steps)
    used = (found > 0).astype(found.dtype)
    rest = acts - found @ directions
    right = acts_dot @ directions.T + rest @ directions_dot.T - found @ directions_dot @ directions.T
    count = len(directions)
    # Rows and columns of zero coefficients become those of the identity.
    products = directions @ directions.T
    ridge = 1e-6 * jnp.trace(products) / count * jnp.eye(count, dtype=found.dtype)
    system = used[..., :, None] * used[..., None, :] * products + ridge
    system = system + (1 - used)[..., None] * jnp.eye(count, dtype=found.dtype)
    moved = jnp.linalg.solve(system, (used * right)[..., None])[..., 0]
    return found, used * moved
