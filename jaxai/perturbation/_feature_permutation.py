"""Feature permutation: the drop of the score when one superpixel comes from another image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame import checks
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _scoring, _segments
from ._explanation import SuperpixelDrops
from ._feature_ablation import _drops


@describes(
    title="feature permutation",
    result="segments",
    cost=lambda o: Passes(o.segments + 1),
    unit="drop of the score",
    signed=True,
    left_out="its values depend on the other photos of a batch",
)
def feature_permutation(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    segments: Integer[ArrayLike, "*batch height width"],
    key: jax.Array,
    num_segments: int | None = None,
    batch_size: int | None = None,
) -> SuperpixelDrops:
    """Fill one superpixel at a time with another image's pixels and return the drop of the score.

    The replacement is thus typical of the data, but results depend on the batch. For each superpixel the
    images are arranged in a random circle and each takes the pixels of the next, so none keeps its own
    pixels.

    Args:
        images: Model input, float [batch, height, width, channels], at least two.
        targets: What to explain (see `jaxai.targets`); drops of logits, as in Captum's FeaturePermutation.
            None is the top class of the image itself.
        key: Randomness of the circles; a typed key.

    Returns:
        `SuperpixelDrops` with `values` [batch, S] ([batch, k, S] for k classes per image) and `heatmap`.

    Raises:
        ValueError: If there is a single image.

    References:
        Fisher, Rudin, Dominici: All Models are Wrong, but Many are Useful. JMLR 2019, arXiv 1801.01489.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> images = jnp.array([[1.0, 2.0], [5.0, 2.0]]).reshape(2, 1, 2, 1)
        >>> drops = jaxai.feature_permutation(lambda x: x.sum((1, 2)), images, 0,
        ...     segments=jnp.array([[0, 1]]), key=jax.random.key(0))
        >>> drops.values.tolist()
        [[-4.0, 0.0], [4.0, 0.0]]
    """
    model, images, targets = _scoring.prepare(model, images, targets)
    batch = images.shape[0]
    if batch < 2:
        raise ValueError(f"`images` must be at least two, to take pixels from each other; got {batch}")
    superpixels = _segments.prepare(segments, images, num_segments)
    partners = _circles(checks.key(key), batch=batch, count=superpixels.count)
    total = batch * (superpixels.count + 1)
    chunk = _scoring.in_flight(model, images, batch_size, total)
    targets = _scoring.frozen(model, images, targets, chunk)
    values = _scoring.scores(
        model,
        _scoring.Perturbation(_exchanged, (), (images, superpixels.labels, partners)),
        targets,
        count=total,
        batch_size=chunk,
        probability=False,
    )
    values = values.reshape(batch, superpixels.count + 1, *values.shape[1:])
    _scoring.check_finite(values)
    return SuperpixelDrops(_drops(values), superpixels.labels, targets.plain)


@partial(jax.jit, static_argnames=("batch", "count"))
def _circles(key, *, batch, count):
    """Return the image from which each takes superpixel s, int32 [S + 1, batch]; in the last row, itself."""

    def one(index):
        order = jax.random.permutation(jax.random.fold_in(key, index), batch)
        return jnp.zeros(batch, jnp.int32).at[order].set(jnp.roll(order, -1).astype(jnp.int32))

    circles = jax.vmap(one)(jnp.arange(count))
    return jnp.concatenate([circles, jnp.arange(batch, dtype=jnp.int32)[None]])


def _exchanged(images, labels, partners, indices):
    """Make the changed images of flat indices of (image, superpixel) pairs."""
    owners, numbers = indices // partners.shape[0], indices % partners.shape[0]
    inside = labels[owners] == numbers[:, None, None]
    return jnp.where(inside[..., None], images[partners[numbers, owners]], images[owners]), owners
