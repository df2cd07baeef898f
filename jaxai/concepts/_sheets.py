"""Concept sheets: where a concept is, what it looks like, and its effect on scores."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from .. import layers, maps
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.results import brief
from .._frame.spread import standard_error
from ..features import directions, visualize
from ..features._dream import identity
from ..features._visualize import small_is_meant
from ._codes import as_codes
from ._craft import Craft
from ._sae import Sae
from ._steer import steer


class ConceptSheet(NamedTuple):
    """A summary of a concept; `jaxai.plots.concept_sheet` draws it."""

    concept: int
    """Its index."""
    photos: Float[ndarray, "top height width channels"]
    """The photos that show it most, strongest first."""
    indices: ndarray
    """Their indices among the photos, int [top]."""
    amounts: ndarray
    """The largest code of each, [top]."""
    maps: Float[ndarray, "top height width"]
    """Maps of the concept on them, at the photos' size, in units of its code."""
    drawn: Float[ndarray, "side side channels"] | None
    """An image optimised to show it, in [0, 1]."""
    classes: ndarray | None
    """The classes that depend on it most, int [classes]; None for networks without classes."""
    effects: ndarray | None
    """Effect on each class's logit: the mean drop over these photos when the concept is removed."""
    errors: ndarray | None
    """Standard errors of these means; NaN for one photo."""
    factors: ndarray
    """Factors by which the concept is scaled in the curves."""
    curves: ndarray | None
    """Mean probability of each of the classes over these photos, [factors, classes]."""
    curve_errors: ndarray | None
    """Standard errors of these means; NaN for one photo."""

    __repr__ = brief


@completed
def concept_sheets(
    model: Callable[..., Any],
    photos: Float[Array, "batch height width channels"],
    concepts: Any,
    *,
    key: jax.Array,
    layer: str | None = None,
    which: int | Sequence[int] = 10,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    top: int = 6,
    num_classes: int = 4,
    factors: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0),
    size: int | None = None,
    steps: int = 128,
    batch_size: int | None = None,
) -> list[ConceptSheet]:
    """Describe concepts: strongest photos, maps, an optimised image, classes with errors, steering curves.

    Args:
        concepts: A `Craft`, an `Sae`, or directions [concepts, channels].
        key: Typed PRNG key of the optimised images.
        which: Indices of the concepts; or their number, the first of `strongest_concepts`.
        top: Number of photos per concept.
        num_classes: Number of classes per concept.
        factors: As in `steer`.
        size: Side of the optimised images; None is the side of the photos.
        steps: Steps of the optimised images; 0 leaves them out.

    Returns:
        A `ConceptSheet` for each concept, in the order of `which`.

    Raises:
        ValueError: If a concept does not exist, or the layer has no positions.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> photos = jax.random.uniform(jax.random.key(0), (8, 16, 16, 3))
        >>> [sheet] = jaxai.concepts.concept_sheets(
        ...     net, photos, jnp.eye(3), layer="features", which=[1], steps=0, key=jax.random.key(1))
        >>> sheet.classes[0].item(), sheet.maps.shape
        (1, (6, 16, 16))
    """
    checks.key(key)
    model, photos = _targets.as_model(model), checks.images(photos, "photos")
    prepared: Any = _targets.as_model(normalize or identity)
    layer = layers.resolve(model, layer or getattr(concepts, "layer", None), prepared(photos[:1]))
    codes, size = as_codes(concepts), size or min(photos.shape[1:3])
    chunk = batching.chunk_size(batch_size, model, photos)
    amounts = np.asarray(_amounts(model, photos, prepared, codes, layer=layer, batch_size=chunk))
    count = len(codes.directions)
    if isinstance(which, (int, np.integer)):
        chosen = strongest_concepts(concepts, amounts)[: checks.positive(which, "which")]
    else:
        chosen = np.asarray(which, np.int64)
    if chosen.ndim != 1 or not len(chosen) or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"`which` must be concepts 0 to {count - 1}; got {which!r}")
    drawn: Any = [None] * len(chosen)
    if checks.at_least(steps, "steps", 0):
        wanted = [directions.direction(layer, codes.directions[i], cosine_power=1.0) for i in chosen]
        options: dict[str, Any] = {"size": size, "steps": steps, "normalize": prepared}
        # Units whose receptive field exceeds the image are expected at the photos' own size.
        with small_is_meant():
            drawn = np.asarray(visualize(model, wanted, key=key, batch_size=batch_size, **options).images)
    top = min(checks.positive(top, "top"), len(photos))
    outputs = _targets.output_shapes(model, prepared(photos[:1]))
    classify = hasattr(outputs, "shape") and len(outputs.shape) == 2 and outputs.shape[1] > 1
    found = []
    for concept, image in zip(map(int, chosen), drawn, strict=True):
        best = np.argsort(-amounts[:, concept], kind="stable")[:top]
        some = photos[jnp.asarray(best)]
        where = _where(model, some, prepared, codes, jnp.int32(concept), layer=layer, batch_size=chunk)
        parts: Any = (None,) * 5
        if classify:
            x, scaled = prepared(some), (0.0, 1.0, *factors)
            scores = steer(model, x, concepts, concept, layer=layer, factors=scaled, batch_size=chunk)
            parts = _owed(np.asarray(scores), checks.positive(num_classes, "num_classes"))
        classes, effects, errors, curves, curve_errors = parts
        found.append(
            ConceptSheet(
                concept,
                np.asarray(some, np.float32),
                best,
                amounts[best, concept],
                np.asarray(where),
                image,
                classes,
                effects,
                errors,
                np.asarray(factors, np.float32),
                curves,
                curve_errors,
            )
        )
    return found


def strongest_concepts(concepts: Any, amounts: Any) -> ndarray:
    """Return the indices of concepts, the most important first.

    Concepts of a `Craft` are ordered by importance; those of an `Sae`, and directions, by their contribution
    to the activations, the mean square of their largest codes.

    Args:
        concepts: A `Craft`, an `Sae`, or directions.
        amounts: The largest code of each image, [images, concepts].
    """
    if isinstance(concepts, Craft):
        importance = np.asarray(concepts.importance)
        weights = importance.reshape(-1, importance.shape[-1]).mean(0)
    else:
        weights = np.square(np.maximum(np.asarray(amounts), 0)).mean(0)
        if isinstance(concepts, Sae):
            # A direction present in nearly every activation is their mean, not a concept.
            weights = np.where(np.asarray(concepts.usage) < 0.5, weights, -1)
    return np.argsort(-weights, kind="stable")


def _owed(scores, count):
    """Return classes, effects, errors, curves, errors; the first scores are without it and unchanged."""
    drops = scores[1] - scores[0]
    mean = drops.mean(0)
    classes = np.argsort(-mean, kind="stable")[:count]
    likely = jnp.moveaxis(jax.nn.softmax(scores[2:], axis=-1)[..., classes], 1, 0)
    return (
        classes,
        mean[classes],
        np.asarray(standard_error(jnp.asarray(drops[:, classes]))),
        np.asarray(likely.mean(0)),
        np.asarray(standard_error(likely)),
    )


@partial(jax.jit, static_argnames=("layer", "batch_size"))
def _amounts(model, photos, normalize, codes, *, layer, batch_size):
    def chunk(x):
        acts = layers.split_positions(model, layer, normalize(x))[0].astype(jnp.float32)
        return codes.encode(acts).max((1, 2))

    return batching.map_chunks(chunk, photos, batch_size=batch_size)


@partial(jax.jit, static_argnames=("layer", "batch_size"))
def _where(model, photos, normalize, codes, concept, *, layer, batch_size):
    def chunk(x):
        acts = layers.split_positions(model, layer, normalize(x))[0].astype(jnp.float32)
        return maps.upsample(codes.encode(acts)[..., concept], (x.shape[1], x.shape[2]))

    return batching.map_chunks(chunk, photos, batch_size=batch_size)
