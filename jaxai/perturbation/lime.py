"""LIME: a linear model of the score as a function of which superpixels are shown."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .. import batching, checks
from ..targets import Targets
from . import designs, fills, kernels, regression, scoring
from . import segments as _segments
from .explanation import LimeExplanation


def lime(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    segments: Int[ArrayLike, "batch height width"],
    key: jax.Array | None = None,
    num_samples: int = 1000,
    masks: Float[ArrayLike, "*batch samples segments"] | None = None,
    fill: Any = "mean",
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    num_segments: int | None = None,
    batch_size: int | None = None,
) -> LimeExplanation:
    """Explain scores by a weighted linear model of which superpixels are shown.

    The defaults are `lime_image`'s: fair coins for each superpixel, the first mask showing everything;
    hidden superpixels take their mean colour; weights exp(-d^2 / (2 kernel_width^2)) of the cosine distance
    between masks; ridge regression with an intercept. Probabilities (the softmax of the scores) are
    explained. All images and all targets share the masks, the forward passes and the factorisation.

    Args:
        model: Callable pytree, `model(images) -> scores`, or `jaxai.perturbation.black_box(predict)`.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain (see `jaxai.targets`); a callable receives the raw scores (logits).
        segments: Labels from `jaxai.segment`, int [batch, height, width] (or [height, width] for all
            images).
        key: Randomness of the masks; a typed key. Not needed where `masks` is given (unless `fill` is
            noise).
        num_samples: Number of masks.
        masks: Masks in [0, 1] instead of random ones: [samples, S] for all images, or [batch, samples, S].
        fill: What hidden superpixels show, in the model's input space: `"mean"`, `"image_mean"`, `"blur"`,
            `"noise"`, `"neighbours"`, or a value that broadcasts to the images.
        kernel_width: Width of the kernel.
        alpha: Strength of the ridge penalty.
        num_segments: Static S, needed under `jit` and `vmap`; images with fewer superpixels are padded.
        batch_size: At most so many changed images in flight; None means 16 on the CPU, 128 on an
            accelerator. It never changes the result.

    Returns:
        `LimeExplanation` with `weights` [batch, S], `intercept` and `score` (weighted R^2) [batch],
        `standard_error` [batch, S], and the properties `heatmap` and `mask(...)`. For k classes an image
        there is an axis k after the batch.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, an image has a single superpixel or labels with gaps, the masks
            are all equal, the regression is singular (only with a tiny `alpha`), or the model returns NaN.

    References:
        Ribeiro, Singh, Guestrin: "Why Should I Trust You?": Explaining the Predictions of Any Classifier.
        KDD 2016, arXiv 1602.04938, equation 2 and algorithm 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> halves = jnp.array([[0, 0, 1, 1]])
        >>> e = jaxai.lime(lambda x: x.sum((1, 2)), jnp.ones((1, 1, 4, 1)), lambda scores: scores[:, 0],
        ...     segments=halves, key=jax.random.key(0), fill=0.0, num_samples=50, alpha=0.0)
        >>> e.weights.round(3).tolist()
        [[2.0, 2.0]]
    """
    model, images, targets = scoring.prepare(model, images, targets)
    superpixels = _segments.prepare(segments, images, num_segments)
    if masks is None:
        if key is None:
            raise TypeError("`key` is needed to draw masks, jax.random.key(seed); got None")
        num_samples = checks.positive(num_samples, "num_samples")
        if num_samples < 2:
            raise ValueError(f"`num_samples` must be at least 2; got {num_samples}")
        masks = designs.uniform(checks.key(key), num_samples, superpixels.count)
    else:
        masks = designs.given(masks, images.shape[0], superpixels.count)
    background = fills.background(fill, images, superpixels.labels, superpixels.count, key=key)
    chunk = batching.chunk_size(images.shape[0] * masks.shape[-2], checks.batch_size(batch_size))
    targets = scoring.frozen(model, images, targets, chunk)
    predictions = scoring.of_masks(
        model, images, background, superpixels.labels, masks, targets, batch_size=chunk, probability=True
    )
    scoring.check_finite(predictions)
    fit = _fit(
        masks,
        predictions,
        superpixels.present,
        np.float32(kernel_width),
        np.float32(alpha),
        shared=not superpixels.padded,
    )
    _check_solved(fit)
    return LimeExplanation(*fit, superpixels.labels, masks, predictions, targets)


class LimeFit(NamedTuple):
    """The surrogate: `weights` [..., S], `intercept` [...] and `score` [...] (weighted R^2)."""

    weights: jax.Array
    intercept: jax.Array
    score: jax.Array


def fit_lime(
    masks: Float[ArrayLike, "*batch samples segments"],
    scores: Float[ArrayLike, "..."],
    *,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
) -> LimeFit:
    """Fit LIME's weighted ridge regression to masks and scores that are already there.

    It is scikit-learn's `Ridge(alpha).fit(masks, scores, sample_weight)` with the weights of `lime_image`'s
    kernel, for all targets and images in one solve.

    Args:
        masks: [samples, S] for all images, or [batch, samples, S].
        scores: For masks [samples, S]: [samples], [samples, k], or (where the first axis is not as long as
            the masks) [batch, samples] or [batch, samples, k]. For masks with a batch: [batch, samples] or
            [batch, samples, k].
        kernel_width: Width of the kernel on the cosine distance of masks.
        alpha: Strength of the ridge penalty.

    Returns:
        `(weights, intercept, score)`: weights [*batch, *k, S], intercept and weighted R^2 [*batch, *k].

    Raises:
        ValueError: If shapes do not fit, values are not finite, masks are all equal, or the regression is
            singular.

    References:
        Ribeiro, Singh, Guestrin: "Why Should I Trust You?". KDD 2016, arXiv 1602.04938, equation 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> masks = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> weights, intercept, score = jaxai.fit_lime(masks, masks @ jnp.array([3.0, -1.0]), alpha=0.0)
        >>> [round(float(weight), 3) for weight in weights]
        [3.0, -1.0]
    """
    masks = jnp.asarray(masks, jnp.float32)
    scores = jnp.asarray(scores, jnp.float32)
    if masks.ndim not in (2, 3) or 0 in masks.shape:
        raise ValueError(f"`masks` must be [samples, S] or [batch, samples, S]; got shape {masks.shape}")
    samples = masks.shape[-2]
    single = masks.ndim == 2 and scores.ndim in (1, 2) and scores.shape[0] == samples
    batched = scores.ndim in (2, 3) and scores.shape[1] == samples
    if masks.ndim == 3:
        batched = batched and scores.shape[0] == masks.shape[0]
    if not (single or batched):
        raise ValueError(
            f"`scores` must have one value a mask; got shape {scores.shape} for masks {masks.shape}"
        )
    masks = designs.given(masks, masks.shape[0] if masks.ndim == 3 else 1, masks.shape[-1])
    scoring.check_finite(scores)
    predictions = scores[None] if single else scores
    present = jnp.ones((predictions.shape[0], masks.shape[-1]))
    fit = _fit(masks, predictions, present, np.float32(kernel_width), np.float32(alpha), shared=True)
    _check_solved(fit)
    first = (lambda x: x[0]) if single else (lambda x: x)
    return LimeFit(first(fit.weights), first(fit.intercept), first(fit.score))


def _check_solved(fit: regression.Fit) -> None:
    if not isinstance(fit.weights, jax.core.Tracer) and np.isnan(np.asarray(fit.weights)).any():
        raise ValueError(
            "the regression is singular: the masks do not tell the superpixels apart;"
            " draw more masks or raise `alpha`"
        )


@partial(jax.jit, static_argnames="shared")
def _fit(masks, predictions, present, kernel_width, alpha, *, shared):
    """Fit all images at once; with shared masks and no padding there is a single factorisation."""
    batch, samples, *rest = predictions.shape
    flat = predictions.reshape(batch, samples, -1)

    def solve(mask, scores, exists):
        weight = kernels.exponential(kernels.mask_cosine(mask, exists), kernel_width)
        return regression.ridge(mask, scores, weight, exists, alpha)

    if masks.ndim == 2 and shared:
        columns = jnp.moveaxis(flat, 0, 1).reshape(samples, -1)
        fit = solve(masks, columns, present[0])
    else:
        fit = jax.vmap(solve, (None if masks.ndim == 2 else 0, 0, 0))(masks, flat, present)
    return regression.Fit(
        *(x.reshape(batch, *rest, *shape) for x, shape in zip(fit, _shapes(masks), strict=True))
    )


def _shapes(masks):
    count = masks.shape[-1:]
    return count, (), (), count
