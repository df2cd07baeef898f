"""Faithfulness by regions: single regions, regions added one by one, the map as a mask."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Integer

from .. import maps as _display
from .._cpu import threefry
from .._frame import checks
from .._frame.contract import like
from .._frame.results import brief
from .._frame.targets import Targets
from ..perturbation import _scoring
from ..perturbation._scoring import Perturbation
from . import _hidden, _maps, _order, _statistics
from ._removal import deletion


class AverageDrop(NamedTuple):
    """The change of a probability when the map is used as a mask of the image.

    Attributes:
        drop: max(0, p - o) / p, float32 [batch] ([batch, k] for k targets per image); lower is better.
        increase: 1 where o > p, else 0; higher is better.
        gain: max(0, o - p) / (1 - p); higher is better.
    """

    drop: Float[Array, "batch *k"]
    increase: Float[Array, "batch *k"]
    gain: Float[Array, "batch *k"]

    __repr__ = brief


@like(deletion)
def faithfulness_estimate(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    fill: Any = 0.0,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Correlate the map's sum in each region with the drop of the probability without that region; 1 is best.

    Args:
        segments: The regions, int [batch, height, width]; None: a grid of 8 x 8 rectangles.
        probability: False takes the scores of classes themselves.

    Returns:
        float32 [batch], or [batch, k] for k targets per image, in [-1, 1]; NaN where nothing varies.

    References:
        Alvarez-Melis, Jaakkola: Towards Robust Interpretability with Self-Explaining Neural Networks.
        NeurIPS 2018, arXiv 1806.07538, section 5.2.
    """
    asked = _in_regions(
        model,
        images,
        maps,
        targets,
        segments=segments,
        fill=fill,
        num_segments=num_segments,
        key=key,
        probability=probability,
        batch_size=batch_size,
    )
    labels, count = asked.regions.labels, asked.regions.count
    values = _hidden.scores(asked, Perturbation(_alone, (), (labels,)), count)
    drops = _hidden.originals(asked)[..., None] - _hidden.classes_last(values)
    sums = _hidden.on_units(asked.maps, asked.units)
    return _statistics.pearson(sums, drops, _order.for_each(asked.regions.present, sums))


def _in_regions(model, images, maps, targets, *, segments, **options):
    images = checks.images(images)
    if segments is None:
        segments = _hidden.grid(images)
        options["num_segments"] = min(8, images.shape[1]) * min(8, images.shape[2])
    return _hidden.ask(model, images, maps, targets, segments=segments, **options)


def _alone(labels, pairs):
    owners, rows = pairs
    return labels[owners] == rows[:, None, None]


@like(deletion)
def monotonicity(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    fill: Any = 0.0,
    num_segments: int | None = None,
    key: jax.Array | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the fraction of steps in which the probability does not fall as regions are shown; 1 is best.

    Starting from `fill`, regions are shown one by one, the least relevant first. The paper asks whether the
    probability never falls, that is, whether the fraction is 1.

    Args:
        maps: As for `deletion`; regions are ordered by their mean.
        segments: The regions, int [batch, height, width]; None: a grid of 8 x 8 rectangles.
        fill: The initial content, as for `deletion`.
        probability: False takes the scores of classes themselves.

    Returns:
        float32 [batch], or [batch, k] for k targets per image, in [0, 1]; NaN for a constant map. If the
        score is a sum over regions, every order scores the fraction of regions with non-negative
        contribution.

    References:
        Arya et al.: One Explanation Does Not Fit All: A Toolkit and Taxonomy of AI Explainability Techniques.
        2019, arXiv 1909.03012, section 5.
        Luss et al.: Leveraging Latent Features for Local Explanations. KDD 2021, arXiv 1905.12698.
    """
    asked = _in_regions(
        model,
        images,
        maps,
        targets,
        segments=segments,
        fill=fill,
        num_segments=num_segments,
        key=key,
        probability=probability,
        batch_size=batch_size,
    )
    taken = _order.counts(asked, None, asked.regions.count)
    values = _order.along(asked, taken, least_first=(True,), reveal=True)[..., 0, :]
    moved = _order.for_each(jnp.diff(taken) > 0, values)
    steps = jnp.diff(values)
    kept = jnp.where(jnp.isnan(steps), jnp.nan, (steps >= 0).astype(jnp.float32))
    return jnp.where(moved, kept, 0).sum(-1) / moved.sum(-1)


@like(deletion)
def monotonicity_correlation(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    key: jax.Array,
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    num_samples: int = 10,
    num_segments: int | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Correlate the ranks of each region's magnitude and of the effect of replacing it by noise; 1 is best.

    Spearman's correlation, over regions, of |sum R| with E[(f(x) - f(x'))^2], where x' has uniform noise
    between the image's minimum and maximum in the region.

    Args:
        key: Randomness of the noise; a typed key.
        segments: The regions, int [batch, height, width], equally many in every image; None: a grid of 8 x 8
            rectangles.
        num_samples: Number of noise draws.
        probability: False takes the scores of classes themselves.

    Returns:
        float32 [batch], or [batch, k] for k targets per image, in [-1, 1]; NaN where nothing varies. A random
        map scores 0 if regions have equal sizes; larger regions weigh more in both quantities.

    Raises:
        ValueError: If images have different numbers of regions.

    References:
        Nguyen, Martinez: On Quantitative Aspects of Model Interpretability. 2020, arXiv 2007.07584, section
        3.2.
    """
    asked, square = effects(
        model,
        images,
        maps,
        targets,
        key=key,
        segments=segments,
        num_samples=num_samples,
        num_segments=num_segments,
        probability=probability,
        batch_size=batch_size,
    )
    return _statistics.spearman(jnp.abs(_hidden.on_units(asked.maps, asked.units)), square)


def effects(
    model: Any,
    images: Any,
    maps: Any,
    targets: Any,
    *,
    key: Any,
    segments: Any,
    num_samples: int,
    **options: Any,
) -> tuple[_hidden.Asked, jax.Array]:
    """Return the checked arguments, and E[(f(x) - f(x'))^2] for noise per region, [batch, *k, regions]."""
    asked = _in_regions(
        model, images, maps, targets, segments=segments, fill=0.0, key=checks.key(key), **options
    )
    labels, count = asked.regions.labels, asked.regions.count
    if asked.regions.padded and segments is not None and not isinstance(labels, Tracer):
        raise ValueError("`segments` must be as many in every image; pad none, or take a grid")
    draws = checks.positive(num_samples, "num_samples")
    total = len(asked.images) * count * draws
    values = _scoring.scores(
        asked.model,
        Perturbation(_noisy, (count, draws), (asked.images, labels, key)),
        asked.target,
        count=total,
        batch_size=min(asked.batch_size, total),
        probability=asked.probability,
    )
    _scoring.check_finite(values)
    values = values.reshape(len(asked.images), count, draws, *values.shape[1:])
    square = jnp.square(_hidden.originals(asked)[:, None, None] - values).mean(2)
    return asked, _hidden.classes_last(square)


def _noisy(count, draws, images, labels, key, indices):
    owners, rows = indices // (count * draws), indices % (count * draws)

    def one(image, labels, row):
        low, high = (edge((0, 1), keepdims=True).astype(jnp.float32) for edge in (image.min, image.max))
        drawn = threefry.uniform(jax.random.fold_in(key, row % draws), image.shape)
        noise = (low + (high - low) * drawn).astype(image.dtype)
        return jnp.where((labels == row // draws)[..., None], noise, image)

    return jax.vmap(one)(images[owners], labels[owners], rows), owners


@like(deletion)
def average_drop(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    fill: Any = 0.0,
    batch_size: int | None = None,
) -> AverageDrop:
    """Return how much of the probability is lost or gained when the map is used as a mask of the image.

    The map m, scaled to [0, 1] per image, mixes image and `fill`: x' = m x + (1 - m) fill; p is the
    probability of x and o that of x'. The mean of `drop` over images is the average drop, that of `increase`
    the average increase.

    Args:
        targets: As for `deletion`; a callable must return values in (0, 1).
        fill: As for `deletion`, without `"linear"`.

    Returns:
        `AverageDrop` with `drop`, `increase` and `gain`; NaN for a constant map.

    References:
        Chattopadhyay et al.: Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks. WACV
        2018, arXiv 1710.11063, section 5.1.
        Zhang et al.: Opti-CAM: Optimizing Saliency Maps for Interpretability. CVIU 2024, arXiv 2301.07002,
        section 4.1 (average gain).
    """
    if isinstance(fill, str) and fill == "linear":
        raise ValueError("`fill='linear'` needs pixels that are removed or not; a map is a matter of degree")
    asked = _hidden.ask(model, images, maps, targets, fill=fill, batch_size=batch_size, probability=True)
    flat = _maps.constant(asked.maps)
    target, repeat, restore = asked.target.each()
    copies = len(repeat(asked.images[:1, 0, 0, 0]))
    shown = _display.normalize(asked.maps).reshape(-1, *asked.maps.shape[-2:])
    hidden = Perturbation(_fading, (), (shown,))
    o = restore(_hidden.scores(asked, hidden, 1, target=target, copies=copies)[:, 0])
    p = _hidden.originals(asked)
    drop = jnp.maximum(p - o, 0) / jnp.where(p > 0, p, 1)
    gain = jnp.maximum(o - p, 0) / jnp.where(p < 1, 1 - p, 1)
    increase = (o > p).astype(jnp.float32)
    return AverageDrop(*(_maps.undefined(x, flat) for x in (drop, increase, gain)))


def _fading(shown, pairs):
    return 1 - shown[pairs[0]]
