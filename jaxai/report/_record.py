"""Records of photos: the network's view, classes and superpixels, and the results of methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._methods import Chosen
from ._photos import Photo


@dataclass(frozen=True)
class Subject:
    """A photo that is explained.

    Attributes:
        photo: Where it comes from.
        pixels: What the network saw, float [height, width, 3] in [0, 1].
        named: The classes explained, as `classes.entry` returns them.
        segments: The photo's superpixels [height, width]; None if no method needs them.
        facts: The content of `explanation.json`, methods apart.
    """

    photo: Photo
    pixels: np.ndarray
    named: Sequence[dict[str, Any]]
    segments: np.ndarray | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One method's result for one photo.

    Attributes:
        method: The method.
        maps: [k, height, width], with channels for pixel attributions.
        weights: Of superpixels [k, S]; None for other methods.
        facts: Its entry in the record.
        errors: Standard errors of the weights [k, S], NaN where unknown; None if there are none.
    """

    method: Chosen
    maps: np.ndarray
    weights: np.ndarray | None
    facts: dict[str, Any]
    errors: np.ndarray | None = None

    def unsure(self, k: int) -> np.ndarray | None:
        """Return per superpixel whether its weight for class k may be zero; None if unknown."""
        return (
            None if self.weights is None or self.errors is None else unsure(self.weights[k], self.errors[k])
        )


def unsure(values: np.ndarray, errors: np.ndarray) -> np.ndarray | None:
    """Return which values lie within two standard errors of zero; None if no error is known."""
    return np.abs(values) < 2 * np.nan_to_num(errors) if np.isfinite(errors).any() else None


def record(subject: Subject, parts: Sequence[Part]) -> dict[str, Any]:
    """Return the content of `explanation.json`."""
    return {**subject.facts, "methods": {part.method.name: part.facts for part in parts}}


def arrays(subject: Subject, parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """Return the content of `maps.npz`: photo, targets, superpixels, maps; for one class without axis k."""
    single = len(subject.named) == 1
    # A target that is a function has no number.
    numbers = [-1 if item["index"] is None else item["index"] for item in subject.named]
    found = {"photo": subject.pixels, "targets": np.array(numbers, np.int32)}
    if subject.segments is not None:
        found["segments"] = subject.segments.astype(np.int32)
    for part in parts:
        found[part.method.name] = part.maps[0] if single else part.maps
        if part.weights is not None:
            found[f"{part.method.name}_weights"] = part.weights[0] if single else part.weights
        if part.errors is not None:
            found[f"{part.method.name}_standard_error"] = part.errors[0] if single else part.errors
    return found
