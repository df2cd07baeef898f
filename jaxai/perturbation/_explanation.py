"""Results of the methods on superpixels."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from .._frame import shown
from .._frame.results import Result, drawing
from . import _segments


def chosen(
    values: jax.Array,
    segments: jax.Array,
    *,
    positive_only: bool,
    negative_only: bool,
    num_features: int,
    min_weight: float,
) -> jax.Array:
    """Mark the superpixels with the largest values as `ImageExplanation.get_image_and_mask` of lime does."""
    if positive_only and negative_only:
        raise ValueError("`positive_only` and `negative_only` exclude each other; got both")
    if positive_only:
        eligible = (values > 0) & (values > min_weight)
    elif negative_only:
        eligible = (values < 0) & (-values > min_weight)
    else:
        eligible = (values != 0) & (jnp.abs(values) >= min_weight)
    order = jnp.argsort(jnp.where(eligible, -jnp.abs(values), jnp.inf), axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)
    signs = jnp.sign(values) if not (positive_only or negative_only) else jnp.ones_like(values)
    marks = jnp.where(eligible & (rank < num_features), signs, 0).astype(jnp.int32)
    return _segments.paint(marks, segments)


_STRONGEST = 5


class _OnSuperpixels(Result):
    """Base of explanations with one value per superpixel."""

    segments: jax.Array

    @property
    def _values(self) -> jax.Array:
        raise NotImplementedError

    def __repr__(self) -> str:
        shape = getattr(self._values, "shape", ())
        about = [shown.counted(n, noun) for n, noun in zip(shape, ("image", "target"), strict=False)]
        about = [*about[: len(shape) - 1], *(shown.counted(n, "superpixel") for n in shape[-1:])]
        fit = shown.known(getattr(self, "score", None))
        about += [f"R^2 {fit.mean():.2f}"] if fit is not None and fit.size else []
        return f"{type(self).__name__}({', '.join(about)})"

    def _repr_html_(self) -> str | None:
        values, errors = shown.known(self._values), shown.known(getattr(self, "standard_error", None))
        if values is None or errors is None or values.ndim not in (2, 3):
            return None
        values, errors = (array.reshape(*array.shape[:1], -1, array.shape[-1]) for array in (values, errors))
        rows = []
        for image, target in np.ndindex(*values.shape[:2]):
            order = np.argsort(-np.abs(values[image, target]), kind="stable")[:_STRONGEST]
            listed = ((s, values[image, target, s], errors[image, target, s]) for s in order)
            texts = [f"{s}: {value:+.3g} \u00b1 {error:.2g}" for s, value, error in listed]
            rows.append([image, target, "; ".join(texts)])
        return shown.table(
            ["image", "target", "strongest superpixels: value and its error"], rows, caption=repr(self)
        )

    def plot(self, photos: Any = None) -> Any:
        """Return a Matplotlib figure of at most 16 maps; within two standard errors of zero they are hatched.

        Notebooks display it; `jaxai.plots.png` turns it into a file's bytes.

        Args:
            photos: Under the maps, [batch, height, width, 3] in [0, 1]; None leaves white.

        Raises:
            ValueError: If there are no values yet, as under `jit`, or the photos do not fit.
        """
        return drawing().superpixels(self, photos)

    @property
    def heatmap(self) -> jax.Array:
        """The values at the pixels of their superpixels, float32 [batch, *k, height, width]."""
        return _segments.paint(self._values, self.segments)

    def mask(
        self,
        *,
        positive_only: bool = True,
        negative_only: bool = False,
        num_features: int = 5,
        min_weight: float = 0.0,
    ) -> jax.Array:
        """Mark the most important superpixels, as in the figures of the paper.

        Args:
            positive_only: Only superpixels that support the target.
            negative_only: Only superpixels that oppose it.
            num_features: At most this many, those of largest magnitude first.
            min_weight: Only magnitudes above this.

        Returns:
            int32 [batch, *k, height, width]: 1 in the chosen superpixels, 0 elsewhere; with both signs
            (`positive_only=False`), -1 in those that oppose the target.
        """
        return chosen(
            self._values,
            self.segments,
            positive_only=positive_only,
            negative_only=negative_only,
            num_features=num_features,
            min_weight=min_weight,
        )


@register_dataclass
@dataclass(frozen=True, repr=False)
class LimeExplanation(_OnSuperpixels):
    """A linear model of each target's score as a function of the superpixels shown.

    Attributes:
        weights: Change of the score when a superpixel is shown, float32 [batch, S] ([batch, k, S] for k
            classes per image); 0 for padding where an image has fewer superpixels than S.
        intercept: float32 [batch] or [batch, k].
        score: Weighted R^2 of the fit, like `intercept`.
        standard_error: Root mean square deviation of the weights from their limit for infinitely many masks:
            the error due to the drawn masks (the leave-out sandwich estimate, CR3) and the shrinkage by the
            ridge penalty; shaped like `weights`. For the lasso and for chosen superpixels, that of least
            squares (the ridge) on the chosen superpixels. NaN if the masks are too few to estimate it.
        segments: The superpixels' labels, int32 [batch, height, width].
        masks: Which superpixels were shown, float32 [samples, S], or [batch, samples, S] if images have
            different masks.
        predictions: The target's score for every mask, float32 [batch, samples] or [batch, samples, k].
        targets: The classes explained, int32 [batch] or [batch, k], or the callable.
    """

    weights: Float[Array, "batch *k segments"]
    intercept: Float[Array, "batch *k"]
    score: Float[Array, "batch *k"]
    standard_error: Float[Array, "batch *k segments"]
    segments: Int[Array, "batch height width"]
    masks: Float[Array, "*batch samples segments"]
    predictions: Float[Array, "batch samples *k"]
    targets: Any

    @property
    def _values(self) -> jax.Array:
        return self.weights


@register_dataclass
@dataclass(frozen=True, repr=False)
class ShapleyExplanation(_OnSuperpixels):
    """Contributions of the superpixels to score(image) - score(everything hidden).

    Attributes:
        values: float32 [batch, S] ([batch, k, S] for k classes per image); they sum to `total - base`, and
            are 0 for padding where an image has fewer superpixels than S.
        base: The score with everything hidden, float32 [batch] or [batch, k].
        total: The score of the image, like `base`.
        standard_error: Root mean square error of the values due to random draws; shaped like `values`. 0 if
            everything is enumerated, NaN if too little is drawn to estimate it.
        segments: The superpixels' labels, int32 [batch, height, width].
        targets: The classes explained, int32 [batch] or [batch, k], or the callable.
    """

    values: Float[Array, "batch *k segments"]
    base: Float[Array, "batch *k"]
    total: Float[Array, "batch *k"]
    standard_error: Float[Array, "batch *k segments"]
    segments: Int[Array, "batch height width"]
    targets: Any

    @property
    def _values(self) -> jax.Array:
        return self.values


@register_dataclass
@dataclass(frozen=True, repr=False)
class SuperpixelDrops(_OnSuperpixels):
    """Drops of the score when a superpixel is replaced.

    Attributes:
        values: score(image) - score(changed image), float32 [batch, S] ([batch, k, S] for k classes per
            image); 0 for padding where an image has fewer superpixels than S.
        segments: The superpixels' labels, int32 [batch, height, width].
        targets: The classes explained, int32 [batch] or [batch, k], or the callable.
    """

    values: Float[Array, "batch *k segments"]
    segments: Int[Array, "batch height width"]
    targets: Any

    @property
    def _values(self) -> jax.Array:
        return self.values
