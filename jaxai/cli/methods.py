"""Methods as the command runs them: chosen by name, with options, on a batch of photos."""

import ast
import inspect
import math
import types
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers, perturbation
from ..perturbation._segments import METHODS as SEGMENTATIONS
from . import names, session
from .registry import METHODS, Method

# What the command itself passes on; each has an option of its own.
_RESERVED = ("key", "layer", "segments", "num_segments", "batch_size", "normalize", "indices", "masks")
_LONGEST = 200
_GRID = 8
_PADDING = 16


def check_segmentation(method: str) -> None:
    """Check a way of making superpixels.

    Raises:
        ValueError: If there is none of this name.
    """
    if method not in SEGMENTATIONS:
        raise ValueError(f"`--segments`: {names.unknown('method', method, SEGMENTATIONS)}")


def choose(text: str, options: Sequence[str]) -> list[Method]:
    """Return the methods of a list with commas, with `METHOD.NAME=VALUE` options set.

    Raises:
        ValueError: If there is no such method or option, or a value is of the wrong kind.
    """
    chosen: dict[str, Method] = {}
    for word in (word.strip() for word in text.split(",")):
        name = word.replace("-", "_")
        if name not in METHODS:
            raise ValueError(names.unknown("method", word, METHODS, "jaxai methods"))
        chosen[name] = METHODS[name]
    for text in options:
        left, equals, value = text.partition("=")
        name, dot, option = left.strip().replace("-", "_").partition(".")
        shown = f"`--option {names.shortened(text)}`"
        if not (equals and dot):
            raise ValueError(f"{shown} must be METHOD.NAME=VALUE")
        if name not in chosen:
            raise ValueError(f"{shown}: {name!r} is not among the methods {', '.join(chosen)}")
        known = options_of(chosen[name])
        if option not in known:
            close = names.near(option, list(known))
            hint = f"did you mean {names.either(close)}?" if close else ""
            hint = hint or f"{name} has the options {', '.join(known) or 'none'}"
            raise ValueError(f"{shown}: {name} has no option {option!r}; {hint}")
        try:
            read = _value(value.strip(), known[option].annotation)
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from error
        method = chosen[name]
        chosen[name] = replace(method, options={**method.options, option: read})
    return list(chosen.values())


def options_of(method: Method) -> dict[str, inspect.Parameter]:
    """Return the options of a method that the command can set, by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(method.run).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.default is not parameter.empty
        and name not in _RESERVED
        and set(_kinds(parameter.annotation)) - {type(None)}
    }


def _kinds(annotation: Any) -> tuple[type, ...]:
    """Return the kinds of an option's values that can be written: of what is an array, its numbers."""
    if annotation is Any:
        return (int, float, bool, str, tuple, type(None))
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(dict.fromkeys(kind for part in get_args(annotation) for kind in _kinds(part)))
    kind = get_origin(annotation) or annotation
    return (kind,) if kind in (int, float, bool, str, tuple, type(None)) else ()


def _value(text: str, annotation: Any) -> Any:
    """Read an option's value.

    Raises:
        ValueError: If it is not of the option's kind, not finite, or larger than compiled programs can count.
    """
    kinds = _kinds(annotation)
    value = _literal(text, kinds)
    if str in kinds and isinstance(value, str):
        return value
    numbers = value if isinstance(value, tuple) and tuple in kinds else (value,)
    if tuple in kinds and isinstance(value, list):
        numbers = value = tuple(value)
    for number in numbers:
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if not (math.isfinite(number) and (isinstance(number, float) or abs(number) <= session.MOST)):
                raise ValueError("expected a finite number of at most 2147483647")
        elif value is not number:
            raise ValueError("expected numbers with commas between")
    if isinstance(value, int) and not isinstance(value, bool) and int not in kinds and float in kinds:
        return float(value)
    if type(value) not in kinds:
        listed = names.either([_NAMES[kind] for kind in kinds])
        raise ValueError(f"expected {listed}")
    return value


_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a word",
    tuple: "several numbers with commas between",
    type(None): "None",
}


def _literal(text: str, kinds: tuple[type, ...]) -> Any:
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters; got {len(text)}")
    if text.lower() in ("true", "false", "none"):
        text = text.capitalize()
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    # Such as "nan", which is then refused for what it is.
    with suppress(ValueError):
        return float(text) if float in kinds else text
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
        found = jax.block_until_ready(method.run(net.model, images, asked, **keywords))

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
