"""Sparse autoencoders: an overcomplete dictionary, of which few entries make up each activation."""

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from .._frame import checks

# A code is dead if nothing has used it for so many steps.
_PATIENCE = 200
_AUXILIARY = 1 / 32


@register_dataclass
@dataclass(frozen=True)
class Sae:
    """A sparse autoencoder of activations [..., features]; a pytree.

    Attributes:
        directions: The dictionary, float32 [codes, features], of length one.
        encoder: [features, codes].
        threshold: What is added before the ReLU, [codes].
        mean: Of the activations, [features].
        scale: Root of their mean squared distance from the mean, per feature.
        history: Share of the variance that was left at each step, on that step's batch, [steps].
        r2: Share of the variance that the codes explain, of all activations.
        usage: Share of the activations that use each code, [codes]; 0 for dead ones.
        k: How many codes an activation may use.
    """

    directions: Float[Array, "codes features"]
    encoder: Float[Array, "features codes"]
    threshold: Float[Array, " codes"]
    mean: Float[Array, " features"]
    scale: Float[Array, ""]
    history: Float[Array, " steps"]
    r2: Float[Array, ""]
    usage: Float[Array, " codes"]
    k: int = field(metadata={"static": True})

    def encode(self, acts: Float[Array, "*batch features"]) -> Float[Array, "*batch codes"]:
        """Return the codes of activations: at least zero, at most k of them above it."""
        parameters = {"encoder": self.encoder, "threshold": self.threshold}
        flat = (jnp.asarray(acts, jnp.float32).reshape(-1, self.mean.shape[0]) - self.mean) / self.scale
        codes = _largest(_activated(parameters, flat), self.k)
        return codes.reshape(*jnp.shape(acts)[:-1], -1)

    def decode(self, codes: Float[Array, "*batch codes"]) -> Float[Array, "*batch features"]:
        """Return the activations that codes stand for."""
        return codes @ self.directions * self.scale + self.mean

    @property
    def dead(self) -> int:
        """How many codes no activation uses."""
        return int((np.asarray(self.usage) == 0).sum())

    def __repr__(self) -> str:
        codes, features = self.directions.shape
        of = f"{codes} codes of {features} features"
        return f"Sae({of}, k={self.k}, r2={float(self.r2):.3f}, {self.dead} dead)"


def sae(
    acts: Float[Array, "*batch features"],
    *,
    num_codes: int,
    k: int,
    key: jax.Array,
    steps: int = 2000,
    examples: int = 512,
    learning_rate: float = 5e-4,
) -> Sae:
    r"""Train a sparse autoencoder on activations.

    $z = \mathrm{TopK}(\mathrm{ReLU}(W (x - b) + c))$ and $\hat x = z D + b$.
    Activations are centred and scaled as a whole. The dictionary starts from activations, its entries keep
    length one, and codes that nothing has used for 200 steps learn to explain what the others leave (weight
    1/32), so that few stay dead.

    Args:
        acts: Activations with any axes before the features: positions of images, tokens.
        num_codes: How many codes, as a rule more than features.
        k: How many codes an activation may use.
        key: Typed PRNG key of the start and of the batches; step t depends on it and t.
        steps: Number of steps.
        examples: Activations per step.
        learning_rate: Of Adam; it falls to zero along a cosine.

    Returns:
        An `Sae`; `encode` and `decode` take activations of any axes.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If shapes do not fit, numbers are out of range, or activations are not finite or all
            alike.

    References:
        Gao et al.: Scaling and evaluating sparse autoencoders. ICLR 2025, arXiv 2406.04093, equations 3 to 5
        (TopK) and appendix A.2 (dead codes).

    Example:
        >>> import jax
        >>> import jaxai
        >>> acts = jax.random.normal(jax.random.key(0), (256, 4))
        >>> found = jaxai.concepts.sae(acts, num_codes=8, k=2, key=jax.random.key(1), steps=100, examples=64)
        >>> found.encode(acts).shape, int((found.encode(acts) > 0).sum(-1).max())
        ((256, 8), 2)
    """
    acts = jnp.asarray(acts, jnp.float32)
    if acts.ndim < 2 or 0 in acts.shape:
        raise ValueError(f"`acts` must be [..., features] with no empty axis; got shape {acts.shape}")
    num_codes, k = checks.positive(num_codes, "num_codes"), checks.positive(k, "k")
    if k > num_codes:
        raise ValueError(f"`k` must be at most `num_codes`, {num_codes}; got {k}")
    flat = acts.reshape(-1, acts.shape[-1])
    mean = flat.mean(0)
    scale = jnp.sqrt(jnp.square(flat - mean).mean())
    if not 0 < float(scale) < np.inf:
        raise ValueError("`acts` must be finite and not all alike")
    found = _train(
        (flat - mean) / scale,
        checks.key(key),
        checks.number(learning_rate, "learning_rate", "(0, inf)"),
        num_codes=num_codes,
        k=k,
        steps=checks.positive(steps, "steps"),
        examples=min(checks.positive(examples, "examples"), len(flat)),
    )
    return replace(found, mean=mean, scale=scale)


def _activated(parameters, x):
    return jax.nn.relu(x @ parameters["encoder"] + parameters["threshold"])


def _largest(codes: jax.Array, k: int) -> jax.Array:
    """Keep the k largest codes of each row; of equal ones at the border the first."""
    values, places = jax.lax.top_k(codes, k)
    rows = jnp.arange(len(codes))[:, None]
    return jnp.zeros_like(codes).at[rows, places].set(values)


@partial(jax.jit, static_argnames=("num_codes", "k", "steps", "examples"))
def _train(x, key, learning_rate, *, num_codes, k, steps, examples):
    start, draws = jax.random.split(key)
    chosen = jax.random.choice(start, len(x), (num_codes,), replace=num_codes > len(x))
    wobble = 0.1 * jax.random.normal(jax.random.fold_in(start, 1), (num_codes, x.shape[1]))
    directions = _of_length_one(x[chosen] + wobble)
    parameters = {
        "directions": directions,
        "encoder": directions.T,
        "threshold": jnp.zeros(num_codes, jnp.float32),
    }
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def loss(parameters, batch, idle):
        codes = _activated(parameters, batch)
        used = _largest(codes, k)
        rest = batch - used @ parameters["directions"]
        # What the codes that are used leave is the dead ones' to explain.
        spare = _largest(jnp.where(idle > _PATIENCE, codes, 0), min(2 * k, num_codes))
        left = jax.lax.stop_gradient(rest) - spare @ parameters["directions"]
        share = jnp.where((idle > _PATIENCE).any(), _AUXILIARY, 0)
        left_over = jnp.square(rest).mean()
        return left_over + share * jnp.square(left).mean(), (left_over, (used > 0).any(0))

    def step(carry, index):
        parameters, state, idle = carry
        rows = jax.random.randint(jax.random.fold_in(draws, index), (examples,), 0, len(x), jnp.int32)
        slopes, (left, fired) = jax.grad(loss, has_aux=True)(parameters, x[rows], idle)
        updates, state = optimizer.update(slopes, state)
        parameters = jax.tree.map(jnp.add, parameters, updates)
        parameters = {**parameters, "directions": _of_length_one(parameters["directions"])}
        return (parameters, state, jnp.where(fired, 0, idle + 1)), left

    carry = parameters, optimizer.init(parameters), jnp.zeros(num_codes, jnp.int32)
    (parameters, _, _), history = jax.lax.scan(step, carry, jnp.arange(steps))
    used = _largest(_activated(parameters, x), k)
    rest = jnp.square(x - used @ parameters["directions"]).mean()
    return Sae(
        parameters["directions"],
        parameters["encoder"],
        parameters["threshold"],
        jnp.zeros(x.shape[1]),
        jnp.ones(()),
        history,
        1 - rest / jnp.square(x).mean(),
        (used > 0).mean(0),
        k=k,
    )


def _of_length_one(rows):
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def stability(
    one: Float[Array, "concepts features"], other: Float[Array, "concepts features"]
) -> tuple[Float[Array, ""], Int[Array, " concepts"]]:
    """Return how alike two dictionaries are: the mean cosine of their best one-to-one match.

    Args:
        one: Directions [concepts, features], such as those of one training.
        other: As many others.

    Returns:
        The mean cosine, float32 in [-1, 1], and for each direction of `one` the index of its partner.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> mean, partners = jaxai.concepts.stability(jnp.eye(3), jnp.eye(3)[jnp.array([2, 0, 1])])
        >>> float(mean), partners.tolist()
        (1.0, [1, 2, 0])
    """
    from scipy.optimize import linear_sum_assignment

    ours, others = np.asarray(one, np.float32), np.asarray(other, np.float32)
    if ours.ndim != 2 or ours.shape != others.shape:
        raise ValueError(
            f"both must be [concepts, features], of one shape; got {ours.shape} and {others.shape}"
        )
    cosines = np.asarray(_of_length_one(ours) @ _of_length_one(others).T)
    rows, partners = linear_sum_assignment(-cosines)
    return jnp.asarray(cosines[rows, partners].mean()), jnp.asarray(partners.astype(np.int32))
