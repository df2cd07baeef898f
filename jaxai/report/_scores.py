"""Running metrics for the command: chosen by name, with options, on maps of a batch of photos."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import maps, metrics
from . import _names as names
from . import _options as options
from ._methods import Chosen, Result

# What `jaxai explain --scores` writes, and `jaxai compare` reports unless it is asked for other metrics.
DEFAULT = ("relevance_gain", "insertion", "gini")
# The paper's step for each row of pixels takes eight times as long.
_STEPS = 28
_PREFERRED = {
    "relevance_gain": {"steps": _STEPS},
    "deletion": {"steps": _STEPS},
    "insertion": {"steps": _STEPS},
}
SUPPLIED = (
    "model",
    "images",
    "maps",
    "method",
    "targets",
    "masks",
    "key",
    "segments",
    "num_segments",
    "batch_size",
)
METRICS = {metric.name: metric for metric in metrics.METRICS if metric.takes != "masks"}
# Metrics that need masks of the evidence.
LOCALIZATION = {metric.name: metric for metric in metrics.METRICS if metric.takes == "masks"}
ALL = METRICS | LOCALIZATION


def choose(
    text: str, settings: Sequence[str], *, masks: bool = False
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the metrics of a list with commas, each with its options, and the settings of no metric.

    Args:
        text: Names.
        settings: `metric.option=value`.
        masks: Whether there are masks, so that metrics of localization can be measured.

    Raises:
        ValueError: If there is no such metric or option, or a value is of the wrong kind.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for word in text.split(","):
        name = word.strip().replace("-", "_")
        if name in LOCALIZATION and not masks:
            raise ValueError(f"{name} needs masks: `jaxai compare --masks FOLDER`, or jaxai.metrics.compare")
        if name not in ALL:
            raise ValueError(names.unknown("metric", word.strip(), ALL if masks else METRICS))
        chosen[name] = preferred(name)
    rest = []
    for setting in settings:
        given = options.Setting.of(setting)
        name, option = given.owner, given.name
        if name not in chosen:
            rest.append(setting)
            continue
        known = options_of(ALL[name])
        if option not in known:
            raise ValueError(
                f"{given.shown}: {name} has no option {names.shortened(option)!r};"
                f" it has {', '.join(known) or 'none'}"
            )
        chosen[name][option] = given.read(known[option])
    return chosen, rest


def options_of(metric: metrics.Metric) -> dict[str, Any]:
    """Return the kinds of the options of a metric that the command can set, by name."""
    found = inspect.signature(metric.function).parameters
    return {
        name: parameter.annotation
        for name, parameter in found.items()
        if name not in SUPPLIED and set(options.kinds(parameter.annotation)) - {type(None)}
    }


def of_result(
    method: Chosen, result: Result, model: Any, images: jax.Array, targets: Any, seed: int
) -> dict[str, np.ndarray]:
    """Return the default scores of a method's maps, [batch, k] by name."""
    found = jnp.asarray(result.maps)
    found = found.sum(-1) if method.result == "pixels" else found
    if found.shape[2:] != images.shape[1:3]:
        found = maps.upsample(found, images.shape[1:3])
    if isinstance(targets, tuple):
        rated = [
            of_result(method, replace(result, maps=result.maps[:, i : i + 1]), model, images, function, seed)
            for i, function in enumerate(targets)
        ]
        return {name: np.concatenate([one[name] for one in rated], axis=1) for name in rated[0]}
    single = callable(targets) or targets.ndim == 1
    values = {}
    for name in DEFAULT:
        mine = found[:, 0] if single else found
        score = score_of(name, preferred(name), mine, model, images, targets, jax.random.key(seed))
        values[name] = np.asarray(score, np.float64).reshape(found.shape[:2])
    return values


def preferred(name: str) -> dict[str, Any]:
    """Return the options that are set for a metric unless a caller sets them."""
    return dict(_PREFERRED.get(name, {}))


def score_of(
    name: str,
    given: dict[str, Any],
    values: jax.Array,
    model: Any,
    images: jax.Array,
    targets: Any,
    key: jax.Array,
) -> jax.Array:
    """Return a metric's scores of maps, one for each map.

    Args:
        name: The metric, which takes maps, or maps and the network.
        given: Its options.
        values: Maps [batch, (k,) height, width]; smaller ones than the images are enlarged.
        model: The network's model.
        images: What it takes.
        targets: What the maps explain.
        key: Randomness, for metrics that are random.
    """
    metric = METRICS[name]
    if values.shape[-2:] != images.shape[1:3]:
        values = maps.upsample(values, images.shape[1:3])
    given = {**given, **({"key": key} if metric.random else {})}
    if metric.takes == "maps":
        return metric.read(metric.function(values.reshape(-1, *values.shape[-2:]), **given))
    return metric.read(metric.function(model, images, values, targets, **given))
