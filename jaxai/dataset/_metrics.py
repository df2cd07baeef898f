"""Scores of maps as columns of a store: metrics that take maps, and those that ask the network as well."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..report import _names as names
from ..report import _scores as scores

Chosen = tuple[tuple[str, dict[str, Any]], ...]


def pick(metrics: Any) -> Chosen:
    """Return the metrics that a caller chose, with their options.

    Args:
        metrics: Names of `jaxai.metrics` with commas between, a sequence of names, or a mapping from names to
            options.

    Raises:
        ValueError: If there is no such metric or option, or if it needs more than maps and the network.
    """
    if isinstance(metrics, str):
        metrics = metrics.split(",")
    pairs = metrics.items() if isinstance(metrics, Mapping) else [(name, {}) for name in metrics]
    found: dict[str, dict[str, Any]] = {}
    for word, given in pairs:
        name = word.strip() if isinstance(word, str) else getattr(word, "__name__", repr(word))
        if name not in scores.METRICS:
            raise ValueError(names.unknown("metric", name, _OFFERED))
        if name not in _OFFERED:
            needs = ", ".join(scores.METRICS[name].needs) or "the method itself"
            raise ValueError(
                f"{name} needs {needs}, which a data set does not give; see jaxai.metrics.compare"
            )
        if name in found:
            raise ValueError(f"`metrics` names {name} twice")
        known = options_of(name)
        for option in given:
            if option not in known:
                listed = ", ".join(known) or "none"
                raise ValueError(f"{name} has no option {names.shortened(str(option))!r}; it has {listed}")
        found[name] = {**scores.preferred(name), **given}
    return tuple(found.items())


def options_of(name: str) -> list[str]:
    """Return the options of a metric."""
    return [
        option
        for option in inspect.signature(scores.METRICS[name].function).parameters
        if option not in scores.SUPPLIED
    ]


def check(chosen: Chosen, net: Any) -> None:
    """Trace metrics, so that invalid options are rejected before anything is written.

    Raises:
        ValueError: If a metric refuses an option.
    """
    side = net.input_size
    photo = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    for name, given in chosen:

        def rated(photos, name=name, given=given):
            about = net.model, net.normalize(photos), jnp.zeros(1, jnp.int32), jax.random.key(0)
            return scores.score_of(name, given, photos[..., 0], *about)

        try:
            jax.eval_shape(rated, photo)
        except jax.errors.JAXTypeError:  # It needs concrete numbers.
            continue
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error


def rate(
    chosen: Chosen, maps: np.ndarray, net: Any, images: jax.Array, targets: np.ndarray, key: jax.Array
) -> dict[str, np.ndarray]:
    """Return the scores of a batch's maps, float32 [batch, k] by metric; NaN where a metric is not defined.

    Args:
        chosen: As `pick` returns them.
        maps: Of a method, [batch, (k,) height, width].
        net: The network, `Pretrained`.
        images: What it takes.
        targets: Classes [batch, k].
        key: Randomness.
    """
    several = maps if maps.ndim == 4 else maps[:, None]
    broken = np.logical_not(np.isfinite(several).all((2, 3)))
    several = np.where(broken[:, :, None, None], 0, several)
    found = {}
    for name, given in chosen:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the map of image")  # NaN already shows it.
            columns = [
                scores.score_of(name, given, jnp.asarray(several[:, i]), net.model, images, which, key)
                for i, which in enumerate(jnp.asarray(targets.T))
            ]
        found[name] = np.where(broken, np.nan, np.stack(columns, axis=1)).astype(np.float32)
    return found


def names_of(chosen: Chosen, methods: Sequence[str]) -> list[str]:
    """Return the names of the columns."""
    return [f"{metric}:{method}" for metric, _ in chosen for method in methods]


_OFFERED = tuple(
    name for name, metric in scores.METRICS.items() if metric.takes in ("maps", "scores") and not metric.needs
)
