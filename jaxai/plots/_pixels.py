"""Explanations as pixels: a map over its photo, signed attributions, superpixels that support a class."""

from typing import TypeAlias

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Integer, Real, UInt8
from numpy import ndarray
from skimage.segmentation import find_boundaries

from ._colors import DIVERGING, SEQUENTIAL, colorize, limits

# Pixels in [0, 1] (or uint8): [height, width, 3], or grey, [height, width] or [height, width, 1].
Photo: TypeAlias = Real[ArrayLike, "height width *channels"]

_LUMA = np.array([0.299, 0.587, 0.114])
_OUTLINE = np.array([1.0, 0.85, 0.1])
# Photos up to twice this size have hatching of single pixels.
_FINE = 224


def heatmap_overlay(
    photo: Photo,
    heatmap: Float[ArrayLike, "height width"],
    *,
    signed: bool = False,
    cmap: str | None = None,
    bounds: tuple[float, float] | None = None,
    opacity: float = 0.65,
    hatched: Bool[ArrayLike, "height width"] | None = None,
) -> UInt8[ndarray, "height width 3"]:
    """Lay a map over its photo, which is shown in grey so that all colour is the map's.

    Args:
        photo: Pixels in [0, 1], RGB or grey.
        heatmap: Raw values of the same size.
        signed: Zero shows the photo alone; evidence for is red and against is blue. Otherwise the map covers
            the photo evenly.
        cmap: Name of a colour map; None means `SEQUENTIAL`, or `DIVERGING` if `signed`.
        bounds: Values at the two ends; None means `limits(heatmap, signed=signed)`.
        opacity: Weight of the colours, 0 to 1 (if `signed`, at the ends of the range).
        hatched: Pixels that are hatched, such as those whose value may be zero.

    Raises:
        ValueError: If the sizes differ or the photo is not in [0, 1].

    Example:
        >>> import numpy as np
        >>> heatmap_overlay(np.ones((4, 4, 3)), np.eye(4)).shape
        (4, 4, 3)
    """
    photo = as_photo(photo)
    heatmap = as_map(heatmap, "heatmap", photo)
    if not 0 <= opacity <= 1:
        raise ValueError(f"`opacity` must be between 0 and 1; got {opacity!r}")
    bounds = limits(heatmap, signed=signed) if bounds is None else bounds
    colors = colorize(heatmap, cmap=cmap or (DIVERGING if signed else SEQUENTIAL), bounds=bounds) / 255
    cover = opacity
    if signed:
        size = np.clip(np.abs(np.nan_to_num(heatmap)) / max(abs(bounds[0]), abs(bounds[1])), 0, 1)
        # The square root keeps half-strong evidence visible on the photo.
        cover = opacity * np.sqrt(size)[..., None]
    picture = (1 - cover) * _grey(photo) + cover * colors
    if hatched is not None:
        # Of large photos the lines are wider, so that they do not vanish when these are shown smaller.
        width = max(1, min(picture.shape[:2]) // _FINE)
        picture = hatch(picture, as_map(hatched, "hatched", photo).astype(bool), width=width)
    return _bytes(picture)


def signed_pixels(
    attributions: Float[ArrayLike, "height width *channels"],
    *,
    percentile: float = 99.0,
    bounds: tuple[float, float] | None = None,
) -> UInt8[ndarray, "height width 3"]:
    """Show signed attributions of pixels on white: red supports the class, blue opposes it.

    Channels are summed. The largest magnitudes are clipped, as a few pixels usually stand out.

    Args:
        attributions: Raw values; [height, width] if the channels are summed already.
        percentile: Magnitudes above this percentile take the full colour.
        bounds: Values at the two ends instead.
    """
    values = np.asarray(attributions, np.float64)
    if values.ndim == 3:
        values = values.sum(-1)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"`attributions` must be [height, width, channels]; got shape {values.shape}")
    bounds = limits(values, signed=True, percentile=percentile) if bounds is None else bounds
    return colorize(np.nan_to_num(values), cmap=DIVERGING, bounds=bounds)


def segment_mask(
    photo: Photo,
    segments: Integer[ArrayLike, "height width"],
    weights: Float[ArrayLike, " segments"],
    *,
    regions: int = 5,
    boundaries: bool = True,
    scale: int = 3,
    hatched: Bool[ArrayLike, " segments"] | None = None,
) -> UInt8[ndarray, "rows columns 3"]:
    """Show the superpixels that support a class most in colour and outlined, the rest in pale grey.

    Args:
        photo: Pixels in [0, 1], RGB or grey.
        segments: Labels 0 to S - 1, integers of any type.
        weights: One weight per superpixel; superpixels with weights at or below zero are never shown.
        regions: At most this many superpixels, the largest weights first.
        boundaries: Draw thin lines between all superpixels too.
        scale: The picture is this many times larger than the photo, so that lines can be thinner than its
            pixels.
        hatched: Superpixels that are hatched where they are shown, such as those whose weight may be zero.

    Returns:
        uint8 [scale * height, scale * width, 3].

    Raises:
        TypeError: If the labels are not integers.
        ValueError: If the sizes differ, or there is a label without a weight.
    """
    photo = as_photo(photo)
    labels = as_map(segments, "segments", photo)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"`segments` must be integer labels; got {labels.dtype}")
    weights = np.nan_to_num(np.asarray(weights, np.float64))
    if weights.ndim != 1 or labels.min() < 0 or labels.max() >= len(weights):
        raise ValueError(
            f"`weights` must have one value for each of the labels {labels.min()} to {labels.max()};"
            f" got shape {weights.shape}"
        )
    # Small types would overflow below.
    labels = labels.astype(np.int64)
    for name, value in (("regions", regions), ("scale", scale)):
        if value < 1:
            raise ValueError(f"`{name}` must be a positive integer; got {value!r}")
    shown = strongest(weights, regions)[labels]
    lines = np.zeros(shown.shape, bool) if hatched is None else shown & np.asarray(hatched, bool)[labels]
    photo, labels, shown, lines = (_enlarge(x, scale) for x in (photo, labels, shown, lines))
    pale = 0.35 * _grey(photo) + 0.6
    picture = hatch(np.where(shown[..., None], photo, pale), lines, width=scale)
    if boundaries:
        # Zero would count as background, which has no boundary.
        edges = find_boundaries(labels + 1, mode="inner")[..., None]
        picture = np.where(edges & ~shown[..., None], 0.75 * picture, picture)
    outline = find_boundaries(shown, mode="thick")[..., None]
    return _bytes(np.where(outline, _OUTLINE, picture))


def strongest(weights: Float[ArrayLike, " segments"], regions: int = 5) -> Bool[ndarray, " segments"]:
    """Return per superpixel whether its weight is among the largest, and above zero."""
    weights = np.nan_to_num(np.asarray(weights, np.float64))
    shown = np.zeros(weights.shape, bool)
    shown[np.argsort(-weights, kind="stable")[:regions]] = True
    return shown & (weights > 0)


def hatch(picture: ndarray, where: ndarray, *, width: int = 1) -> ndarray:
    """Draw slanted lines, dark beside light so that they show on everything, over a part of a picture.

    Args:
        picture: [height, width, 3] in [0, 1].
        where: The part, bool [height, width].
        width: Of a line in pixels; the lines are eight of these apart.
    """
    place = (np.add.outer(np.arange(where.shape[0]), np.arange(where.shape[1])) // width) % 8
    dark, light = ((where & (place == number))[..., None] for number in (0, 1))
    return np.where(dark, 0.25 * picture, np.where(light, 0.35 * picture + 0.65, picture))


def as_photo(photo: ArrayLike) -> ndarray:
    """Return a photo as float64 [height, width, 3] in [0, 1]; uint8 is divided by 255, grey repeated."""
    pixels = np.asarray(photo)
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or 0 in shape:
        raise ValueError(f"`photo` must be [height, width, 3], or grey; got shape {shape}")
    pixels = (pixels / 255 if pixels.dtype == np.uint8 else pixels).astype(np.float64)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if not (pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6):
        raise ValueError(f"`photo` must lie in [0, 1]; got {pixels.min():g} to {pixels.max():g}")
    return pixels


def as_map(values: ArrayLike, name: str, photo: ndarray) -> ndarray:
    """Return values as an array [height, width] of the photo's size."""
    array = np.asarray(values)
    if array.shape != photo.shape[:2]:
        raise ValueError(f"`{name}` must have the photo's size {photo.shape[:2]}; got shape {array.shape}")
    return array


def _grey(photo: ndarray) -> ndarray:
    return (photo @ _LUMA)[..., None].repeat(3, -1)


def _enlarge(array: ndarray, scale: int) -> ndarray:
    return array.repeat(scale, 0).repeat(scale, 1)


def _bytes(picture: ndarray) -> ndarray:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
