"""Feature selection of LIME: the superpixels that a sparse linear model uses.

Everything works on the normal equations: the Gram matrix [S, S] of the centred weighted masks and their
products with the scores [S], so no step reads the samples again.
"""

import jax
import jax.numpy as jnp

METHODS = ("auto", "none", "highest_weights", "forward_selection", "lasso_path")
# Ridge penalty of the fit whose largest weights are kept, as in the reference implementation.
PENALTY = 0.01
# A column whose remaining square is below this fraction of its own is spanned by those already chosen.
_DEPENDENT = 1e-5
_MOST_STEPS = 500


def resolve(method: str, num_features: int | None, count: int) -> str:
    """Return the method that `"auto"` means: forward selection up to 6 features, else highest weights."""
    if num_features is None or num_features >= count:
        return "none"
    if method == "auto":
        return "forward_selection" if num_features <= 6 else "highest_weights"
    return method


def choose(method: str, gram: jax.Array, products: jax.Array, present: jax.Array, number: int) -> jax.Array:
    """Return 1 for the chosen superpixels and 0 for the others, float32 [S].

    Args:
        method: As `resolve` returns it, not `"none"`.
        gram: Weighted Gram matrix of the centred masks, float32 [S, S].
        products: Weighted products of the centred masks and scores, float32 [S].
        present: float32 [S].
        number: Choose at most this many.
    """
    if method == "highest_weights":
        return _highest_weights(gram, products, present, number)
    if method == "forward_selection":
        return _forward(gram, products, present, number)
    return _lasso_path(gram, products, present, number)


def _highest_weights(gram, products, present, number):
    matrix = gram + jnp.diag(PENALTY + (1 - present))
    beta = jax.scipy.linalg.solve(matrix, products, assume_a="pos")
    order = jnp.argsort(-jnp.abs(beta) * present + (1 - present), stable=True)
    rank = jnp.argsort(order)
    return jnp.where(rank < number, present, 0.0)


def _forward(gram, products, present, number):
    """Add superpixels one by one, each time the one that raises R^2 of the unpenalised fit most.

    A column's contribution to the explained sum of squares is its squared product with the residual over its
    own remaining square; choosing it removes its direction from all others (a Schur complement).
    """
    own = jnp.maximum(jnp.diagonal(gram), 1e-30)

    def step(state, _):
        matrix, right, chosen = state
        remaining = jnp.diagonal(matrix)
        free = (chosen == 0) & (present > 0)
        gain = jnp.where(remaining > _DEPENDENT * own, right**2 / jnp.maximum(remaining, 1e-30), 0.0)
        best = jnp.argmax(jnp.where(free, gain, -1.0))
        pivot = jnp.maximum(matrix[best, best], _DEPENDENT * own[best])
        column = matrix[:, best] / pivot
        right = right - column * right[best]
        matrix = matrix - jnp.outer(column, matrix[best])
        return (matrix, right, chosen.at[best].set(1.0)), None

    state = (gram, products, jnp.zeros_like(present))
    return jax.lax.scan(step, state, length=number)[0][2] * present


def _lasso_path(gram, products, present, number):
    """Walk the lasso path from the largest penalty down; keep the last support of at most `number`.

    Least angle regression with the lasso modification (Efron et al. 2004, section 3): between two knots the
    coefficients move along the direction that lowers all active correlations equally, until another column
    reaches them or a coefficient reaches zero.
    """
    small = 1e-6 * jnp.maximum(jnp.abs(products).max(), 1e-30)
    usable = (present > 0) & (jnp.diagonal(gram) > 1e-12)

    def walk(state):
        beta, active, kept, dropped, level, steps = state
        correlation = products - jnp.dot(gram, beta, precision="highest")
        signs = jnp.sign(correlation) * active
        matrix = gram * jnp.outer(active, active) + jnp.diag(1 - active)
        direction = jax.scipy.linalg.solve(matrix, signs, assume_a="pos") * active
        slope = jnp.dot(gram, direction, precision="highest")
        # A column that has just left must not return at once: rounding could make it the next to join.
        outside = usable & (active == 0) & (dropped == 0)
        ahead = jnp.where(slope < 1, (level - correlation) / jnp.maximum(1 - slope, 1e-12), jnp.inf)
        behind = jnp.where(slope > -1, (level + correlation) / jnp.maximum(1 + slope, 1e-12), jnp.inf)
        join = jnp.where(outside, jnp.maximum(jnp.minimum(ahead, behind), 0), jnp.inf)
        crossing = jnp.where(
            active * direction * beta < 0, -beta / jnp.where(direction == 0, 1, direction), jnp.inf
        )
        length = jnp.minimum(jnp.minimum(join.min(), crossing.min()), level)
        leaving = crossing <= length
        beta = jnp.where(leaving, 0.0, beta + length * direction)
        joining = (jnp.arange(len(beta)) == jnp.argmin(join)) & (join <= length) & ~leaving.any()
        active = jnp.where(leaving, 0.0, jnp.where(joining, 1.0, active))
        support = (beta != 0).astype(jnp.float32)
        kept = jnp.where((support.sum() <= number) & (support.sum() > 0), support, kept)
        return beta, active, kept, leaving.astype(jnp.float32), level - length, steps + 1

    def more(state):
        return (state[4] > small) & (state[5] < _MOST_STEPS)

    correlation = jnp.where(usable, jnp.abs(products), 0)
    first = (jnp.arange(len(present)) == jnp.argmax(correlation)).astype(jnp.float32)
    zeros = jnp.zeros_like(present)
    state = (zeros, first, jnp.where(correlation.max() > 0, first, 0), zeros, correlation.max(), 0)
    return jax.lax.while_loop(more, walk, state)[2] * present


def lasso(gram: jax.Array, products: jax.Array, present: jax.Array, penalty: jax.Array) -> jax.Array:
    """Minimise b' G b / 2 - c' b + penalty |b|_1 by cyclic coordinate descent, float32 [S].

    Args:
        gram: G, float32 [S, S]: the weighted covariance of the masks.
        products: c, float32 [S]: their weighted covariance with the scores.
        present: float32 [S].
        penalty: Not negative.
    """
    own = jnp.diagonal(gram)
    usable = (present > 0) & (own > 1e-12)

    def coordinate(j, beta):
        partial_residual = products[j] - jnp.dot(gram[j], beta, precision="highest") + own[j] * beta[j]
        shrunk = jnp.sign(partial_residual) * jnp.maximum(jnp.abs(partial_residual) - penalty, 0)
        return beta.at[j].set(jnp.where(usable[j], shrunk / jnp.where(usable[j], own[j], 1), 0.0))

    def sweep(state):
        beta, _, steps = state
        after = jax.lax.fori_loop(0, len(beta), coordinate, beta)
        return after, jnp.abs(after - beta).max(), steps + 1

    def more(state):
        beta, change, steps = state
        return (change > 1e-7 * jnp.maximum(jnp.abs(beta).max(), 1e-12)) & (steps < 2000)

    state = (jnp.zeros_like(products), jnp.float32(jnp.inf), 0)
    return jax.lax.while_loop(more, sweep, state)[0]
