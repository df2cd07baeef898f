"""Which array of a foreign state dict becomes which parameter, layer by layer, checked both ways.

A mapping is a list of rules, one a layer: the keys it reads and the function that makes the layer's
parameters from their arrays. Batch norms are folded into the neighbouring layer here, in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]

_POOLED = 7
_UNUSED = ".num_batches_tracked"


@dataclass(frozen=True)
class Rule:
    """A layer's parameters as a function of arrays of the source.

    Attributes:
        layer: Name of the layer in the model.
        keys: The source's key of each argument of `make`.
        make: Takes the arrays by keyword, returns the parameters by name.
    """

    layer: str
    keys: Mapping[str, str]
    make: Callable[..., dict[str, np.ndarray]]


def apply(rules: Sequence[Rule], state: Arrays, *, ignored: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Carry out all rules on a state dict.

    Args:
        rules: One a layer.
        state: The source's arrays by key.
        ignored: Prefixes of keys that are left out on purpose; torch's counters of batches always are.

    Returns:
        float32 arrays by `<layer>.<parameter>`.

    Raises:
        ValueError: If a key is missing or unused, or an array has a shape that a rule cannot take.
    """
    needed = {key for rule in rules for key in rule.keys.values()}
    given = {key for key in state if not key.endswith(_UNUSED) and not key.startswith(tuple(ignored))}
    differences = describe(missing=needed - given, unused=given - needed)
    if differences:
        raise ValueError(differences)
    arrays = {}
    for rule in rules:
        try:
            made = rule.make(**{argument: state[key] for argument, key in rule.keys.items()})
        except ValueError as error:
            shapes = ", ".join(f"{key} {state[key].shape}" for key in rule.keys.values())
            raise ValueError(f"{rule.layer} cannot be made of {shapes} ({error})") from None
        for name, array in made.items():
            arrays[f"{rule.layer}.{name}"] = np.ascontiguousarray(array, np.float32)
    return arrays


def describe(*, missing: set[str], unused: set[str], limit: int = 4) -> str:
    """Say in one line which keys are missing and which have no place; empty if none."""
    parts = []
    for words, keys in (("it lacks", missing), ("it has no place for", unused)):
        if keys:
            names = ", ".join(sorted(keys)[:limit])
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
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    kernel = weight.astype(np.float64) * factor[:, None, None, None]
    offset = (0.0 if bias is None else bias.astype(np.float64)) - mean.astype(np.float64)
    return convolution(kernel, offset * factor + shift)


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


def plain_dense(kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """A dense layer that is [in, out] already."""
    return {"kernel": kernel, "bias": bias}


def dense_after_norm(
    kernel: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> dict[str, np.ndarray]:
    """Fold x * scale + shift, which stands before a dense layer [in, out], into it."""
    kernel = kernel.astype(np.float64)
    return {"kernel": kernel * scale[:, None], "bias": bias + shift.astype(np.float64) @ kernel}
