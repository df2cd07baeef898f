"""Faithfulness by removal in the order of the map: how fast the score falls."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame.contract import like
from .._frame.results import brief, picture, plot, save, to_html
from .._frame.targets import Targets
from . import _hidden, _order
from ._order import Curve


class RelevanceGain(NamedTuple):
    """The symmetric relevance gain and its two curves.

    Attributes:
        gain: Area for least relevant first minus area for most relevant first, float32 [batch] ([batch, k]
            for k targets per image).
        most_first: The score with the most relevant removed first, float32 [batch, steps + 1] or [batch, k,
            ...].
        least_first: The same with the least relevant first.
        share: The share of pixels or superpixels removed so far, [batch, steps + 1].
    """

    gain: Float[Array, "batch *k"]
    most_first: Float[Array, "batch *k points"]
    least_first: Float[Array, "batch *k points"]
    share: Float[Array, "batch points"]

    __repr__ = brief
    plot, save, to_html, _repr_png_ = plot, save, to_html, picture


def deletion(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = "mean",
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Curve:
    """Return the score as pixels are removed, the most relevant first; a lower area is better.

    With x^(s) the image without the fraction s / steps of the most relevant pixels, the curve is p(x^(s)),
    and the area is computed by the trapezoidal rule over the share removed, in [0, 1] for probabilities.

    Args:
        model: Callable pytree, `model(images) -> scores`, or `jaxai.perturbation.black_box(predict)`.
        images: Model input, float [batch, height, width, channels].
        maps: Of any library: [batch, height, width], [batch, k, height, width] for k targets per image;
            channels after these are summed with their signs. Equal values are ordered in row-major order.
        targets: What the maps explain (see `jaxai.targets`). For classes, their probability; for a callable,
            its value.
        steps: Number of steps; None: one per row of the image (the paper's 224 for 224 x 224 pixels), or per
            superpixel.
        fill: Content of removed pixels, in the model's input space: a value that broadcasts to the images, or
            a name, see `jaxai.metrics`. The paper's zeros of normalised images are ImageNet's mean.
        segments: Superpixels to remove as a whole, ordered by the mean of the map; None: single pixels.
        num_segments: Static number of superpixels, needed under `jit` and `vmap`.
        key: Randomness of noisy fills.
        probability: False takes the scores of classes themselves.
        batch_size: At most this many changed images in flight; None chooses by size.

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


@like(deletion)
def insertion(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = "rise_blur",
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Curve:
    """Return the score as pixels are shown, the most relevant first; a higher area is better.

    Args:
        fill: The initial content, as for `deletion`; by default the paper's blur.

    Returns:
        `Curve` with `curve`, `area` (under the curve) and `share`; NaN for a constant map.

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


@like(deletion)
def relevance_gain(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    steps: int | None = None,
    fill: Any = "mean",
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> RelevanceGain:
    """Return how much faster the score falls most relevant first than least relevant first; higher is better.

    The gain is area(least first) - area(most first): 0 on average for a random order, whatever the fill, and
    in [-1, 1] for probabilities. Signs matter: evidence against the target is least relevant.

    Args:
        steps: As for `deletion`; the network runs 2 (steps + 1) times per image and target.
        fill: As for `deletion`; by default the paper's.
        segments: As for `deletion`; the paper removes superpixels.

    Returns:
        `RelevanceGain` with `gain`, `most_first`, `least_first` and `share`; NaN for a constant map.

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
