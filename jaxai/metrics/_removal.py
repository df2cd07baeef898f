"""Faithfulness by removal in the order of the map: what falls, and how fast."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._frame import checks
from .._frame.targets import Targets
from . import _hidden, _order
from ._order import Curve

# At most so many steps where superpixels or windows are many.
_STEPS = 196


class RelevanceGain(NamedTuple):
    """The symmetric relevance gain and its two curves.

    Attributes:
        gain: Area least relevant first less area most relevant first, float32 [batch] ([batch, k] for k
            targets per image).
        most_first: The score as the most relevant go first, float32 [batch, steps + 1] or [batch, k, ...].
        least_first: The same, least relevant first.
        share: The share of pixels or superpixels that has gone, [batch, steps + 1].
    """

    gain: Float[Array, "batch *k"]
    most_first: Float[Array, "batch *k points"]
    least_first: Float[Array, "batch *k points"]
    share: Float[Array, "batch points"]


def deletion(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = "mean",
    segments: Int[ArrayLike, "batch height width"] | None = None,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Curve:
    """Return the score while the most relevant pixels are removed first; a lower area is better.

    With x^(s) the image without the s / steps most relevant pixels, the curve is p(x^(s)), and the area is
    that of the trapezoids over the share removed, in [0, 1] for probabilities.

    Args:
        model: Callable pytree, `model(images) -> scores`, or `jaxai.perturbation.black_box(predict)`.
        images: Model input, float [batch, height, width, channels].
        maps: Of any library: [batch, height, width], [batch, k, height, width] for k targets per image;
            channels after these are summed with their signs. Equal values go in row-major order.
        targets: What the maps explain (see `jaxai.targets`). Classes: the probability of the class; a
            callable: its own value.
        steps: Number of steps; None: one for each row of the image (the paper's 224 for 224 x 224 pixels),
            or for each superpixel.
        fill: What removed pixels show, in the model's input space: a value that broadcasts to the images, or
            a name, see `jaxai.metrics`. The paper's zeros of normalised images are the mean of ImageNet.
        segments: Superpixels to remove as a whole, ordered by the mean of the map; None: pixels.
        num_segments: Static number of superpixels, needed under `jit` and `vmap`.
        key: Randomness of noisy fills.
        probability: False takes the scores of classes themselves.
        batch_size: At most so many changed images in flight; None chooses by size.

    Returns:
        `Curve` with `curve`, `area` (under the curve) and `share`; NaN for a constant map.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, a class does not exist, a map is NaN, or the model returns NaN.

    References:
        Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC
        2018, arXiv 1806.07421, algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> image = jnp.array([3.0, 1.0, 0.0]).reshape(1, 1, 3, 1)
        >>> f, score = lambda x: x.sum((1, 2)), lambda scores: scores[:, 0]
        >>> r = jaxai.metrics.deletion(f, image, image, score, steps=3, fill=0)
        >>> r.curve.tolist(), r.area.tolist()
        ([[4.0, 1.0, 0.0, 0.0]], [1.0])
    """
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        segments=segments,
        num_segments=num_segments,
        key=key,
    )
    taken = _order.counts(asked, steps, _steps(asked))
    return _order.curve(asked, taken, _order.along(asked, taken)[..., 0, :])


def _steps(asked):
    return asked.images.shape[1] if asked.units is None else asked.units.count


def insertion(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = "rise_blur",
    segments: Int[ArrayLike, "batch height width"] | None = None,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Curve:
    """Return the score while the most relevant pixels are shown first; a higher area is better.

    Args:
        model: As for `deletion`.
        images: As for `deletion`.
        maps: As for `deletion`.
        targets: As for `deletion`.
        steps: As for `deletion`.
        fill: What is shown at first, as for `deletion`; the paper's blur by default.
        segments: As for `deletion`.
        num_segments: As for `deletion`.
        key: As for `deletion`.
        probability: As for `deletion`.
        batch_size: As for `deletion`.

    Returns:
        `Curve` with `curve`, `area` (under the curve) and `share`; NaN for a constant map.

    Raises:
        TypeError: As `deletion` does.
        ValueError: As `deletion` does.

    References:
        Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC
        2018, arXiv 1806.07421, section 4.2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> image = jnp.array([3.0, 1.0, 0.0]).reshape(1, 1, 3, 1)
        >>> f, score = lambda x: x.sum((1, 2)), lambda scores: scores[:, 0]
        >>> r = jaxai.metrics.insertion(f, image, image, score, steps=3, fill=0)
        >>> r.curve.tolist()
        [[0.0, 3.0, 4.0, 4.0]]
    """
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        segments=segments,
        num_segments=num_segments,
        key=key,
    )
    taken = _order.counts(asked, steps, _steps(asked))
    return _order.curve(asked, taken, _order.along(asked, taken, reveal=True)[..., 0, :])


def relevance_gain(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = "mean",
    segments: Int[ArrayLike, "batch height width"] | None = None,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> RelevanceGain:
    """Return how much faster the score falls most relevant first than least relevant first; higher is better.

    The gain is area(least first) - area(most first): 0 on average for a random order, whatever removed pixels
    show, in [-1, 1] for probabilities. Signs count: what speaks against the target is least relevant.

    Args:
        model: As for `deletion`.
        images: As for `deletion`.
        maps: As for `deletion`.
        targets: As for `deletion`.
        steps: As for `deletion`; the network runs 2 (steps + 1) times per image and target.
        fill: As for `deletion`; the paper's by default.
        segments: As for `deletion`; the paper removes superpixels.
        num_segments: As for `deletion`.
        key: As for `deletion`.
        probability: As for `deletion`.
        batch_size: As for `deletion`.

    Returns:
        `RelevanceGain` with `gain`, `most_first`, `least_first` and `share`; NaN for a constant map.

    Raises:
        TypeError: As `deletion` does.
        ValueError: As `deletion` does.

    References:
        Bluecher, Vielhaben, Strodthoff: Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI
        Benchmarks. TMLR 2024, arXiv 2401.06654, section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> image = jnp.array([3.0, 1.0, 0.0]).reshape(1, 1, 3, 1)
        >>> f = lambda x: x.sum((1, 2))
        >>> jaxai.metrics.relevance_gain(f, image, image, lambda s: s[:, 0], steps=3, fill=0).gain.tolist()
        [2.0]
    """
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        segments=segments,
        num_segments=num_segments,
        key=key,
    )
    taken = _order.counts(asked, steps, _steps(asked))
    values = _order.along(asked, taken, least_first=(False, True))
    most, least = (_order.curve(asked, taken, values[..., i, :]) for i in range(2))
    return RelevanceGain(least.area - most.area, most.curve, least.curve, most.share)


def pixel_flipping(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = 0.0,
    probability: bool = False,
    batch_size: int | None = None,
) -> Curve:
    """Return the class's score while the most relevant pixels are flipped first; a lower area is better.

    As `deletion`, but of the score itself.

    Args:
        model: As for `deletion`.
        images: As for `deletion`.
        maps: As for `deletion`.
        targets: As for `deletion`.
        steps: As for `deletion`.
        fill: What flipped pixels show, as for `deletion`; the paper inverts binary images: `1 - images`.
        probability: True takes the probability of classes, as Quantus does.
        batch_size: As for `deletion`.

    Returns:
        `Curve` with `curve`, `area` (under the curve) and `share`; NaN for a constant map.

    Raises:
        TypeError: As `deletion` does.
        ValueError: As `deletion` does.

    References:
        Bach et al.: On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
        Propagation. PLOS ONE 2015, section "Evaluating heatmaps".
    """
    return deletion(
        model, images, maps, targets, steps=steps, fill=fill, probability=probability, batch_size=batch_size
    )


def region_perturbation(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
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
    """Return the score while windows are replaced by noise, most relevant first; a higher area is better.

    The area is that over the curve, AOPC = 1 / (L + 1) sum_{s = 0}^{L} f(x^(0)) - f(x^(s)), for L windows.

    Args:
        model: As for `deletion`.
        images: As for `deletion`.
        maps: As for `deletion`; windows are ordered by their mean.
        targets: As for `deletion`.
        key: Randomness of the noise; the paper's average of ten draws is that of ten keys.
        window: Rows and columns of a window.
        steps: L, at most so many windows as there are.
        least_first: The least relevant go first; then a lower area is better.
        fill: As for `deletion`; uniform noise between the image's extremes by default.
        probability: True takes the probability of classes instead of the score.
        batch_size: As for `deletion`.

    Returns:
        `Curve` with `curve` [batch, L + 1], `area` (AOPC) and `share`; NaN for a constant map.

    Raises:
        TypeError: As `deletion` does.
        ValueError: As `deletion` does, or if a window is larger than the image.

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
    count = min(checks.positive(steps, "steps"), asked.units.count)
    taken = jnp.broadcast_to(jnp.arange(count + 1, dtype=jnp.int32), (asked.images.shape[0], count + 1))
    values = _order.along(asked, taken, least_first=(least_first,))[..., 0, :]
    fall = (values[..., :1] - values).mean(-1)
    return Curve(values, fall, _order.share(asked, taken))


def selectivity(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
    targets: Targets = None,
    *,
    window: int | tuple[int, int] = 4,
    steps: int | None = None,
    fill: Any = 0.0,
    probability: bool = False,
    batch_size: int | None = None,
) -> Curve:
    """Return the score while windows are set to zero, most relevant first; a lower area is better.

    Args:
        model: As for `deletion`.
        images: As for `deletion`.
        maps: As for `deletion`; windows are ordered by their mean.
        targets: As for `deletion`.
        window: Rows and columns of a window: 4 in the paper, for images of 28 x 28 pixels.
        steps: Number of steps; None: one for each window, at most 196.
        fill: As for `deletion`.
        probability: True takes the probability of classes instead of the score.
        batch_size: As for `deletion`.

    Returns:
        `Curve` with `curve`, `area` (under the curve) and `share`; NaN for a constant map.

    Raises:
        TypeError: As `deletion` does.
        ValueError: As `deletion` does, or if a window is larger than the image.

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
    size, window = images.shape[1:3], checks.pair(window, "window")
    labels = _hidden.windows(size, window)
    if window[0] > size[0] or window[1] > size[1] or labels[-1, -1] == 0:
        raise ValueError(f"`window` must be smaller than the image, {size}; got {window}")
    count = int(labels[-1, -1]) + 1
    return _hidden.ask(
        model, images, maps, targets, segments=np.asarray(labels), num_segments=count, **options
    )


def irof(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
    targets: Targets = None,
    *,
    segments: Int[ArrayLike, "batch height width"],
    fill: Any = "mean",
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Curve:
    """Return the fraction of the score that is left as superpixels are removed; a higher area is better.

    The most relevant go first. The curve is F(x^(l)) / F(x^(0)) after l of L superpixels; the area is that
    over the curve, 1 less the area under it: 1 at most, negative if the score rises. Divided by a small score
    it may be of any size.

    Args:
        model: As for `deletion`.
        images: As for `deletion`.
        maps: As for `deletion`; superpixels are ordered by the mean of the map.
        targets: As for `deletion`.
        segments: Superpixels, int [batch, height, width], those of `jaxai.segment(photos, method="slic")` in
            the paper.
        fill: As for `deletion`; the image's mean colour by default.
        num_segments: As for `deletion`.
        key: As for `deletion`.
        probability: As for `deletion`.
        batch_size: As for `deletion`.

    Returns:
        `Curve` with `curve`, `area` (over the curve) and `share`; NaN for a constant map.

    Raises:
        TypeError: As `deletion` does.
        ValueError: As `deletion` does.

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


class Road(NamedTuple):
    """Confidence and accuracy as pixels are removed and imputed, in both orders.

    Attributes:
        gain: The mean over shares of the confidence least first less most first, float32 [batch] ([batch, k]
            for k targets per image). pytorch-grad-cam's ROADCombined is half of it.
        most_first: Confidence, the most relevant pixels gone, float32 [batch, shares] or [batch, k, shares].
        least_first: The same, the least relevant pixels gone.
        most_first_right: 1 where the target is still the top class, 0 where not, NaN for callable targets.
        least_first_right: The same, the least relevant pixels gone. Means over many images are accuracies.
        share: The shares removed, float32 [shares].
    """

    gain: Float[Array, "batch *k"]
    most_first: Float[Array, "batch *k shares"]
    least_first: Float[Array, "batch *k shares"]
    most_first_right: Float[Array, "batch *k shares"]
    least_first_right: Float[Array, "batch *k shares"]
    share: Float[Array, " shares"]


def road(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch *k height width"],
    targets: Targets = None,
    *,
    key: jax.Array,
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    noise: float = 0.01,
    fill: Any = "linear",
    probability: bool = True,
    batch_size: int | None = None,
) -> Road:
    """Return confidence and accuracy with shares of the pixels removed and imputed; a higher gain is better.

    A removed pixel is the weighted mean of its neighbours (1/6 at an edge, 1/12 at a corner) plus noise, so
    that neither the border of what is removed nor its shape tells the class. The linear system is solved
    by conjugate gradients.

    Args:
        model: As for `deletion`.
        images: As for `deletion`.
        maps: As for `deletion`.
        targets: As for `deletion`.
        key: Randomness of the noise; a typed key.
        shares: Of pixels removed, each between 0 and 1. pytorch-grad-cam's by default.
        noise: Standard deviation of what is added to imputed pixels: the authors' 0.01.
        fill: As for `deletion`.
        probability: As for `deletion`.
        batch_size: As for `deletion`.

    Returns:
        `Road` with `gain`, `most_first`, `least_first`, `most_first_right`, `least_first_right` and `share`;
        NaN for a constant map.

    Raises:
        TypeError: As `deletion` does.
        ValueError: As `deletion` does, or if a share is not between 0 and 1.

    References:
        Rong et al.: A Consistent and Efficient Evaluation Strategy for Attribution Methods. ICML 2022, arXiv
        2202.00449, section 4.2.
    """
    shares = tuple(checks.number(share, "shares", "(0, 1)") for share in shares)
    if not shares:
        raise ValueError("`shares` must hold at least one number; got none")
    noise = checks.number(noise, "noise", "[0, inf]") if fill == "linear" else 0.0
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        key=checks.key(key),
        noise=noise,
    )
    pixels = _hidden.unit_count(asked)
    taken = jnp.asarray(np.array([int(share * pixels) for share in shares], np.int32))
    taken = jnp.broadcast_to(taken, (asked.images.shape[0], len(shares)))
    values, right = _order.along(asked, taken, least_first=(False, True), top=True)
    most, least = values[..., 0, :], values[..., 1, :]
    return Road((least - most).mean(-1), most, least, right[..., 0, :], right[..., 1, :], taken[0] / pixels)
