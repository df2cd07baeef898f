"""Removal curves of other papers, with their scores, regions and fills."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame import checks
from .._frame.contract import like
from .._frame.targets import Targets
from . import _hidden, _order
from ._order import Curve
from ._removal import deletion

# At most this many steps if there are many windows.
_STEPS = 196


@like(deletion)
def pixel_flipping(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = 0.0,
    probability: bool = False,
    batch_size: int | None = None,
) -> Curve:
    """Return the class's score as pixels are flipped, the most relevant first; a lower area is better.

    Like `deletion`, but with the raw score.

    Args:
        fill: Content of flipped pixels, as for `deletion`; the paper inverts binary images: `1 - images`.
        probability: True uses the probability of classes, as in Quantus.

    Returns:
        `Curve` with `curve`, `area` (under the curve) and `share`; NaN for a constant map.

    References:
        Bach et al.: On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
        Propagation. PLOS ONE 2015, section "Evaluating heatmaps".
    """
    return deletion(
        model, images, maps, targets, steps=steps, fill=fill, probability=probability, batch_size=batch_size
    )


@like(deletion)
def region_perturbation(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    key: jax.Array,
    window: int | tuple[int, int] = 9,
    steps: int = 100,
    least_first: bool = False,
    fill: Any = "uniform",
    probability: bool = False,
    batch_size: int | None = None,
) -> Curve:
    """Return the score as windows are replaced by noise, most relevant first; a higher area is better.

    The area is the one over the curve, AOPC = 1 / (L + 1) sum_{s = 0}^{L} f(x^(0)) - f(x^(s)), for L windows.

    Args:
        maps: As for `deletion`; windows are ordered by their mean.
        key: Randomness of the noise; average over ten keys for the paper's ten draws.
        window: Rows and columns of a window.
        steps: L, the number of windows to replace, at most all of them.
        least_first: Replace the least relevant first; a lower area is then better.
        fill: As for `deletion`; by default uniform noise between the image's minimum and maximum.
        probability: True takes the probability of classes instead of the score.

    Returns:
        `Curve` with `curve` [batch, L + 1], `area` (AOPC) and `share`; NaN for a constant map.

    Raises:
        ValueError: If a window is larger than the image.

    References:
        Samek et al.: Evaluating the Visualization of What a Deep Neural Network Has Learned. TNNLS 2017,
        arXiv 1509.06321, equations 10 to 12.
    """
    asked = _in_windows(
        model,
        images,
        maps,
        targets,
        window=window,
        fill=fill,
        key=key,
        probability=probability,
        batch_size=batch_size,
    )
    count = min(checks.positive(steps, "steps"), asked.regions.count)
    taken = jnp.broadcast_to(jnp.arange(count + 1, dtype=jnp.int32), (asked.images.shape[0], count + 1))
    values = _order.along(asked, taken, least_first=(least_first,))[..., 0, :]
    fall = (values[..., :1] - values).mean(-1)
    return Curve(values, fall, _order.share(asked, taken))


@like(deletion)
def selectivity(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    window: int | tuple[int, int] = 4,
    steps: int | None = None,
    fill: Any = 0.0,
    probability: bool = False,
    batch_size: int | None = None,
) -> Curve:
    """Return the score as windows are set to zero, most relevant first; a lower area is better.

    Args:
        maps: As for `deletion`; windows are ordered by their mean.
        window: Rows and columns of a window: 4 in the paper, for images of 28 x 28 pixels.
        steps: Number of steps; None: one per window, at most 196.
        probability: True takes the probability of classes instead of the score.

    Returns:
        `Curve` with `curve`, `area` (under the curve) and `share`; NaN for a constant map.

    Raises:
        ValueError: If a window is larger than the image.

    References:
        Montavon, Samek, Mueller: Methods for Interpreting and Understanding Deep Neural Networks. DSP
        2018, arXiv 1706.07979, section 6.2.
    """
    asked = _in_windows(
        model,
        images,
        maps,
        targets,
        window=window,
        fill=fill,
        key=None,
        probability=probability,
        batch_size=batch_size,
    )
    taken = _order.counts(asked, steps, _STEPS)
    return _order.curve(asked, taken, _order.along(asked, taken)[..., 0, :])


def _in_windows(model, images, maps, targets, *, window, **options):
    images = checks.images(images)
    size, window = (images.shape[1], images.shape[2]), checks.pair(window, "window")
    labels = _hidden.windows(size, window)
    if window[0] > size[0] or window[1] > size[1] or labels[-1, -1] == 0:
        raise ValueError(f"`window` must be smaller than the image, {size}; got {window}")
    count = int(labels[-1, -1]) + 1
    return _hidden.ask(
        model, images, maps, targets, segments=np.asarray(labels), num_segments=count, **options
    )


@like(deletion)
def irof(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "*batch height width"],
    fill: Any = "mean",
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Curve:
    """Return the remaining fraction of the score as superpixels are removed; a higher area is better.

    The most relevant are removed first. The curve is F(x^(l)) / F(x^(0)) after l of L superpixels; the area
    is the one over the curve, 1 minus the area under it: at most 1, and negative if the score rises. It can
    have any magnitude if the initial score is small.

    Args:
        maps: As for `deletion`; superpixels are ordered by the mean of the map.
        segments: Superpixels, int [batch, height, width], those of `jaxai.segment(photos, method="slic")` in
            the paper.
        fill: As for `deletion`; the image's mean colour by default.

    Returns:
        `Curve` with `curve`, `area` (over the curve) and `share`; NaN for a constant map.

    References:
        Rieger, Hansen: IROF: A Low Resource Evaluation Metric for Explanation Methods. 2020, arXiv
        2003.08747, equation 1.
    """
    found = deletion(
        model,
        images,
        maps,
        targets,
        fill=fill,
        segments=segments,
        num_segments=num_segments,
        key=key,
        probability=probability,
        batch_size=batch_size,
    )
    start = found.curve[..., :1]
    return Curve(found.curve / start, 1 - found.area / start[..., 0], found.share)
