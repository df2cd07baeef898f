"""Mapping of a foreign state dict's arrays to parameters, layer by layer, checked in both directions.

A mapping is a list of rules, one per layer: the keys that it reads, their required shapes, and the function
that makes the layer's parameters. Batch norms are folded into the neighbouring layer here, in float64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .._files import shown
from .stored import FLOATS, Refused, Stored

Shape = tuple[int, ...]
Shapes = dict[str, tuple[Shape, ...]]

_POOLED = 7
_MEAN, _COUNTER = ".running_mean", ".num_batches_tracked"


@dataclass(frozen=True)
class Kind:
    """How the parameters of a kind of layer are made.

    Attributes:
        make: Takes arrays by keyword, returns parameters by name.
        shapes: From the shape of one parameter to the shapes that each array may have.
        parameter: Which one.
    """

    make: Callable[..., dict[str, np.ndarray]]
    shapes: Callable[[Shape], Shapes]
    parameter: str = "kernel"


@dataclass(frozen=True)
class Rule:
    """A layer's parameters as a function of arrays of the source.

    Attributes:
        layer: Name of the layer in the model.
        keys: The source's key of each argument of `kind.make`.
        kind: The kind of layer made from them.
    """

    layer: str
    keys: Mapping[str, str]
    kind: Kind


def apply(
    rules: Sequence[Rule],
    state: Mapping[str, Stored],
    shapes: Mapping[str, Shape],
    *,
    ignored: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Carry out all rules on a state dict.

    Names, types and shapes of all arrays are checked before the numbers of any are read.

    Args:
        rules: One for each layer.
        state: The source's arrays by key.
        shapes: The model's shapes by `<layer>.<parameter>`.
        ignored: Prefixes of keys to ignore; the counters of torch's norms are always ignored.

    Returns:
        float32 arrays by `<layer>.<parameter>`.

    Raises:
        Refused: If a key is missing or unused, or an array has another type or shape than its layer needs,
            or holds numbers that are not finite.
    """
    needed = {key for rule in rules for key in rule.keys.values()}
    counters = {key.removesuffix(_MEAN) + _COUNTER for key in needed if key.endswith(_MEAN)}
    counters = {key for key in counters if key in state and math.prod(state[key].shape) == 1}
    given = {key for key in state if key not in counters and not key.startswith(tuple(ignored))}
    if differences := describe(missing=needed - given, unused=given - needed):
        raise Refused(differences)
    for rule in rules:
        accepted = rule.kind.shapes(shapes[f"{rule.layer}.{rule.kind.parameter}"])
        for argument, key in rule.keys.items():
            _check(key, state[key], accepted[argument])
    arrays = {}
    for rule in rules:
        # Overflow is detected below.
        with np.errstate(all="ignore"):
            made = rule.kind.make(**{argument: state[key].read() for argument, key in rule.keys.items()})
            made = {name: np.ascontiguousarray(array, np.float32) for name, array in made.items()}
        for name, array in made.items():
            if not np.isfinite(array).all():
                raise Refused(f"NaN or infinite numbers in {rule.layer}.{name}")
            arrays[f"{rule.layer}.{name}"] = array
    return arrays


def _check(key: str, array: Stored, accepted: tuple[Shape, ...]) -> None:
    if array.dtype not in FLOATS:
        raise Refused(f"{key} holds {array.dtype}, expected {', '.join(FLOATS)}")
    if array.shape not in accepted:
        raise Refused(f"{key} is {array.shape}, expected {' or '.join(map(str, accepted))}")


def describe(*, missing: set[str], unused: set[str], limit: int = 4) -> str:
    """Say in one line which keys are missing and which have no place; empty if none."""
    parts = []
    for words, keys in (("it lacks", missing), ("it has no place for", unused)):
        if keys:
            names = ", ".join(shown(key) for key in sorted(keys)[:limit])
            more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
            parts.append(f"{words} {names}{more}")
    return "; ".join(parts)


def convolution(weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """OIHW to HWIO; a depthwise [C,1,k,k] to [k,k,1,C]."""
    return {"kernel": weight.transpose(2, 3, 1, 0), "bias": bias}


def folded_convolution(
    weight: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    epsilon: float,
) -> dict[str, np.ndarray]:
    """Fold the batch norm that follows a convolution into it: (w x + b - mean) * factor + shift."""
    if (variance < 0).any():
        raise Refused("a batch norm has negative variances")
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    kernel = weight.astype(np.float64) * factor[:, None, None, None]
    offset = (0.0 if bias is None else bias.astype(np.float64)) - mean.astype(np.float64)
    return convolution(kernel, offset * factor + shift)


def folded_transposed(weight: np.ndarray, **others: np.ndarray) -> dict[str, np.ndarray]:
    """A transposed convolution [in, out, k, k] and its batch norm, as the convolution that it equals."""
    return folded_convolution(weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], **others, epsilon=1e-5)


def dense(weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """[out, in], or a 1x1 convolution, to [in, out]."""
    return {"kernel": weight.reshape(len(weight), -1).T, "bias": bias}


def dense_on_positions(weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """A dense layer on flattened [C,7,7], or the 7x7 convolution it equals, to rows in HWC order."""
    width = len(weight)
    # Two steps, because NumPy is slow at moving all four axes at once.
    rows = np.ascontiguousarray(weight.reshape(width, -1).T)
    spread = rows.reshape(-1, _POOLED, _POOLED, width).transpose(1, 2, 0, 3)
    return {"kernel": spread.reshape(-1, width), "bias": bias}


def scaled_dense(weight: np.ndarray, bias: np.ndarray, factor: np.ndarray) -> dict[str, np.ndarray]:
    """Fold the scale of a residual branch into the dense layer [out, in] before it."""
    wide = factor.reshape(-1).astype(np.float64)
    return dense(weight * wide[:, None], bias * wide)


def layer_norm(weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """A norm's scale and bias."""
    return {"scale": weight, "bias": bias}


def prefix_and_positions(
    token: np.ndarray, positions: np.ndarray, registers: np.ndarray | None = None, *, with_class: bool
) -> dict[str, np.ndarray]:
    """Class token and registers, and the positions of patches; a class token's position is added to it."""
    positions = positions[0].astype(np.float64)
    first = token[0] + positions[:1] if with_class else token[0]
    rest = positions[1:] if with_class else positions
    tokens = first if registers is None else np.concatenate([first, registers[0]])
    return {"tokens": tokens, "positions": rest}


def plain_dense(kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """A dense layer that is [in, out] already."""
    return {"kernel": kernel, "bias": bias}


def dense_after_norm(
    kernel: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> dict[str, np.ndarray]:
    """Fold x * scale + shift, which stands before a dense layer [in, out], into it."""
    kernel = kernel.astype(np.float64)
    # Row by row, so that the sum is the same on every machine; a matrix product's is not.
    added = (kernel * shift.astype(np.float64)[:, None]).sum(0)
    return {"kernel": kernel * scale.astype(np.float64)[:, None], "bias": bias + added}


def _convolution_shapes(kernel: Shape) -> Shapes:
    height, width, inputs, outputs = kernel
    return {"weight": ((outputs, inputs, height, width),), "bias": ((outputs,),)}


def _folded_shapes(kernel: Shape) -> Shapes:
    vector = ((kernel[-1],),)
    norm = dict.fromkeys(("scale", "shift", "mean", "variance"), vector)
    return _convolution_shapes(kernel) | norm


def _dense_shapes(kernel: Shape) -> Shapes:
    inputs, outputs = kernel
    return {"weight": ((outputs, inputs), (outputs, inputs, 1, 1)), "bias": ((outputs,),)}


def _positions_shapes(kernel: Shape) -> Shapes:
    inputs, outputs = kernel
    channels = inputs // _POOLED**2
    return {"weight": ((outputs, inputs), (outputs, channels, _POOLED, _POOLED)), "bias": ((outputs,),)}


def _scaled_shapes(kernel: Shape) -> Shapes:
    width = kernel[1]
    return _dense_shapes(kernel) | {"factor": ((width,), (width, 1, 1))}


def _norm_shapes(scale: Shape) -> Shapes:
    return {"weight": (scale,), "bias": (scale,)}


def _plain_shapes(kernel: Shape) -> Shapes:
    inputs, outputs = kernel
    return {"kernel": (kernel,), "bias": ((outputs,),), "scale": ((inputs,),), "shift": ((inputs,),)}


def _transposed_shapes(kernel: Shape) -> Shapes:
    height, width, inputs, outputs = kernel
    return _folded_shapes(kernel) | {"weight": ((inputs, outputs, height, width),)}


TRANSPOSED = Kind(folded_transposed, _transposed_shapes)
CONVOLUTION = Kind(convolution, _convolution_shapes)
DENSE = Kind(dense, _dense_shapes)
DENSE_ON_POSITIONS = Kind(dense_on_positions, _positions_shapes)
SCALED_DENSE = Kind(scaled_dense, _scaled_shapes)
LAYER_NORM = Kind(layer_norm, _norm_shapes, "scale")
PLAIN_DENSE = Kind(plain_dense, _plain_shapes)
DENSE_AFTER_NORM = Kind(dense_after_norm, _plain_shapes)


def folded(epsilon: float) -> Kind:
    """Return the kind of a convolution with a batch norm of this epsilon."""
    return Kind(partial(folded_convolution, epsilon=epsilon), _folded_shapes)


def tokens(*, registers: int, with_class: bool) -> Kind:
    """Return the kind of a transformer's tokens and positions.

    Args:
        registers: How many register tokens there are.
        with_class: Whether the class token has a position.
    """

    def shapes(positions: Shape) -> Shapes:
        count, width = positions
        return {
            "token": ((1, 1, width),),
            "registers": ((1, registers, width),),
            "positions": ((1, count + with_class, width),),
        }

    return Kind(partial(prefix_and_positions, with_class=with_class), shapes, "positions")
