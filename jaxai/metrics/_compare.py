"""Comparison of methods by metrics on images, with reference rows."""

import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .. import maps as _display
from .._frame import checks, describe
from .._frame.targets import Targets
from . import _localization, _maps, _methods, _references
from ._comparison import Comparison
from ._metric import Metric
from ._table import METRICS

_DEFAULT = ("relevance_gain", "insertion", "gini")


def compare(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    methods: Mapping[str, Any],
    metrics: Sequence[str | Metric] = _DEFAULT,
    key: jax.Array,
    masks: Bool[ArrayLike, "batch height width"] | None = None,
    references: Sequence[str] = _references.NAMES,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    batch_size: int | None = None,
) -> Comparison:
    """Score methods by metrics on images, along with maps that explain nothing.

    Args:
        model: The model to explain; a callable pytree.
        images: Model input, float [batch, height, width, channels]; intervals are over images, so more images
            are better.
        targets: One target per image (see `jaxai.targets`); None: each image's top class.
        methods: `method(model, images, targets) -> maps` by name, or maps of all images, [batch, height,
            width] with or without channels; smaller maps are enlarged for metrics that need the images' size.
        metrics: Names from `jaxai.metrics`, or your own `Metric`s.
        key: Randomness of metrics, references and intervals; a typed key.
        masks: Marked regions of the images, for localization metrics; the reference `"truth"` is then added.
        references: Additional rows: `"random"`, `"centre"` (a Gaussian), `"edges"` (Sobel) and `"image"`;
            also `"greedy"`: the best `relevance_gain` that an order of 7 x 7 cells can attain, found by a
            search with about 1,400 forward passes per image.
        options: Keywords of metrics by name, `{"relevance_gain": {"steps": 20, "fill": "blur"}}`.
        confidence: Confidence level of the bootstrap intervals, in (0, 1).
        draws: Number of bootstrap draws; each uses the same images for all rows.
        batch_size: At most this many images in flight; None chooses by size.

    Returns:
        `Comparison`, which prints as a table; `difference`, `agreement`, `save`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a name is unknown, masks are missing, shapes do not fit, or a map is NaN.

    References:
        Efron: Bootstrap Methods: Another Look at the Jackknife. Annals of Statistics 1979.
        Kendall: A New Measure of Rank Correlation. Biometrika 1938.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> model, key = lambda x: x[:, 1, 1], jax.random.key(0)
        >>> images = 1 + jax.random.uniform(key, (3, 4, 4, 2))
        >>> table = jaxai.metrics.compare(model, images, methods={"ixg": jaxai.input_x_gradient}, key=key,
        ...     metrics=("relevance_gain",), references=("centre",), options={"relevance_gain": {"steps": 4}})
        >>> table.rows, table.means.shape
        (('ixg', 'centre'), (2, 1))
    """
    known = {metric.name: metric for metric in METRICS}
    chosen = tuple(_metric(metric, known) for metric in metrics)
    names = tuple(metric.name for metric in chosen)
    options = dict(options or {})
    _check(methods, chosen, names, references, options, masks)
    confidence = checks.number(confidence, "confidence", "(0, 1)")
    draws, key = checks.positive(draws, "draws"), checks.key(key)
    # Methods get the model as the user passes it.
    _, images, target, chunk = _methods.prepare(model, images, targets, batch_size)
    if target.axes:
        raise ValueError("`targets` must be one for each image; compare k targets one after the other")
    batch = images.shape[0]
    marked = None if masks is None else _maps.masks(masks, jnp.zeros(images.shape[:3]))
    rows: dict[str, Any] = dict(methods)
    extra = {name: _references.method(name, jax.random.fold_in(key, 1)) for name in references}
    if marked is not None:
        extra["truth"] = marked.astype(jnp.float32)
    rows.update(extra)
    scores = np.full((len(rows), len(chosen), batch), np.nan)
    seconds = {}
    for i, (name, method) in enumerate(rows.items()):
        maps, took = _explained(method, model, images, target, chunk)
        if name in methods and took is not None:
            seconds[name] = took
        for j, metric in enumerate(chosen):
            given = {**options.get(metric.name, {})}
            if metric.random:
                given.setdefault("key", jax.random.fold_in(key, 2))
            if metric.takes in ("scores", "method"):
                given.setdefault("batch_size", batch_size)
            if metric.takes == "method" and not callable(method):
                continue
            with warnings.catch_warnings():
                # The table already shows it as NaN.
                warnings.filterwarnings("ignore", message="the map of image")
                scores[i, j] = _scored(metric, given, method, maps, model, images, target, marked)
    chance = {}
    if marked is not None:
        for metric in chosen:
            if metric.takes == "masks":
                level = _localization.chance(metric.function, marked, **options.get(metric.name, {}))
                chance[metric.name] = float(level.mean())
    drawn = jax.random.randint(jax.random.fold_in(key, 3), (draws, batch), 0, batch)
    return Comparison(
        tuple(methods),
        tuple(extra),
        names,
        tuple(metric.better for metric in chosen),
        scores,
        chance,
        seconds,
        np.asarray(drawn),
        confidence,
        {"images": batch, "options": {name: _words(options[name]) for name in options}},
        _passes(methods, images),
    )


def _passes(methods, images):
    """Return the cost per image of each of this library's methods, in passes."""
    found = {}
    for name, method in methods.items():
        function, given = method, {}
        while isinstance(function, functools.partial):
            function, given = function.func, {**function.keywords, **given}
        description = describe.table().get(getattr(function, "__name__", ""))
        if description is not None and description.function is function:
            sizes = {"targets": 1, "height": images.shape[1], "width": images.shape[2]}
            found[name] = str(description.passes(**sizes, **given))
    return found


def _metric(metric, known):
    if isinstance(metric, Metric):
        return metric
    if metric not in known:
        raise ValueError(f"unknown metric {metric!r}; the metrics are {', '.join(known)}")
    return known[metric]


def _check(methods, metrics, names, references, options, masks):
    if not isinstance(methods, Mapping) or not methods:
        raise TypeError(f"`methods` must map names to methods or maps; got {type(methods).__name__}")
    if not metrics or len(set(names)) < len(names):
        raise ValueError(
            f"`metrics` must be different metrics, at least one; got {', '.join(names) or 'none'}"
        )
    for name in references:
        checks.choice(name, "references", _references.ALL)
    if twice := set(methods) & {*references, "truth"}:
        raise ValueError(f"`methods` must not have the names of references; got {min(twice)!r}")
    for name in options:
        if name not in names:
            raise ValueError(f"`options` must be of the metrics {', '.join(names)}; got {name!r}")
    for metric in metrics:
        if metric.takes == "masks" and masks is None:
            raise ValueError(f"`{metric.name}` needs `masks`")
        for need in metric.needs:
            if need not in options.get(metric.name, {}):
                raise ValueError(
                    f"`{metric.name}` needs `{need}`: options={{{metric.name!r}: {{{need!r}: ...}}}}"
                )


def _explained(method, model, images, target, chunk):
    """Return a method's maps of the images' size, and the smallest time per image over chunks."""
    took = None
    if callable(method):
        parts, times = [], []
        for start in range(0, len(images), chunk):
            some = images[start : start + chunk]
            began = time.perf_counter()
            which = target.take(jnp.arange(start, start + len(some)))
            parts.append(jax.block_until_ready(_methods.maps_of(method, model, some, which, chunk)))
            times.append((time.perf_counter() - began) / len(some))
        maps, took = jnp.concatenate(parts), min(times)
    else:
        maps = _maps.of_method(method, len(images), target)
    if maps.shape[1:] != images.shape[1:3]:
        maps = _display.upsample(maps, images.shape[1:3])
    return maps, took


def _scored(metric, options, method, maps, model, images, target, masks):
    arguments = {
        "scores": (model, images, maps, target),
        "maps": (maps,),
        "masks": (maps, masks),
        "method": (method, model, images, target),
    }[metric.takes]
    found = np.asarray(metric.read(metric.function(*arguments, **options)), np.float64)
    if found.shape != (len(images),):
        raise ValueError(f"`{metric.name}` must give one number per image; got shape {found.shape}")
    return found


def _words(options):
    """Return options in a form that JSON supports, with arrays as their shapes."""
    plain = (bool, int, float, str, type(None))
    found = {}
    for name, value in options.items():
        shape = getattr(value, "shape", None)
        if isinstance(value, plain):
            found[name] = value
        elif isinstance(value, (list, tuple)) and all(isinstance(x, plain) for x in value):
            found[name] = list(value)
        else:
            found[name] = f"array {tuple(shape)}" if shape is not None else repr(value)
    return found
