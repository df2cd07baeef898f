"""Running methods for the command: chosen by name, with options, on a batch of photos."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers, maps, perturbation
from .._frame import describe
from .._frame.describe import Description
from ..perturbation._segments import METHODS as SEGMENTATIONS
from . import _names as names
from . import _options as options
from . import _session as session
from ._supplies import SUPPLIED, Run, preferred

_FAMILIES = ("cam", "gradients", "rules", "perturbation")
# The methods of `jaxai explain`, by name.
METHODS: dict[str, Description] = {
    name: description
    for family in _FAMILIES
    for name, description in sorted(describe.table().items())
    if description.family == family and not description.left_out
}
_GRID = 8
_PADDING = 16
# Guesses, in passes: of a number that depends on the network; of a pass of the layers behind one.
_SOME, _HEAD = 300.0, 0.1


@dataclass(frozen=True)
class Chosen:
    """A method with its options."""

    description: Description
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method's name."""
        return self.description.name

    @property
    def result(self) -> str:
        """The command's result: a heatmap, pixels, or values of superpixels."""
        return "heatmap" if self.description.result == "layer" else self.description.result

    @property
    def signed(self) -> bool:
        """Values have signs with these options."""
        return self.description.has_signs(**self.settings())

    def settings(self) -> dict[str, Any]:
        """Return the values of all options, including defaults."""
        # Arrays and functions can only be left out.
        known = {
            name: value
            for name, value in self.description.options.items()
            if name not in SUPPLIED and (value is not None or name in options_of(self.description))
        }
        return {**known, **preferred(self.description), **self.options}

    def needs(self, name: str) -> bool:
        """Return whether the method has a parameter."""
        return name in self.description.parameters


def check_segmentation(method: str, *, shown: str = "`--segments`") -> None:
    """Check a way of making superpixels.

    Raises:
        ValueError: If there is none of this name.
    """
    if method not in SEGMENTATIONS:
        raise ValueError(f"{shown}: {names.unknown('method', method, SEGMENTATIONS)}")


def find(word: str) -> Description:
    """Return the description of a method.

    Raises:
        ValueError: If the name is unknown, or the command does not offer the method.
    """
    name = word.replace("-", "_")
    if name in METHODS:
        return METHODS[name]
    if left_out := describe.table().get(name):
        raise ValueError(f"the command does not offer {name}: {left_out.left_out}")
    raise ValueError(names.unknown("method", word, METHODS, "jaxai methods"))


def choose(text: str, settings: Sequence[str]) -> list[Chosen]:
    """Return the methods of a list with commas, with `METHOD.NAME=VALUE` options set.

    Raises:
        ValueError: If there is no such method or option, or a value is of the wrong kind.
    """
    found = [Chosen(find(word.strip())) for word in text.split(",")]
    chosen = {method.name: method for method in found}
    for text in settings:
        given = options.Setting.of(text)
        name, option, shown = given.owner, given.name, given.shown
        if not given.whole:
            raise ValueError(f"{shown} must be METHOD.NAME=VALUE")
        if name not in chosen:
            close = names.near(name, list(chosen))
            hint = f"; did you mean {names.either(close)}?" if close else ""
            raise ValueError(
                f"{shown}: {names.shortened(name)!r} is not among the methods {', '.join(chosen)}{hint}"
            )
        known = options_of(chosen[name].description)
        if option not in known:
            close = names.near(option, list(known))
            hint = f"did you mean {names.either(close)}?" if close else ""
            hint = hint or f"{name} has the options {', '.join(known) or 'none'}"
            raise ValueError(f"{shown}: {name} has no option {names.shortened(option)!r}; {hint}")
        read = given.read(known[option].annotation)
        chosen[name] = replace(chosen[name], options={**chosen[name].options, option: read})
    return list(chosen.values())


def pick(methods: Any) -> list[Chosen]:
    """Return the methods that a Python caller chose.

    Args:
        methods: Names with commas between; a sequence of names, of the library's functions, or of pairs of
            those with their options; or a mapping from those to options.

    Raises:
        TypeError: If it is none of those.
        ValueError: If there is no such method or option, or a method is named twice.
    """
    if isinstance(methods, str):
        methods = methods.split(",")
    elif callable(methods):
        methods = [methods]
    pairs = methods.items() if isinstance(methods, Mapping) else [_pair(item) for item in methods]
    found: dict[str, Chosen] = {}
    for word, given in pairs:
        name = word if isinstance(word, str) else getattr(word, "__name__", repr(word))
        description = find(name.strip())
        if description.name in found:
            raise ValueError(f"`methods` names {description.name} twice")
        known = [option for option in description.options if option not in SUPPLIED]
        for option in given or {}:
            if option not in known:
                close = names.near(option, known)
                hint = f"did you mean {names.either(close)}?" if close else ""
                hint = hint or f"it has {', '.join(known) or 'none'}"
                raise ValueError(f"{description.name} has no option {names.shortened(option)!r}; {hint}")
        found[description.name] = Chosen(description, dict(given or {}))
    if not found:
        raise ValueError("`methods` is empty; expected at least one method")
    return list(found.values())


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Mapping):
        return item[0], item[1]
    if isinstance(item, str) or callable(item):
        return item, {}
    raise TypeError(f"a method must be a name, a function or a pair with options; got {type(item).__name__}")


def options_of(description: Description) -> dict[str, inspect.Parameter]:
    """Return the options of a method that the command can set, by name."""
    return {
        name: description.parameters[name]
        for name in description.options
        if name not in SUPPLIED and set(options.kinds(description.parameters[name].annotation)) - {type(None)}
    }


def reported(method: Chosen) -> dict[str, Any]:
    """Return the values of a method's options as a record holds them."""
    return {name: _plain(value) for name, value in method.settings().items()}


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
        methods: The method by which each photo was segmented.
    """

    labels: np.ndarray
    counts: tuple[int, ...]
    methods: tuple[str, ...]


def superpixels(photos: jax.Array | np.ndarray, method: str) -> Superpixels:
    """Segment photos into superpixels; a uniform photo with a single superpixel is divided by a grid."""
    labels = np.array(perturbation.segment(photos, method=method))
    methods = [method] * len(labels)
    for index in np.flatnonzero(labels.max((1, 2)) == 0):
        options = {"rows": _GRID, "columns": _GRID}
        grid = perturbation.segment(photos[index : index + 1], method="grid", **options)
        labels[index], methods[index] = np.asarray(grid)[0], "grid"
    return Superpixels(labels, tuple(int(n) + 1 for n in labels.max((1, 2))), tuple(methods))


@dataclass(frozen=True)
class Result:
    """A method's result for a batch, as NumPy arrays whose first two axes are batch and k.

    Attributes:
        maps: [batch, k, height, width], with channels for pixel attributions.
        weights: Of superpixels [batch, k, S]; None for other methods.
        extra: Further numbers [batch, k] by name, such as a fit's score.
        layer: The layer that was used, or None.
        clock: The time it took.
        errors: Standard errors of the weights; None where there are none.
    """

    maps: np.ndarray
    weights: np.ndarray | None
    extra: dict[str, np.ndarray]
    layer: str | None
    clock: session.Clock
    errors: np.ndarray | None = None


def run(method: Chosen, about: Run) -> Result:
    """Run a method on a batch.

    Raises:
        ValueError: If the method does not take the batch, its layer or an option.
    """
    if isinstance(about.targets, tuple):
        return _joined([run(method, replace(about, targets=function)) for function in about.targets])
    single = callable(about.targets) or about.targets.ndim == 1
    with session.timed() as clock:
        found = call(method, about)
        if method.description.result == "layer":
            found = _summed(found, about.images, single)
        found = jax.block_until_ready(found)

    def host(array: Any) -> np.ndarray:
        values = np.asarray(jnp.asarray(array, jnp.float32))
        return values[:, None] if single else values

    used = layers.resolve(about.net.model, about.layer, about.images) if method.needs("layer") else None
    if method.result != "segments":
        return Result(host(found), None, {}, used, clock)
    weights = found.weights if hasattr(found, "weights") else found.values
    extra = {
        name: host(getattr(found, name))
        for name in ("intercept", "score")
        if getattr(found, name, None) is not None
    }
    errors = getattr(found, "standard_error", None)
    errors = None if errors is None else host(errors)
    return Result(host(found.heatmap), host(weights), extra, used, clock, errors)


def _joined(results: Sequence[Result]) -> Result:
    """Return the results for several functions of the scores as that for k classes."""
    one = results[0]

    def joined(arrays: Any) -> Any:
        return np.concatenate(list(arrays), axis=1)

    return Result(
        maps=joined(result.maps for result in results),
        weights=None if one.weights is None else joined(result.weights for result in results),
        extra={name: joined(result.extra[name] for result in results) for name in one.extra},
        layer=one.layer,
        clock=session.Clock(*(sum(t) for t in zip(*(astuple(r.clock) for r in results), strict=True))),
        errors=None if one.errors is None else joined(result.errors for result in results),
    )


def call(method: Chosen, about: Run) -> Any:
    """Return the result of a method's own function for a batch."""
    given = {name: SUPPLIED[name](about) for name in method.description.parameters if name in SUPPLIED}
    return method.description.function(**given, **{**preferred(method.description), **method.options})


def without_photos(net: Any, targets: jax.Array, *, cell: int, layer: str | None = None) -> Run:
    """Return abstract inputs to trace methods with, except the photos.

    Args:
        net: The network, `Pretrained`.
        targets: Classes [batch] or [batch, k].
        cell: Side of superpixels, which are squares.
        layer: For methods that look at one.
    """
    places = np.arange(net.input_size) // cell
    labels = (places[:, None] * (places[-1] + 1) + places)[None].repeat(len(targets), 0).astype(np.int32)
    count = int(labels.max()) + 1
    return Run(net, jnp.zeros(()), targets, jax.random.key(0), layer, jnp.asarray(labels), count)


def rehearse(method: Chosen, net: Any) -> None:
    """Trace a method with its options on an abstract photo, to check the options.

    Raises:
        ValueError: If the method rejects the value of one of these options.
    """
    if not method.options:
        return
    side, about = net.input_size, without_photos(net, jnp.zeros(1, jnp.int32), cell=_PADDING)

    def explained(images):
        return jax.tree.leaves(call(method, replace(about, images=images)))

    try:
        jax.eval_shape(explained, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    except (TypeError, ValueError) as error:
        if str(error).startswith(tuple(f"`{name}`" for name in method.options)):
            raise ValueError(f"{method.name}: {error}") from error
    except Exception:  # Warnings about values that do not exist yet are given when they exist.
        return


def passes(method: Chosen, about: Run) -> float:
    """Return about how many forward passes a method takes for each photo of a batch."""
    height, width = about.images.shape[1:3]
    targets = about.targets
    several = len(targets) if isinstance(targets, tuple) else targets.shape[1] if targets.ndim > 1 else 1
    sizes: dict[str, Any] = {"targets": several, "height": height, "width": width}
    if about.segments is not None:
        sizes["segments"] = int(about.segments.max()) + 1
    try:
        cost = method.description.passes(**{**method.settings(), **sizes})
    except (TypeError, ValueError):  # For options that the method will reject.
        return _SOME
    numbers = [n if isinstance(n, (int, float)) else _SOME for n in (cost.forward, cost.backward, cost.heads)]
    return max(1.0, numbers[0] + 2 * numbers[1] + _HEAD * numbers[2])


def _summed(values: jax.Array, images: jax.Array, single: bool) -> jax.Array:
    """Sum attributions of a layer over its features and bring them to the photo's size."""
    if values.ndim != (4 if single else 5):
        raise ValueError("`layer` must have activations [batch, height, width, channels] to be shown")
    return maps.upsample(values.sum(-1), images.shape[1:3])


def padded(count: int) -> int:
    """Return a number of superpixels that other batches are likely to share, so that programs are reused."""
    return -(-count // _PADDING) * _PADDING
