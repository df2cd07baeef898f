"""TCAV: how often a score rises along a concept, compared with random directions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from ._activations import activations, slopes
from ._cav import METHODS, vector

POSITIONS = ("mean", "each")
STATISTICS = ("slope", "score")


@dataclass(frozen=True)
class Tcav:
    """The result of a test of concepts; with a first axis of concepts for a mapping of them.

    Attributes:
        score: Fraction of the images whose score rises along the concept, float32 [], or [k] for k targets.
        null: The same for directions of chance, [draws] or [draws, k].
        slope: Mean slope of the score along the concept, [] or [k].
        slope_null: The same for directions of chance, [draws] or [draws, k].
        p_value: Fraction of the random directions whose statistic is as large as the concept's, at least 1 /
            (draws + 1).
        adjusted: The p-values adjusted for all tests of the call (Holm 1979).
        sensitivity: Slope of the score along the concept for each image, [batch] or [batch, k].
        vector: The concept's direction, of length one, [channels] (or [h, w, channels] flattened).
        names: Names of the concepts, or an empty tuple.
    """

    score: np.ndarray
    null: np.ndarray
    slope: np.ndarray
    slope_null: np.ndarray
    p_value: np.ndarray
    adjusted: np.ndarray
    sensitivity: np.ndarray
    vector: np.ndarray
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        score, p = np.atleast_1d(self.score), np.atleast_1d(self.adjusted)
        rows = zip(self.names or ("concept",), score.reshape(len(self.names) or 1, -1), strict=True)
        texts = [f"{name}: {', '.join(f'{s:.2f}' for s in scores)}" for name, scores in rows]
        return f"Tcav({'; '.join(texts)}; adjusted p at least {p.min():.3g})"


@completed
def tcav(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    concept: Float[Array, "examples height width channels"]
    | Mapping[str, Float[Array, "examples height width channels"]],
    random: Float[Array, "others height width channels"],
    key: jax.Array,
    method: str = "pattern",
    alpha: float = 0.01,
    positions: str = "mean",
    statistic: str = "slope",
    num_draws: int = 200,
    batch_size: int | None = None,
) -> Tcav:
    """Test whether a score depends on a concept that examples show, at a layer.

    The concept's direction points from random images to the examples (see `cav`). Its score is the fraction
    of the images whose slope along it is positive. The null distribution comes from the random images:
    repeatedly, a random part of them, as many as the concept has examples, is separated from the rest. The
    p-value is thus that of a permutation test, which is valid for few images too; the paper's t-test treats
    overlapping draws as independent. If the gradients of all images have the same direction, every concept
    direction has a score of 0 or 1, and scores cannot distinguish a concept from chance; slopes can.

    Args:
        images: Images of the class in question, model input, float [batch, height, width, channels].
        concept: Images that show the concept, or several concepts by name.
        random: Other images; at least two more than a concept has.
        key: Typed PRNG key of the draws; draw i depends only on it and i.
        method: Method to find directions, as in `cav`.
        alpha: As in `cav`.
        positions: `"mean"`: a direction of channels, the same at all positions; `"each"`: a direction of all
            activations, as in the paper, which depends on where examples show the concept.
        statistic: The statistic of the p-value: `"slope"`, the magnitude of the mean slope along directions
            of length one; or `"score"`, the distance of the score from 1/2.
        num_draws: Number of random directions.

    Returns:
        A `Tcav` with `score`, `null`, `slope`, `slope_null`, `p_value`, `adjusted`, `sensitivity`, `vector`.

    Raises:
        ValueError: If there are too few images, or a concept's activations are those of the random images.

    References:
        Kim et al.: Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
        Vectors (TCAV). ICML 2018, arXiv 1711.11279, equations 1 and 2, section 3.5.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> noise = jax.random.uniform(jax.random.key(0), (40, 4, 4, 3))
        >>> red = noise[:8] + jnp.array([1.0, 0.0, 0.0])
        >>> found = jaxai.concepts.tcav(
        ...     net, noise[8:12], 0, layer="features", concept=red, random=noise[12:], key=jax.random.key(1)
        ... )
        >>> found.score.item(), found.null.shape
        (1.0, (200,))
    """
    [found] = tests(
        model,
        images,
        targets,
        [layer],
        concept=concept,
        random=random,
        key=key,
        method=method,
        alpha=alpha,
        positions=positions,
        statistic=statistic,
        num_draws=num_draws,
        batch_size=batch_size,
    ).values()
    return found


def tests(
    model: Any,
    images: Any,
    targets: _targets.Targets,
    names: Sequence[str | None],
    *,
    concept: Any,
    random: Any,
    key: jax.Array,
    method: str,
    alpha: float,
    positions: str,
    statistic: str,
    num_draws: int,
    batch_size: int | None,
) -> dict[str, Tcav]:
    """Return `tcav` of each layer, with p-values adjusted for the tests of that layer alone."""
    model, images, targets = _targets.prepare(model, images, targets)
    checks.choice(method, "method", METHODS)
    checks.choice(positions, "positions", POSITIONS)
    checks.choice(statistic, "statistic", STATISTICS)
    alpha, num_draws = checks.number(alpha, "alpha", "(0, inf)"), checks.positive(num_draws, "num_draws")
    wanted = tuple(layers.resolve(model, name, images) for name in names)
    size = checks.batch_size(batch_size)
    others = checks.images(random, "random")
    named = concept if isinstance(concept, Mapping) else {"": concept}
    if not named:
        raise ValueError("`concept` must be images, or a mapping of names to images; got none")
    examples = {}
    for name, some in named.items():
        examples[name] = checks.images(some, f"concept[{name!r}]" if name else "concept")
        if len(others) < len(examples[name]) + 2:
            raise ValueError(
                f"`random` must have at least {len(examples[name]) + 2} images, two more than the concept;"
                f" got {len(others)}"
            )
    see = partial(activations, model, names=wanted, positions=positions, batch_size=size)
    chance, shown = see(others), {name: see(some) for name, some in examples.items()}
    keys = [jax.random.fold_in(checks.key(key), i) for i in range(len(shown))]
    return {
        layer: _at_layer(
            slopes(model, images, targets, layer=layer, positions=positions, batch_size=size),
            {name: acts[layer] for name, acts in shown.items()},
            chance[layer],
            keys,
            alpha,
            statistic=statistic,
            method=method,
            num_draws=num_draws,
            several=isinstance(concept, Mapping),
        )
        for layer in wanted
    }


def _at_layer(grads, shown, chance, keys, alpha, *, statistic, method, num_draws, several):
    found = []
    for (name, acts), draws in zip(shown.items(), keys, strict=True):
        direction, found_now, chances, each = _test(
            acts, chance, grads, draws, alpha, method=method, num_draws=num_draws
        )
        if not np.isclose(float(jnp.linalg.norm(direction)), 1, atol=1e-3):
            raise ValueError(
                f"the activations of {name or '`concept`'} must be finite and differ from those of `random`"
            )
        parts = (*found_now, *chances, each, direction)
        found.append([np.asarray(value) for value in parts])
    score, slope, null, slope_null, sensitivity, vectors = (
        np.stack(values) for values in zip(*found, strict=True)
    )
    if statistic == "slope":
        far, reached = np.abs(slope_null), np.abs(slope)[:, None]
        # Rounding must not make equal slopes differ.
        reached = reached * (1 - 1e-6)
    else:
        far, reached = np.abs(null - 0.5), np.abs(score - 0.5)[:, None] - 1e-6
    p_value = (1 + (far >= reached).sum(1)) / (num_draws + 1)
    parts = (score, null, slope, slope_null, p_value, holm(p_value), sensitivity, vectors)
    return Tcav(*parts, names=tuple(shown)) if several else Tcav(*(value[0] for value in parts))


@partial(jax.jit, static_argnames=("method", "num_draws"))
def _test(examples, others, grads, key, alpha, *, method, num_draws):
    count, total = len(examples), len(others)

    def along(direction):
        each = grads @ direction
        return ((each > 0).astype(jnp.float32).mean(0), each.mean(0)), each

    both = jnp.concatenate([examples, others])
    labels = (jnp.arange(count + total) < count).astype(jnp.float32)
    direction = vector(both, labels, alpha, method=method)

    def draw(index):
        order = jax.random.permutation(jax.random.fold_in(key, index), total)
        drawn = jnp.zeros(total, jnp.float32).at[order[:count]].set(1)
        return along(vector(others, drawn, alpha, method=method))[0]

    null = batching.map_chunks(jax.vmap(draw), jnp.arange(num_draws), batch_size=50)
    found, each = along(direction)
    return direction, found, null, each


def holm(p_value: np.ndarray) -> np.ndarray:
    """Return p-values for all tests together, by Holm's step-down procedure."""
    flat = p_value.ravel()
    order = np.argsort(flat, kind="stable")
    scaled = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(scaled, 1)
    return adjusted.reshape(p_value.shape)
