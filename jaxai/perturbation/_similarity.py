"""Targets for detectors: how much a detector's proposals look like one detection (D-RISE)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import ArrayLike, Float


def detection_similarity(
    box: Float[ArrayLike, "4"],
    classes: Float[ArrayLike, "classes"],
) -> Partial:
    """Return a target that says how well some proposal of a detector matches one detection.

    Pass it as `targets` to any method of this family: with `jaxai.rise` it is D-RISE. The model must return
    proposals [batch, proposals, 5 + classes]: the box (left, top, right, bottom), the probability of an
    object, and the classes' probabilities. A proposal's similarity is the intersection over union of the
    boxes, times the probability of an object, times the cosine between the classes; the best proposal
    counts.

    Args:
        box: The detection's left, top, right and bottom edge, in the proposals' unit.
        classes: Its class probabilities, or a one-hot vector.

    Returns:
        A callable target, `proposals -> float[batch]` in [0, 1].

    Raises:
        ValueError: If the box has no area, or the shapes are wrong.

    References:
        Petsiuk et al.: Black-box Explanation of Object Detectors via Saliency Maps. CVPR 2021, arXiv
        2006.03204, equations 2 to 5.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxai.perturbation import detection_similarity
        >>> target = detection_similarity([0, 0, 2, 2], [1, 0])
        >>> proposals = jnp.array([[[0.0, 0, 2, 1, 0.5, 1, 0], [5, 5, 6, 6, 1, 1, 0]]])
        >>> target(proposals).tolist()  # half the area, half sure
        [0.25]
    """
    box, classes = jnp.asarray(box, jnp.float32), jnp.asarray(classes, jnp.float32)
    if box.shape != (4,) or classes.ndim != 1:
        raise ValueError(f"`box` must be [4] and `classes` [classes]; got {box.shape} and {classes.shape}")
    if not isinstance(box, Tracer) and not ((box[2] > box[0]) & (box[3] > box[1])):
        raise ValueError(f"`box` must be left, top, right, bottom with an area; got {box.tolist()}")
    return Partial(_similarity, box, classes)


def _similarity(box: jax.Array, classes: jax.Array, proposals: Any) -> jax.Array:
    if proposals.ndim != 3 or proposals.shape[2] != 5 + classes.shape[0]:
        raise ValueError(
            f"the model must return proposals [batch, proposals, {5 + classes.shape[0]}];"
            f" got shape {proposals.shape}"
        )
    proposals = proposals.astype(jnp.float32)
    corners, certainty, given = proposals[..., :4], proposals[..., 4], proposals[..., 5:]
    low = jnp.maximum(corners[..., :2], box[:2])
    high = jnp.minimum(corners[..., 2:], box[2:])
    common = jnp.prod(jnp.maximum(high - low, 0), axis=-1)
    area = jnp.prod(jnp.maximum(corners[..., 2:] - corners[..., :2], 0), axis=-1)
    union = area + jnp.prod(box[2:] - box[:2]) - common
    norm = jnp.linalg.norm(given, axis=-1) * jnp.linalg.norm(classes)
    cosine = jnp.where(norm > 0, given @ classes / jnp.where(norm > 0, norm, 1), 0)
    return (common / union * certainty * cosine).max(-1)
