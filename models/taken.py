"""Whether images lie where a network takes them: their values beside what its normalization gives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import normalization

# A note is made if more than this share of the values lie outside the network's range,
_SHARE = 0.02
# by more than this share of its width: resizing and noise overshoot a little.
_MARGIN = 0.05
# Images inside the range are taken for another one if that is narrower than this share of it,
_NARROWER = 0.7
# and every channel's smallest value lies this near its low end, in shares of its width (photos have dark
# pixels),
_LOW = 0.02
# and the largest this near its high end.
_HIGH = 0.15


def note(images: Any, normalize: Callable[[jax.Array], jax.Array]) -> str | None:
    """Return a line if images lie far from what a normalization makes of photos in [0, 1]; None if not.

    Two faults are seen. More than 2 % of the values lie outside the network's range by more than 5 % of its
    width, channel by channel. Or all values lie inside, but in every channel they run from one end to the
    other of a known range that is much narrower (within 2 % of its width at the low end, 15 % at the high
    one): photos in [0, 1] that were not normalized, or were for another network. Dark, bright and constant
    images are neither, nor is noise in the range. What cannot be told apart gives no line.

    Args:
        images: What the network is given, [batch, height, width, channels].
        normalize: From photos in [0, 1] to what the network takes; see `Pretrained`.
    """
    values = np.asarray(images, np.float32)
    taken = _range(normalize, values.shape[1:])
    if taken is None:
        return None
    axes = tuple(range(values.ndim - 1))
    low, high = taken
    margin = _MARGIN * (high - low)
    extent = values.min(axes), values.max(axes)
    outside = ((values < low - margin) | (values > high + margin)).mean() > _SHARE
    looks = next(
        (
            name
            for name, one in _known(values.shape[1:])
            if _fills(extent, one, taken) and (outside or _narrower(one, taken))
        ),
        None,
    )
    if not outside and looks is None:
        return None
    seen = f"{_shown(*extent)}{f', like {looks}' if looks else ''}"
    return (
        f"`images` are {seen}; the network takes {_shown(low, high)}: pass `net.normalize(photos in [0, 1])`"
    )


def _known(shape: tuple[int, ...]) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Return the ranges in which networks take photos, the narrowest first, with their names."""
    known: list[tuple[str, Callable]] = [
        ("photos in [0, 1]", normalization.identity),
        ("photos stretched to [-1, 1]", normalization.signed),
    ]
    if shape[-1] == 3:
        known.append(("photos normalized by ImageNet's mean and standard deviation", normalization.imagenet))
    known.append(("photos in 0 to 255", lambda photos: photos * 255))
    if shape[-1] == 3:
        known.append(("photos normalized as Caffe does", normalization.caffe))
    found = [(name, _range(normalize, shape)) for name, normalize in known]
    return [(name, one) for name, one in found if one is not None]


def _narrower(one: tuple, taken: tuple) -> bool:
    return bool((one[1] - one[0] < _NARROWER * (taken[1] - taken[0])).all())


def _fills(extent: tuple, one: tuple, taken: tuple) -> bool:
    """Return whether values run from end to end of a range that is not the network's."""
    (least, most), (low, high) = extent, one
    width = high - low
    if all(
        np.allclose(mine, theirs, atol=0.05 * width.max()) for mine, theirs in zip(one, taken, strict=True)
    ):
        return False
    near = (
        (np.abs(least - low) <= _LOW * width) & (most >= high - _HIGH * width) & (most <= high + _LOW * width)
    )
    return bool(near.all())


def _range(
    normalize: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the least and the largest number of each channel of normalized photos.

    None if they depend on more than a pixel's own colour, as with each photo's own mean.
    """
    ramp = np.linspace(0, 1, int(np.prod(shape[:-1])), dtype=np.float32).reshape(*shape[:-1], 1)
    photos = np.stack([np.zeros(shape, np.float32), np.broadcast_to(ramp, shape), np.ones(shape, np.float32)])
    try:
        found = np.asarray(normalize(jnp.asarray(photos)), np.float32)
    except Exception:  # Of the user's function: this is a note, no check of it.
        return None
    if found.shape != photos.shape or not np.isfinite(found).all():
        return None
    black, grey, white = found
    low, high = np.minimum(black, white), np.maximum(black, white)
    slack = 1e-3 * (high - low)
    axes = tuple(range(low.ndim - 1))
    uniform = (np.ptp(low, axes) <= slack.min(axes)).all() and (np.ptp(high, axes) <= slack.min(axes)).all()
    if not uniform or (high <= low).any() or (grey < low - slack).any() or (grey > high + slack).any():
        return None
    return low.reshape(-1, shape[-1])[0], high.reshape(-1, shape[-1])[0]


def _shown(low: np.ndarray, high: np.ndarray) -> str:
    return f"{low.min():.3g} to {high.max():.3g}"
