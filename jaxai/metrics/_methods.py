"""Calls of methods by metrics: any function `method(model, images, targets) -> maps`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.targets import Target, Targets
from . import _maps

Method = Callable[[Any, jax.Array, Any], Any]


def prepare(
    model: Any, images: Any, targets: Targets, batch_size: int | None
) -> tuple[Any, jax.Array, Target, int]:
    """Check the arguments shared by metrics of methods; top classes are resolved once for all maps.

    Returns:
        The model, the images, the target and the number of images to explain at once.
    """
    model, images, target = _targets.prepare(model, images, targets)
    chunk = batching.chunk_size(batch_size, model, images)
    return model, images, _targets.frozen(model, images, target, chunk), chunk


def maps_of(method: Method, model: Any, images: jax.Array, target: Target, batch_size: int) -> jax.Array:
    """Return a method's maps, float32 [batch, *k, height, width], computed in chunks.

    The method is called from the host, so it may belong to any library. Maps smaller than the images are
    compared unchanged.

    Raises:
        TypeError: If the method cannot be called.
        ValueError: If the maps do not fit, or are NaN.
    """
    if not callable(method):
        raise TypeError(
            f"`method` must be callable, method(model, images, targets) -> maps; got {type(method).__name__}"
        )
    parts = []
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        part = target.take(jnp.arange(start, start + len(chunk)))
        found = method(model, chunk, part.plain)
        parts.append(_maps.of_method(found, len(chunk), part))
    return jnp.concatenate(parts) if len(parts) > 1 else parts[0]


def samples(value: Any, least: int = 1) -> int:
    """Return a checked number of samples."""
    return checks.at_least(value, "num_samples", least)
