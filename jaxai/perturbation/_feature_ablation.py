"""Feature ablation: the drop of the score when one superpixel is replaced by a fill."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _fills, _scoring, _segments
from ._explanation import SuperpixelDrops


@describes(
    title="feature ablation",
    result="segments",
    cost=lambda o: Passes(o.segments + 1),
    unit="drop of the score",
    signed=True,
)
def feature_ablation(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "..."],
    fill: Any = 0.0,
    key: jax.Array | None = None,
    num_segments: int | None = None,
    batch_size: int | None = None,
) -> SuperpixelDrops:
    """Hide one superpixel at a time and return the drop of the score, score(image) - score(changed image).

    Args:
        targets: What to explain (see `jaxai.targets`); drops of logits, as in Captum's FeatureAblation. None
            is the top class of the image itself.

    Returns:
        `SuperpixelDrops` with `values` [batch, S] ([batch, k, S] for k classes per image) and `heatmap`.

    References:
        Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv 1311.2901,
        section 4.2, with regions for windows.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> image = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
        >>> drops = jaxai.feature_ablation(lambda x: x.sum((1, 2)), image, 0, segments=jnp.array([[0, 0, 1]]))
        >>> drops.values.tolist()
        [[3.0, 3.0]]
    """
    model, images, targets = _scoring.prepare(model, images, targets, plane=False)
    superpixels = _segments.prepare(segments, images, num_segments)
    background = _fills.background(fill, images, superpixels.labels, superpixels.count, key=key)
    count = superpixels.count
    # The last mask shows everything.
    masks = np.concatenate([1 - np.eye(count), np.ones((1, count))]).astype(np.float32)
    chunk = _scoring.in_flight(model, images, batch_size, images.shape[0] * (count + 1))
    targets = _scoring.frozen(model, images, targets, chunk)
    values = _scoring.of_masks(
        model,
        images,
        background,
        superpixels.labels,
        jnp.asarray(masks),
        targets,
        batch_size=chunk,
        probability=False,
    )
    _scoring.check_finite(values)
    return SuperpixelDrops(_drops(values), superpixels.labels, targets.plain)


@jax.jit
def _drops(values):
    """Return the last sample's value minus those of the others, [batch, *k, S]."""
    return jnp.moveaxis(values[:, -1:] - values[:, :-1], 1, -1)
