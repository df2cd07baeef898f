"""LIME: a linear model of the score as a function of which superpixels are shown."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from .._frame import checks
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _designs, _fills, _kernels, _lime_fit, _regression, _scoring, _segments, _selection
from ._explanation import LimeExplanation

# Masks between two checks of the standard error.
_ROUND = 128

LIME_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "lime": MappingProxyType({}),
        "captum": MappingProxyType(
            {
                "sampling": "uniform",
                "num_samples": 25,
                "fill": 0.0,
                "distance": "pixel_cosine",
                "kernel_width": 1.0,
                "regression": "lasso",
                "alpha": 0.01,
            }
        ),
        "xplique": MappingProxyType(
            {
                "sampling": "uniform",
                "num_samples": 150,
                "fill": 0.5,
                "distance": "pixel_euclidean",
                # Xplique's kernel is exp(-d^2 / 45^2), without our factor 2.
                "kernel_width": 45.0 / math.sqrt(2.0),
                "alpha": 2.0,
            }
        ),
    }
)


@describes(
    title="LIME",
    result="segments",
    cost=lambda o: Passes(o.num_samples),
    unit="change of probability",
    signed=True,
    explains="probability",
)
def lime(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "..."],
    key: jax.Array | None = None,
    num_samples: int = 1000,
    masks: Real[ArrayLike, "*each samples segments"]
    | Bool[ArrayLike, "*each samples segments"]
    | None = None,
    sampling: str = "lime",
    fill: Any = "mean",
    distance: str = "mask_cosine",
    kernel_width: float = 0.25,
    regression: str = "ridge",
    alpha: float = 1.0,
    num_features: int | None = None,
    feature_selection: str = "auto",
    tolerance: float | None = None,
    num_segments: int | None = None,
    batch_size: int | None = None,
) -> LimeExplanation:
    """Explain scores by a weighted linear model of which superpixels are shown.

    The defaults are `lime_image`'s: a fair coin per superpixel, with a first mask that shows everything;
    hidden superpixels take their mean colour; weights exp(-d^2 / (2 kernel_width^2)) of the cosine distance
    between masks; ridge regression with an intercept. Probabilities are explained (see `jaxai.targets`). All
    images and all targets share the forward passes and, with equal masks, the factorisation.

    `LIME_PRESETS["captum"]` and `LIME_PRESETS["xplique"]` hold the keywords that follow those libraries:
    `lime(..., **LIME_PRESETS["captum"])`. Both explain raw scores (pass a callable target to do so);
    Xplique's grey fill and distance are for pixels in [0, 1].

    Args:
        key: Randomness of the masks; a typed key. Not needed if `masks` is given (unless `fill` is noise).
        num_samples: Number of masks.
        masks: Masks in [0, 1] instead of random ones: [samples, S] for all images, or [batch, samples, S].
        sampling: `"lime"`; `"uniform"`, without the mask that shows everything; `"paired"`, masks and their
            complements; `"stratified"`, also with numbers of shown superpixels spread evenly over their
            distribution; `"glime"`, masks drawn according to the kernel and weighted equally, in pairs from
            the two ends of a random order. All have the same limit; the last three reach it with fewer masks.
        distance: `"mask_cosine"`, or `"pixel_cosine"` or `"pixel_euclidean"` between images.
        kernel_width: Width of the kernel, in the unit of the distance.
        regression: `"ridge"`, or `"lasso"` (scikit-learn's objective, by coordinate descent).
        alpha: Strength of the penalty.
        num_features: Let each target's model use at most this many superpixels; None means all.
        feature_selection: How these are chosen: `"forward_selection"`, `"highest_weights"`, `"lasso_path"`,
            `"none"`, or `"auto"` (forward selection up to 6, else highest weights).
        tolerance: Draw masks in rounds and stop as soon as every standard error is known and at most this;
            `num_samples` is then the maximum. Not under `jit`.

    Returns:
        `LimeExplanation` with `weights` [batch, S], `intercept` and `score` (weighted R^2) [batch],
        `standard_error` [batch, S] (the expected deviation of the weights from the limit of infinitely many
        masks, including the penalty's shrinkage), and the properties `heatmap` and `mask(...)`. For k classes
        per image there is an axis k after the batch.

    Warns:
        RuntimeWarning: If there are too few masks to estimate the standard error of an image, which is then
            NaN.

    Raises:
        ValueError: If the masks are all equal, or the regression is singular (only with a tiny `alpha`).

    References:
        Ribeiro, Singh, Guestrin: "Why Should I Trust You?": Explaining the Predictions of Any Classifier.
        KDD 2016, arXiv 1602.04938, equation 2 and algorithm 1.
        Rashid et al.: Using Stratified Sampling to Improve LIME Image Explanations. AAAI 2024, arXiv
        2403.17742. Tan, Tian, Li: GLIME: General, Stable and Local LIME Explanation. NeurIPS 2023, arXiv
        2311.15722, section 4.1 (GLIME-Binomial).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> halves = jnp.array([[0, 0, 1, 1]])
        >>> e = jaxai.lime(lambda x: x.sum((1, 2)), jnp.ones((1, 1, 4, 1)), lambda scores: scores[:, 0],
        ...     segments=halves, key=jax.random.key(0), fill=0.0, num_samples=50, alpha=0.0)
        >>> e.weights.round(3).tolist()
        [[2.0, 2.0]]
    """
    _check_options(sampling, distance, regression, feature_selection, masks is not None)
    model, images, targets = _scoring.prepare(model, images, targets, probability=True, plane=False)
    superpixels = _segments.prepare(segments, images, num_segments)
    labels, count, present = superpixels.labels, superpixels.count, superpixels.present
    width = _positive_number(kernel_width, "kernel_width")
    # Algorithm 1: masks z' around the image, which shows all of its superpixels ...
    if masks is not None:
        sampling = "given"
        shown = _designs.given(masks, images.shape[0], count)
    else:
        shown = _drawn(key, present, width, sampling, num_samples, shared=not superpixels.padded)
    if tolerance is not None and isinstance(shown, Tracer):
        raise TypeError("`tolerance` needs concrete arguments: the number of masks depends on the results")
    # ... the images z that they produce, and the distances of those from the image ...
    background = _fills.background(fill, images, labels, count, key=key)
    sums = None if distance == "mask_cosine" else _kernels.moments(images, background, labels, count=count)
    options: dict[str, Any] = {
        "shared": not superpixels.padded,
        "distance": distance,
        "loss": regression,
        "selection": _selection.resolve(feature_selection, _number(num_features), count),
        "num_features": num_features,
        "constant_weight": sampling == "glime",
        "clusters": 2 if sampling in _designs.IN_PAIRS else 1,
    }
    total = shown.shape[-2]
    size = total if tolerance is None else min(total, _ROUND)
    chunk = _scoring.in_flight(model, images, batch_size, images.shape[0] * size)
    targets = _scoring.frozen(model, images, targets, chunk)
    ask = partial(_scoring.of_masks, model, images, background, labels, batch_size=chunk, probability=True)
    used, predictions, fit = 0, None, None
    while used < total:
        # ... their scores f(z), of `size` masks at a time ...
        predictions = _and_next(predictions, shown, size, lambda some: ask(masks=some, targets=targets))
        used = predictions.shape[1]
        # ... and equation 2, argmin_g sum_z pi(z) (f(z) - g(z'))^2 + Omega(g).
        fit = _lime_fit.fit_images(
            shown,
            _filled(predictions, total),
            present,
            sums,
            width,
            np.float32(alpha),
            np.int32(used),
            **options,
        )
        if tolerance is not None and _settled(fit, tolerance):
            break
    assert fit is not None and predictions is not None
    _lime_fit.check_solved(fit)
    _regression.warn_unknown(fit.standard_error, used, present)
    return LimeExplanation(
        weights=fit.weights,
        intercept=fit.intercept,
        score=fit.score,
        standard_error=fit.standard_error,
        segments=labels,
        masks=shown[..., :used, :],
        predictions=predictions,
        targets=targets.plain,
    )


def _drawn(key, present, width, sampling, num_samples, *, shared):
    """Return masks of a design, from checked arguments."""
    if key is None:
        raise TypeError("`key` is needed to draw masks, jax.random.key(seed); got None")
    num_samples = checks.positive(num_samples, "num_samples")
    if num_samples < 2:
        raise ValueError(f"`num_samples` must be at least 2; got {num_samples}")
    return _designs.draw(
        checks.key(key), present, width, sampling=sampling, samples=num_samples, shared=shared
    )


def _and_next(
    before: jax.Array | None, masks: jax.Array, size: int, score: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Return scores [batch, masks so far, *k], including those of the next `size` masks."""
    used, total = 0 if before is None else before.shape[1], masks.shape[-2]
    # The last round starts earlier rather than being smaller, so that the model is compiled once.
    first = min(used, total - size)
    values = score(masks if size == total else masks[..., first : first + size, :])
    _scoring.check_finite(values)
    return values if before is None else jnp.concatenate([before, values[:, used - first :]], axis=1)


def _filled(predictions: jax.Array, total: int) -> jax.Array:
    """Return scores of all masks, with zeros for masks not scored, so that fits compile once."""
    missing = total - predictions.shape[1]
    return jnp.pad(predictions, [(0, 0), (0, missing), *[(0, 0)] * (predictions.ndim - 2)])


def _settled(fit, tolerance):
    """Return whether every standard error is known (NaN is not) and small enough."""
    return bool((np.asarray(fit.standard_error) <= tolerance).all())


def _check_options(sampling, distance, regression, feature_selection, given):
    checks.choice(sampling, "sampling", _designs.SAMPLING)
    checks.choice(distance, "distance", _kernels.DISTANCES)
    checks.choice(regression, "regression", _lime_fit.REGRESSIONS)
    checks.choice(feature_selection, "feature_selection", _selection.METHODS)
    if sampling == "glime" and distance != "mask_cosine" and not given:
        raise ValueError(
            f"`sampling='glime'` draws masks by their cosine distance; got distance={distance!r}"
        )


def _number(num_features):
    return None if num_features is None else checks.positive(num_features, "num_features")


def _positive_number(value, name):
    if isinstance(value, Tracer):
        return value
    if not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be a positive number; got {value!r}")
    return np.float32(value)
