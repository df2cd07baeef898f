"""TCAV at several layers: where in a network a score depends on a concept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from .._frame import targets as _targets
from .._frame.contract import completed
from ._tcav import Tcav, holm, tests


@completed
def tcav_layers(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layers: Sequence[str],
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
) -> dict[str, Tcav]:
    """Test concepts at several layers: `tcav` of each, p-values corrected for all of them together.

    Layers may disagree: a concept that a score depends on early need not be a direction of a late layer.
    Slopes have the unit of a layer's activations, so that scores and p-values are what compares. Every layer
    has the same draws, and one pass over the examples and the random images serves all layers.

    Args:
        layers: Names of `model.layer_names`.
        concept: As in `tcav`.
        random: As in `tcav`.
        key: As in `tcav`.
        method: As in `tcav`.
        alpha: As in `tcav`.
        positions: As in `tcav`.
        statistic: As in `tcav`.
        num_draws: As in `tcav`.

    Returns:
        A `Tcav` for each layer, whose `adjusted` counts the tests of all layers (Holm 1979).

    Raises:
        ValueError: If no layer or a layer twice is named, or as in `tcav`.

    References:
        Kim et al.: Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
        Vectors (TCAV). ICML 2018, arXiv 1711.11279, section 4.3 (layers compared).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain(
        ...     {"early": lambda x: x, "late": lambda x: x**2, "logits": lambda x: x.mean((1, 2))})
        >>> noise = jax.random.uniform(jax.random.key(0), (40, 4, 4, 3))
        >>> red = noise[:8] + jnp.array([1.0, 0.0, 0.0])
        >>> found = jaxai.concepts.tcav_layers(net, noise[8:12], 0, layers=["early", "late"], concept=red,
        ...     random=noise[12:], key=jax.random.key(1), num_draws=99)
        >>> [(layer, test.score.item()) for layer, test in found.items()]
        [('early', 1.0), ('late', 1.0)]
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`layers` must name one layer or more, each once; got {names}")
    found = tests(
        model,
        images,
        targets,
        names,
        concept=concept,
        random=random,
        key=key,
        method=method,
        alpha=alpha,
        positions=positions,
        statistic=statistic,
        num_draws=num_draws,
        batch_size=batch_size,
    )
    adjusted = holm(np.stack([test.p_value for test in found.values()]))
    return {
        layer: replace(test, adjusted=own) for (layer, test), own in zip(found.items(), adjusted, strict=True)
    }
