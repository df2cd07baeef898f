"""XRAI: regions of several segmentations of the image, ranked by integrated gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from .._frame import checks
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from ._integrated_gradients import integrated_gradients

SCALES = (50, 100, 150, 250, 500, 1200)


def xrai_regions(
    photos: ArrayLike,
    *,
    scales: Sequence[float] = SCALES,
    sigma: float = 0.8,
    min_size: int = 150,
    dilation: int = 5,
) -> Bool[np.ndarray, "batch regions height width"]:
    """Return overlapping regions of photos: Felzenszwalb's segments at several scales, each dilated.

    Runs on the host. Values are scaled to -1 .. 1 first, as in PAIR's library, which also segments at 224 x
    224; here the photo keeps its size.

    Args:
        photos: [batch, height, width, 3], any range.
        scales: Felzenszwalb's scales; larger ones give larger segments.
        sigma: Blur before segmentation, in pixels.
        min_size: Smallest segment, in pixels.
        dilation: Radius of the disk by which segments are dilated; 0 leaves them unchanged.

    Returns:
        One mask per region; images with fewer regions than others have empty masks at the end.

    Raises:
        ValueError: If `photos` is not a batch of images.

    References:
        Kapishnikov et al.: XRAI: Better Attributions Through Regions. ICCV 2019, arXiv 1906.02825, section
        3.2.
    """
    from skimage.morphology import dilation as dilate
    from skimage.morphology import disk
    from skimage.segmentation import felzenszwalb

    photos = np.asarray(photos, np.float64)
    if photos.ndim != 4:
        raise ValueError(f"`photos` must be [batch, height, width, channels]; got shape {photos.shape}")
    found = []
    for photo in photos:
        span = np.ptp(photo)
        photo = (photo - photo.min()) / (span if span > 0 else 1) * 2 - 1
        masks = []
        for scale in scales:
            labels = felzenszwalb(photo, scale=scale, sigma=sigma, min_size=min_size)
            masks.extend(labels == label for label in range(labels.max() + 1))
        if dilation:
            masks = [dilate(mask, disk(dilation)) for mask in masks]
        found.append(np.stack(masks))
    regions = np.zeros((len(found), max(map(len, found)), *photos.shape[1:3]), bool)
    for own, masks in zip(regions, found, strict=True):
        own[: len(masks)] = masks
    return regions


@describes(
    title="XRAI",
    result="heatmap",
    cost=lambda o: Passes(1 + 2 * o.steps, backward=2 * o.steps * o.targets),
    signed=True,
)
def xrai(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    regions: Bool[Array, "batch regions height width"] | None = None,
    baseline: Any = "extremes",
    steps: int = 100,
    min_pixels: int = 50,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Show the mean integrated gradient of image regions, the best region first and each pixel once.

    Args:
        regions: Masks that may overlap; None computes them from the images with `xrai_regions` on the host,
            which does not work under `jit`.
        baseline: As in `integrated_gradients`; `"extremes"` averages each image's own minimum and maximum, as
            PAIR's library does.
        steps: Gradients along each path.
        min_pixels: A region that adds fewer pixels to those already shown is dropped.

    References:
        Kapishnikov et al.: XRAI: Better Attributions Through Regions. ICCV 2019, arXiv 1906.02825, algorithm
        1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> halves = jnp.array([[[1, 1], [0, 0]], [[0, 0], [1, 1]]], bool)[None]
        >>> jaxai.xrai(net, x, 0, regions=halves, steps=2, min_pixels=1).ravel().tolist()
        [-3.0, -3.0, 3.0, 3.0]
    """
    images = checks.images(images)
    if isinstance(baseline, str):
        checks.choice(baseline, "baseline", ("extremes",))
        axes = (1, 2, 3)
        baseline = [images.min(axes, keepdims=True), images.max(axes, keepdims=True)]
    if regions is None and isinstance(images, Tracer):
        raise TypeError("`regions` must be given under jit or vmap, as they are made on the host")
    regions = jnp.asarray(xrai_regions(images) if regions is None else regions)
    if regions.ndim != 4 or (regions.shape[0], *regions.shape[2:]) != images.shape[:3]:
        raise ValueError(
            f"`regions` must be [batch, regions, height, width] for images of shape {images.shape};"
            f" got {regions.shape}"
        )
    attributions = integrated_gradients(
        model, images, targets, baseline=baseline, steps=steps, batch_size=batch_size
    ).max(-1)
    return rank_regions(attributions, regions, min_pixels=min_pixels)


def rank_regions(
    attributions: Float[Array, "batch *k height width"],
    regions: Bool[Array, "batch regions height width"],
    *,
    min_pixels: int = 50,
) -> Float[Array, "batch *k height width"]:
    """Give every pixel the mean attribution of the region in which it first appears, best regions first.

    Each step adds the region whose pixels not yet shown have the highest mean attribution. Pixels of no
    region get their own mean, so that the sum of a map is that of the attributions.

    Args:
        attributions: One value per pixel.
        regions: Masks that may overlap; empty ones are ignored.
        min_pixels: A region that adds fewer pixels is dropped.

    Returns:
        Maps like the attributions.
    """
    attributions = jnp.asarray(attributions, jnp.float32)
    one = partial(_rank, min_pixels=checks.positive(min_pixels, "min_pixels"))
    if attributions.ndim == 4:
        return _each(attributions, jnp.asarray(regions), jax.vmap(one, in_axes=(0, None)))
    return _each(attributions, jnp.asarray(regions), one)


def _each(attributions, regions, one):
    return jax.lax.map(lambda pair: one(*pair), (attributions, regions))


def _rank(attributions, regions, *, min_pixels):
    values = attributions.ravel()
    masks = regions.reshape(regions.shape[0], -1).astype(jnp.float32)

    def gains(covered):
        free = 1.0 - covered
        area, total = (masks @ jnp.stack([free, values * free], axis=1)).T
        return jnp.where(area >= min_pixels - 0.5, total / jnp.maximum(area, 1), -jnp.inf)

    def more(state):
        return state[2].max() > -jnp.inf

    def add(state):
        shown, covered, gain = state
        best = jnp.argmax(gain)
        new = masks[best] * (1 - covered)
        covered = covered + new
        return shown + new * gain[best], covered, gains(covered)

    covered = jnp.zeros_like(values)
    shown, covered, _ = jax.lax.while_loop(more, add, (jnp.zeros_like(values), covered, gains(covered)))
    free = 1 - covered
    rest = jnp.sum(values * free) / jnp.maximum(free.sum(), 1)
    return (shown + free * rest).reshape(attributions.shape)
