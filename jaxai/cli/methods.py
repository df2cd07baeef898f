"""Methods as the command runs them: chosen by name, with options, on a batch of photos."""

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers, perturbation
from . import session
from .registry import METHODS, Method

# What the command itself passes on; each has an option of its own.
_RESERVED = ("key", "layer", "segments", "num_segments", "batch_size", "normalize", "indices", "masks")
_GRID = 8
_PADDING = 16


def choose(names: str, options: Sequence[str]) -> list[Method]:
    """Return the methods of a list with commas, with `METHOD.NAME=VALUE` options set.

    Raises:
        ValueError: If there is no such method or option.
    """
    chosen: dict[str, Method] = {}
    for name in (word.strip().replace("-", "_") for word in names.split(",")):
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}; the methods are {', '.join(METHODS)}")
        chosen[name] = METHODS[name]
    for text in options:
        left, equals, value = text.partition("=")
        name, dot, option = left.strip().partition(".")
        if not (equals and dot):
            raise ValueError(f"`--option` must be METHOD.NAME=VALUE; got {text!r}")
        if name not in chosen:
            raise ValueError(f"`--option {text}`: {name!r} is not among the methods {', '.join(chosen)}")
        known = [word for word in defaults(chosen[name]) if word not in _RESERVED]
        if option not in known:
            raise ValueError(f"`--option {text}`: {name} has the options {', '.join(known) or 'none'}")
        method = chosen[name]
        chosen[name] = replace(method, options={**method.options, option: _literal(value.strip())})
    return list(chosen.values())


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def defaults(method: Method) -> dict[str, Any]:
    """Return the keywords of a method that have defaults, with those."""
    parameters = inspect.signature(method.run).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def settings(method: Method, **passed: Any) -> dict[str, Any]:
    """Return the values of a method's options as they are reported, those at their default too."""
    values = {name: value for name, value in defaults(method).items() if name not in _RESERVED}
    return {name: _plain(value) for name, value in {**values, **method.options, **passed}.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (jax.Array, np.ndarray)):
        return np.asarray(value).tolist()
    return getattr(value, "__name__", repr(value))


@dataclass(frozen=True)
class Superpixels:
    """The superpixels of a batch.

    Attributes:
        labels: int32 [batch, height, width].
        counts: Superpixels of each photo.
        methods: How each photo was cut.
    """

    labels: np.ndarray
    counts: tuple[int, ...]
    methods: tuple[str, ...]


def superpixels(photos: jax.Array, method: str) -> Superpixels:
    """Cut photos into superpixels; one that is a single superpixel, being of one colour, is cut by a grid."""
    labels = np.array(perturbation.segment(photos, method=method))
    methods = [method] * len(labels)
    for index in np.flatnonzero(labels.max((1, 2)) == 0):
        options = {"rows": _GRID, "columns": _GRID}
        grid = perturbation.segment(photos[index : index + 1], method="grid", **options)
        labels[index], methods[index] = np.asarray(grid)[0], "grid"
    return Superpixels(labels, tuple(int(n) + 1 for n in labels.max((1, 2))), tuple(methods))


@dataclass(frozen=True)
class Result:
    """What a method says of a batch, as NumPy arrays whose first two axes are batch and k.

    Attributes:
        maps: [batch, k, height, width], with channels for pixel attributions.
        weights: Of superpixels [batch, k, S]; None for other methods.
        extra: Further numbers [batch, k] by name, such as a fit's score.
        layer: The layer that was used; None where there is none.
        clock: The time it took.
    """

    maps: np.ndarray
    weights: np.ndarray | None
    extra: dict[str, np.ndarray]
    layer: str | None
    clock: session.Clock


def run(
    method: Method,
    net: Any,
    images: jax.Array,
    targets: np.ndarray,
    *,
    key: jax.Array,
    layer: str | None,
    segments: Superpixels | None,
    batch_size: int | None,
    repeated: bool,
) -> Result:
    """Run a method on a batch.

    Args:
        method: One of `choose`.
        net: The network, `Pretrained`.
        images: What the network takes.
        targets: Classes [batch, k].
        key: Randomness.
        layer: For methods that look at one; None means the model's own choice.
        segments: Superpixels of the batch, for methods that need them.
        batch_size: At most so many images in flight.
        repeated: There are more batches, so that shapes should repeat.
    """
    available = {
        "key": key,
        "layer": layer,
        "segments": None if segments is None else jnp.asarray(segments.labels),
        "batch_size": batch_size,
        "normalize": net.normalize,
    }
    keywords = {name: available[name] for name in method.needs} | method.options
    if repeated and segments is not None and "num_segments" in defaults(method):
        # Batches of other counts of superpixels would each compile anew.
        keywords["num_segments"] = -(-max(segments.counts) // _PADDING) * _PADDING
    single = targets.shape[1] == 1
    asked = jnp.asarray(targets[:, 0] if single else targets)
    with session.timed() as clock:
        try:
            found = method.run(net.model, images, asked, **keywords)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{method.name}: {error}") from error
        found = jax.block_until_ready(found)

    def host(array: Any) -> np.ndarray:
        values = np.asarray(jnp.asarray(array, jnp.float32))
        return values[:, None] if single else values

    used = layers.resolve(net.model, layer, images) if "layer" in method.needs else None
    if method.result != "segments":
        return Result(host(found), None, {}, used, clock)
    weights = found.weights if hasattr(found, "weights") else found.values
    extra = {
        name: host(getattr(found, name))
        for name in ("intercept", "score")
        if getattr(found, name, None) is not None
    }
    return Result(host(found.heatmap), host(weights), extra, used, clock)
