"""Colour maps whose lightness is linear in the value, and the range of values that they show."""

from functools import cache

import matplotlib
import numpy as np
from jaxtyping import ArrayLike, Float, UInt8
from matplotlib.colors import Colormap, ListedColormap
from numpy import ndarray
from skimage.color import lab2rgb

SEQUENTIAL = "inferno"
DIVERGING = "blue_white_red"

# CIELAB: both ends are equally dark, so that evidence for and against looks equally strong.
_ENDS = ((38.0, 18.0, -57.0), (38.0, 60.0, 42.0))
_MIDDLE = (97.0, 0.0, 0.0)


@cache
def diverging() -> Colormap:
    """Return the map for signed values: blue, white, red, with straight lines in CIELAB between them.

    Matplotlib's own diverging maps are either not uniform (RdBu) or dark in the middle (berlin).
    """
    half = np.linspace(0, 1, 128)[:, None]
    blue, red = (np.asarray(end) for end in _ENDS)
    middle = np.asarray(_MIDDLE)
    lab = np.concatenate([blue + half * (middle - blue), middle + half * (red - middle)])
    return ListedColormap(np.clip(lab2rgb(lab[None])[0], 0, 1), name=DIVERGING)


def colormap(name: str) -> Colormap:
    """Return a colour map by name: `DIVERGING`, or any of Matplotlib's.

    Raises:
        ValueError: If there is no such map.
    """
    if name == DIVERGING:
        return diverging()
    if name not in matplotlib.colormaps:
        raise ValueError(f"`cmap` must be {DIVERGING!r} or one of Matplotlib's colour maps; got {name!r}")
    return matplotlib.colormaps[name]


def limits(
    values: Float[ArrayLike, "..."], *, signed: bool = False, percentile: float = 100.0
) -> tuple[float, float]:
    """Return the values at the two ends of the colour bar; NaN and infinities are left out.

    Args:
        values: Raw values of any shape.
        signed: The range is symmetric around zero, so that white means no evidence.
        percentile: Use this percentile (0 to 100) as the largest value (of magnitudes if `signed`), so that
            single pixels do not darken the rest.

    Returns:
        Two different numbers, even where all values are equal.

    Example:
        >>> limits([-1.0, 0.0, 3.0], signed=True)
        (-3.0, 3.0)
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"`percentile` must be between 0 and 100; got {percentile!r}")
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        high = float(np.percentile(np.abs(finite), percentile)) or float(np.abs(finite).max()) or 1.0
        return -high, high
    low, high = float(finite.min()), float(np.percentile(finite, percentile))
    if high <= low:
        high = float(finite.max())
    return low, high if high > low else low + 1.0


def colorize(
    values: Float[ArrayLike, "height width"],
    *,
    cmap: str = SEQUENTIAL,
    bounds: tuple[float, float] | None = None,
) -> UInt8[ndarray, "height width 3"]:
    """Turn values into colours; NaN takes the colour of the lower end.

    Args:
        values: Raw values.
        cmap: `DIVERGING`, or the name of one of Matplotlib's colour maps.
        bounds: Values at the two ends; None means `limits(values)`.
    """
    low, high = limits(values) if bounds is None else bounds
    if not high > low:
        raise ValueError(f"`bounds` must be two rising numbers; got {bounds!r}")
    scaled = (np.asarray(values, np.float64) - low) / (high - low)
    scaled = np.clip(np.nan_to_num(scaled, nan=0.0), 0, 1)
    return colormap(cmap)(scaled, bytes=True)[..., :3]
