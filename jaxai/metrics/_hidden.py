"""Scores of images with hidden pixels: the engine of the faithfulness metrics.

A metric defines which pixels are hidden in sample i of an image (a `Perturbation` of pairs of indices) and
the number of samples; images are made in the chunks in which the model runs, so memory does not grow with
samples. The scores come from `jaxai.perturbation`'s engine, which includes black boxes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._frame import checks
from .._frame.targets import Target
from ..perturbation import _scoring, _segments
from . import _maps
from ._imputers import Imputer, imputer


class Asked(NamedTuple):
    """The checked arguments that faithfulness metrics share.

    Attributes:
        model: Callable pytree or `BlackBox`.
        images: [batch, height, width, channels].
        maps: float32 [batch, *k, height, width].
        target: The target, with top classes resolved.
        units: The superpixels that are removed as a whole; None: single pixels.
        imputer: The fill of removed pixels.
        batch_size: At most this many changed images at once.
        probability: Whether the probability of classes is used.
    """

    model: Any
    images: jax.Array
    maps: jax.Array
    target: Target
    units: _segments.Superpixels | None
    imputer: Imputer
    batch_size: int
    probability: bool

    @property
    def regions(self) -> _segments.Superpixels:
        """The superpixels of a metric that always has them."""
        assert self.units is not None
        return self.units


def ask(
    model: Any,
    images: Any,
    maps: Any,
    targets: Any,
    *,
    fill: Any,
    batch_size: int | None,
    probability: bool,
    segments: Any = None,
    num_segments: int | None = None,
    key: Any = None,
    noise: float = 0.0,
) -> Asked:
    """Check the arguments that faithfulness metrics share."""
    model, images, target = _scoring.prepare(model, images, targets, probability=probability)
    maps = _maps.of_images(maps, images, target)
    key = None if key is None else checks.key(key)
    units = None if segments is None else _segments.prepare(segments, images, num_segments)
    labels, count = (None, 0) if units is None else (units.labels, units.count)
    shown = imputer(fill, images, labels=labels, count=count, key=key, noise=noise)
    chunk = _scoring.in_flight(model, images, batch_size, 2**30)
    target = _scoring.frozen(model, images, target, chunk)
    return Asked(model, images, maps, target, units, shown, chunk, probability)


def scores(
    asked: Asked,
    hidden: Any,
    samples: int,
    *,
    target: Target | None = None,
    copies: int = 1,
    top: bool = False,
) -> Any:
    """Return the target's value for every image and sample.

    Args:
        asked: The result of `ask`.
        hidden: A `Perturbation` that maps (owners, samples), int32 [chunk] each, to the hidden pixels: bool,
            or float from 0 to 1, [chunk, height, width].
        samples: Number of samples per owner.
        target: The owners' target, if it differs from that of the images.
        copies: Number of owners per image: owner i belongs to image i // copies.
        top: Whether to also return where the class is still the top one.

    Returns:
        float32 [owners, samples, *k]; two such arrays with `top`.

    Raises:
        ValueError: If concrete scores are NaN or infinite.
    """
    owners = asked.images.shape[0] * copies
    count = owners * samples
    values = _scoring.scores(
        asked.model,
        _scoring.Perturbation(_changed, (samples, copies), (asked.images, asked.imputer, hidden)),
        asked.target if target is None else target,
        count=count,
        batch_size=min(asked.batch_size, count),
        probability=asked.probability,
        top=top,
    )
    _scoring.check_finite(values[0] if top else values)
    return jax.tree.map(lambda x: x.reshape(owners, samples, *x.shape[1:]), values)


def _changed(samples, copies, images, imputer, hidden, indices):
    owners, rows = indices // samples, indices % samples
    return imputer(images, owners // copies, hidden((owners, rows))), owners


def originals(asked: Asked) -> jax.Array:
    """Return the target's value for the images themselves, float32 [batch, *k]."""
    values = _scoring.scores(
        asked.model,
        _scoring.Perturbation(_unchanged, (), (asked.images,)),
        asked.target,
        count=asked.images.shape[0],
        batch_size=min(asked.batch_size, asked.images.shape[0]),
        probability=asked.probability,
    )
    _scoring.check_finite(values)
    return values


def _unchanged(images, indices):
    return images[indices], indices


def classes_last(values: jax.Array) -> jax.Array:
    """Return values [batch, samples, *k] as [batch, *k, samples]."""
    return jnp.moveaxis(values, 1, -1)


def on_units(maps: jax.Array, units: _segments.Superpixels | None) -> jax.Array:
    """Return maps [batch, *k, height, width] summed over units: float32 [batch, *k, units]."""
    flat = maps.reshape(*maps.shape[:-2], -1)
    if units is None:
        return flat
    labels = units.labels.reshape(len(maps), -1)

    def one(values, labels):
        return jax.ops.segment_sum(values.T, labels, num_segments=units.count).T

    return jax.vmap(one)(flat, labels)


def unit_count(asked: Asked) -> int:
    """Return the number of units per image, the maximum over the batch."""
    height, width = asked.images.shape[1:3]
    return height * width if asked.units is None else asked.units.count


def grid(images: jax.Array, rows: int = 8) -> jax.Array:
    """Return a grid of at most `rows` x `rows` rectangles as superpixels [height, width]."""
    height, width = images.shape[1:3]
    return _segments.grid((height, width), min(rows, height), min(rows, width))


def windows(size: tuple[int, int], window: tuple[int, int]) -> Any:
    """Return windows of this many pixels as superpixels [height, width]; the last ones may be smaller."""
    down = jnp.arange(size[0]) // window[0]
    right = jnp.arange(size[1]) // window[1]
    return (down[:, None] * (-(-size[1] // window[1])) + right).astype(jnp.int32)
