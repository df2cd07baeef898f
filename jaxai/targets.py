"""Targets: what is explained. A class, a class per image, k classes per image, or a function of the outputs.

Every method takes `targets` in one of these forms:

- `None`: each image's top class;
- `int`: one class for all images;
- `int[batch]`: one class per image;
- `int[batch, k]`: k different classes per image; results gain an axis k after the batch. One-hot rows raise
  an error: pass `rows.argmax(-1)`;
- a callable `outputs -> float[batch]` of the model's outputs (segmentation, embeddings, contrasts,
  regressions, one of several outputs), which must treat each image independently.

Scores [batch, classes] are logits of exclusive classes. Methods that explain the probability of a class
follow one rule:

- several scores: their softmax;
- one score, [batch, 1]: its sigmoid, the probability of class 0;
- a model whose program ends in a softmax or a sigmoid returns probabilities: they are taken as they are, with
  a warning. So a network of independent labels that ends in sigmoids is explained label by label;
- a callable: its own value.

If the values look like probabilities but the program does not show that they are, a warning asks for a
callable target. The scores of a black box are probabilities if all of them lie in [0, 1] and each row sums to
1.

This module provides callables: a class over a region of a segmentation, a detection, the similarity to an
embedding, an embedding's length, the difference of two classes. Each is a pytree of its numbers, so that
another region or class does not recompile anything.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import ArrayLike, Bool, Float, Real

from ._frame import checks
from ._frame.targets import Targets as Targets

__all__ = ["Targets", "detection", "difference", "length", "likeness", "region"]


def region(
    class_: int | None,
    mask: Bool[ArrayLike, "height width"] | Real[ArrayLike, "height width"],
    *,
    axis: int = -1,
) -> Partial:
    """Return a target for segmentation: the mean score of a class over a region.

    The model must return scores [batch, height, width, classes], or maps [batch, height, width] without
    classes.

    Args:
        class_: The class; NaN results if it does not exist. None for maps.
        mask: The region, the same for all images: bool, or weights of at least zero, of the scores' size.
        axis: The axis of the classes: -1, or 1 for scores [batch, classes, height, width], which files of
            PyTorch's networks return.

    Returns:
        A callable target, `scores -> float[batch]`.

    Raises:
        ValueError: If the mask is empty, has negative weights or is not [height, width], or `axis` is 2.

    References:
        Vinogradova, Dibrov, Myers: Towards Interpretable Semantic Segmentation via Gradient-weighted Class
        Activation Mapping. AAAI 2020, arXiv 2002.11434, equation 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> target = jaxai.targets.region(1, jnp.array([[True, False]]))
        >>> target(jnp.array([[[[0.0, 3.0], [0.0, 5.0]]]])).tolist()
        [3.0]
    """
    weights = jnp.asarray(mask, jnp.float32)
    if weights.ndim != 2:
        raise ValueError(f"`mask` must be [height, width]; got shape {weights.shape}")
    if not isinstance(weights, Tracer) and not (bool((weights >= 0).all()) and float(weights.sum()) > 0):
        raise ValueError("`mask` must mark a pixel, by weights of at least zero")
    if axis not in (-1, 3, 1):
        raise ValueError(f"`axis` must be -1 or 1; got {axis!r}")
    if class_ is None:
        return Partial(_region_of_map, weights)
    return Partial(_region_first if axis == 1 else _region, _class(class_, "class_"), weights)


def _region_of_map(weights: jax.Array, values: Any) -> jax.Array:
    if jnp.shape(values)[1:] != weights.shape:
        raise ValueError(
            f"the model must return maps [batch, {weights.shape[0]}, {weights.shape[1]}] for this mask;"
            f" got shape {jnp.shape(values)}"
        )
    return jnp.tensordot(values.astype(jnp.float32), weights / weights.sum(), axes=2)


def _region(class_: jax.Array, weights: jax.Array, scores: Any) -> jax.Array:
    if jnp.ndim(scores) != 4 or scores.shape[1:3] != weights.shape:
        raise ValueError(
            f"the model must return scores [batch, {weights.shape[0]}, {weights.shape[1]}, classes] for this"
            f" mask; got shape {jnp.shape(scores)}"
        )
    return jnp.tensordot(_of(class_, scores.astype(jnp.float32)), weights / weights.sum(), axes=2)


def _region_first(class_: jax.Array, weights: jax.Array, scores: Any) -> jax.Array:
    if jnp.ndim(scores) != 4 or scores.shape[2:] != weights.shape:
        raise ValueError(
            f"the model must return scores [batch, classes, {weights.shape[0]}, {weights.shape[1]}] for this"
            f" mask; got shape {jnp.shape(scores)}"
        )
    return _region(class_, weights, jnp.moveaxis(scores, 1, -1))


def difference(class_: int, other: int) -> Partial:
    """Return a target that contrasts two classes: the score of one minus that of the other.

    Args:
        class_: The explained class; NaN results if it does not exist.
        other: The class to contrast it with.

    Returns:
        A callable target, `scores [batch, classes] -> float[batch]`.

    Raises:
        ValueError: If a class is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.targets.difference(2, 0)(jnp.array([[1.0, 0.0, 5.0]])).tolist()
        [4.0]
    """
    return Partial(_difference, _class(class_, "class_"), _class(other, "other"))


def _difference(class_: jax.Array, other: jax.Array, scores: Any) -> jax.Array:
    scores = _scores(scores)
    return _of(class_, scores) - _of(other, scores)


def likeness(embedding: Float[ArrayLike, " features"]) -> Partial:
    """Return a target for encoders: the cosine between their output and an embedding.

    The embedding is that of another image, or of a text (by CLIP's text encoder).

    Args:
        embedding: float [features], not necessarily normalised.

    Returns:
        A callable target, `embeddings [batch, features] -> float[batch]` in [-1, 1].

    Raises:
        ValueError: If the embedding is not [features], is not finite or is zero.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.targets.likeness(jnp.array([4.0, 0.0]))(jnp.array([[2.0, 0.0], [0.0, 3.0]])).tolist()
        [1.0, 0.0]
    """
    wanted = jnp.asarray(embedding, jnp.float32)
    if wanted.ndim != 1:
        raise ValueError(f"`embedding` must be [features]; got shape {wanted.shape}")
    if not isinstance(wanted, Tracer) and not 0 < float(jnp.linalg.norm(wanted)) < np.inf:
        raise ValueError("`embedding` must be finite, and not zero")
    return Partial(_likeness, wanted / jnp.linalg.norm(wanted))


def _likeness(wanted: jax.Array, found: Any) -> jax.Array:
    if jnp.ndim(found) != 2 or found.shape[1] != wanted.shape[0]:
        raise ValueError(
            f"the model must return embeddings [batch, {wanted.shape[0]}]; got shape {jnp.shape(found)}"
        )
    found = found.astype(jnp.float32)
    square = jnp.square(found).sum(-1)
    return jnp.where(square > 0, found @ wanted / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def length(features: Float[ArrayLike, "batch ..."]) -> Float[jax.Array, " batch"]:
    """Return the length of an encoder's output: how much of anything it finds.

    It is a target itself: `jaxai.saliency(encoder, images, jaxai.targets.length)`.

    Args:
        features: Embeddings [batch, features], or maps of features [batch, height, width, channels].

    Returns:
        float[batch], the root of the sum of squares.

    Raises:
        ValueError: If there are no features.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.targets.length(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [5.0, 0.0]
    """
    if jnp.ndim(features) < 2:
        raise ValueError(f"the model must return features [batch, ...]; got shape {jnp.shape(features)}")
    found = jnp.asarray(features, jnp.float32)
    square = jnp.square(found).reshape(found.shape[0], -1).sum(-1)
    # The length has no gradient at zero; it is defined as zero rather than NaN.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def detection(
    box: Float[ArrayLike, "4"],
    classes: Float[ArrayLike, "classes"],
    *,
    boxes: str = "xyxy",
    axis: int = -1,
    certainty: str | None = None,
) -> Partial:
    """Return a target that measures how well the best proposal of a detector matches one detection.

    With `jaxai.rise` it is D-RISE. A proposal's similarity is the intersection over union of the boxes, times
    the probability of an object, times the cosine between the class vectors; the best proposal counts.

    The model returns proposals before any suppression, either one array [batch, proposals, 5 + classes] of
    boxes, the probability of an object and the classes' probabilities (YOLOv5), or [batch, proposals,
    4 + classes] without the probability of an object (YOLOv8, with `axis=1`); or a pair of boxes [batch,
    proposals, 4] and probabilities [batch, proposals, classes] (SSD, RetinaNet, DETR).

    Args:
        box: The detection's left, top, right and bottom edge, in the proposals' unit.
        classes: Its class probabilities, or a one-hot vector.
        boxes: The numbers of a proposal's box: `"xyxy"`, left, top, right, bottom; `"xywh"`, left, top,
            width, height; `"cxcywh"`, the centre, width, height.
        axis: The axis of a proposal's numbers: -1, or 1 for arrays [batch, numbers, proposals].
        certainty: What takes the place of the probability of an object, where the model returns none:
            `"largest"`, the largest probability of a class, for independent classes (sigmoids: YOLOv8,
            RetinaNet), of whose size the cosine says nothing; `"none"` as in the paper, for classes of which
            one is the background (a softmax: SSD, DETR).

    Returns:
        A callable target, `proposals -> float[batch]` in [0, 1].

    Raises:
        ValueError: If the box has no area, an option does not exist or is missing, or the shapes are wrong.

    References:
        Petsiuk et al.: Black-box Explanation of Object Detectors via Saliency Maps. CVPR 2021, arXiv
        2006.03204, equations 2 to 5.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> target = jaxai.targets.detection([0, 0, 2, 2], [1, 0])
        >>> proposals = jnp.array([[[0.0, 0, 2, 1, 0.5, 1, 0], [5, 5, 6, 6, 1, 1, 0]]])
        >>> target(proposals).tolist()  # half the area, half sure
        [0.25]
    """
    checks.choice(boxes, "boxes", tuple(_CORNERS))
    if axis not in (-1, 1):
        raise ValueError(f"`axis` must be -1 or 1; got {axis!r}")
    box, classes = jnp.asarray(box, jnp.float32), jnp.asarray(classes, jnp.float32)
    if box.shape != (4,) or classes.ndim != 1:
        raise ValueError(f"`box` must be [4] and `classes` [classes]; got {box.shape} and {classes.shape}")
    if not isinstance(box, Tracer) and not ((box[2] > box[0]) & (box[3] > box[1])):
        raise ValueError(f"`box` must be left, top, right, bottom with an area; got {box.tolist()}")
    # One function per form, so that another box of the same form recompiles nothing.
    if certainty is not None:
        checks.choice(certainty, "certainty", ("largest", "none"))
    return Partial(_detections[boxes, axis, certainty], box, classes)


def _halves(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
    return numbers[..., :2], numbers[..., 2:]


def _from_corner(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
    low, size = _halves(numbers)
    return low, low + size


def _from_centre(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
    centre, size = _halves(numbers)
    return centre - size / 2, centre + size / 2


_CORNERS = {"xyxy": _halves, "xywh": _from_corner, "cxcywh": _from_centre}


def _detection(
    box: jax.Array,
    classes: jax.Array,
    proposals: Any,
    *,
    corners: Callable[..., Any],
    axis: int,
    certainty: str | None,
) -> jax.Array:
    numbers, sure, given = _proposals(proposals, classes.shape[0], axis)
    if (sure is None) != (certainty is not None):
        wanted = f"the probability of an object: `certainty` must be None; got {certainty!r}"
        if sure is None:
            wanted = "no probability of an object: `certainty` must be 'largest' for independent classes, or"
            wanted += " 'none' where one of them is the background"
        raise ValueError(f"the model returns {wanted}")
    if sure is None:
        sure = given.max(-1) if certainty == "largest" else 1.0
    (low, high), (left_top, right_bottom) = corners(numbers), _halves(box)
    area = jnp.prod(jnp.maximum(high - low, 0), axis=-1)
    shared = jnp.minimum(high, right_bottom) - jnp.maximum(low, left_top)
    common = jnp.prod(jnp.maximum(shared, 0), axis=-1)
    union = area + jnp.prod(right_bottom - left_top) - common
    norm = jnp.linalg.norm(given, axis=-1) * jnp.linalg.norm(classes)
    cosine = jnp.where(norm > 0, given @ classes / jnp.where(norm > 0, norm, 1), 0)
    return (common / union * sure * cosine).max(-1)


_detections = {
    (name, axis, certainty): partial(_detection, corners=corners, axis=axis, certainty=certainty)
    for name, corners in _CORNERS.items()
    for axis in (-1, 1)
    for certainty in (None, "largest", "none")
}


def _proposals(found: Any, count: int, axis: int) -> tuple[jax.Array, Any, jax.Array]:
    """Return boxes [batch, proposals, 4], probabilities of objects or None, and those of `count` classes."""
    arrays: list[Any] = list(found) if isinstance(found, (tuple, list)) and len(found) == 2 else [found]
    if all(jnp.ndim(array) == 3 for array in arrays):
        arrays = [jnp.moveaxis(array.astype(jnp.float32), axis, -1) for array in arrays]
        sizes = [array.shape[2] for array in arrays]
        if sizes == [4, count] and arrays[0].shape[1] == arrays[1].shape[1]:
            return arrays[0], None, arrays[1]
        if sizes == [4 + count]:
            return arrays[0][..., :4], None, arrays[0][..., 4:]
        if sizes == [5 + count]:
            return arrays[0][..., :4], arrays[0][..., 4], arrays[0][..., 5:]
    shapes = ", ".join(str(tuple(jnp.shape(leaf))) for leaf in jax.tree.leaves(found))
    one = "[batch, proposals, {}]" if axis == -1 else "[batch, {}, proposals]"
    both = f"{one.format(4)} and {one.format(count)}"
    raise ValueError(
        f"the model must return proposals {one.format(5 + count)} or {one.format(4 + count)}, or a pair"
        f" {both} of boxes and probabilities, with `axis={axis}` and {count} classes; got shape {shapes}"
    )


def _class(value: Any, name: str) -> jax.Array:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 0:
        raise ValueError(f"`{name}` must be a class, an integer of at least 0; got {value!r}")
    return jnp.asarray(value, jnp.int32)


def _scores(scores: Any) -> jax.Array:
    if jnp.ndim(scores) != 2:
        raise ValueError(f"the model must return scores [batch, classes]; got shape {jnp.shape(scores)}")
    return jnp.asarray(scores, jnp.float32)


def _of(class_: jax.Array, scores: jax.Array) -> jax.Array:
    """Return the scores of a class, NaN if it does not exist: the class is unknown while tracing."""
    chosen = jnp.arange(scores.shape[-1]) == class_
    picked = jnp.where(chosen, scores, 0).sum(-1)
    return jnp.where(class_ < scores.shape[-1], picked, jnp.nan)
