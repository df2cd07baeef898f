"""The engine of this family: scores of many changed images, at most `batch_size` at once.

A method defines how the i-th changed image is made (a `Perturbation`) and their number; the engine runs the
model over chunks of indices. A JAX model is compiled together with the code that makes its images; a
`BlackBox` is called from the host with the same chunks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import register_dataclass

from .._frame import batching, checks
from .._frame import scores as scores_rule
from .._frame import targets as _targets
from .._frame.targets import Target
from ._black_box import BlackBox

_ASKED_AT_ONCE = 16


@register_dataclass
@dataclass(frozen=True)
class Perturbation:
    """A function that makes changed images, `fn(*static, *arrays, indices)`, compiled per `fn` and `static`.

    Attributes:
        fn: Module-level function that takes int32[chunk] last and returns images [chunk, ...] and the index
            of each one's original [chunk].
        static: Hashable arguments that come first.
        arrays: Pytrees of arrays.
    """

    fn: Callable[..., Any] = field(metadata={"static": True})
    static: tuple[Any, ...] = field(metadata={"static": True})
    arrays: tuple[Any, ...]

    def __call__(self, indices: Any) -> Any:
        """Return the result of `fn` for these indices."""
        return self.fn(*self.static, *self.arrays, indices)


def prepare(
    model: Any, images: Any, targets: Any, *, probability: bool = False, plane: bool = True
) -> tuple[Any, jax.Array, Target]:
    """Check the shared arguments as `targets.prepare` does; a `BlackBox` is returned unchanged."""
    if not isinstance(model, BlackBox):
        return _targets.prepare(model, images, targets, probability=probability, plane=plane)
    images = checks.images(images, plane=plane)
    return model, images, _targets.as_target(targets, images, None)


def frozen(model: Any, images: jax.Array, targets: Target, batch_size: int | None) -> Target:
    """Return `targets` with None replaced by the top class of each unchanged image."""
    if isinstance(model, BlackBox):
        if targets.function is not None or targets.classes is not None:
            return targets
        return targets.frozen(jnp.asarray(model.scores_in_chunks(images, batch_size or _ASKED_AT_ONCE)))
    return _targets.frozen(model, images, targets, batch_size)


def in_flight(model: Any, images: jax.Array, batch_size: int | None, count: int) -> int:
    """Return how many of `count` changed images to score at once.

    A black box called from the host gets larger batches than those that fit this machine's caches.
    """
    if batch_size is None and isinstance(model, BlackBox):
        batch_size = _ASKED_AT_ONCE
    return batching.chunk_size(batch_size, model, images, count=count)


def scores(
    model: Any,
    perturb: Any,
    targets: Target,
    *,
    count: int,
    batch_size: int,
    probability: bool,
    start: Any = 0,
    top: bool = False,
) -> Any:
    """Return the target values of `count` changed images.

    Args:
        model: A callable pytree or a `BlackBox`.
        perturb: A `Perturbation`, which makes the images of int32[chunk].
        targets: As `frozen` returns them, for the originals.
        count: Number of changed images, static.
        batch_size: At most this many at once.
        probability: Explain the probability of classes, as `scores.probabilities` defines it; a callable
            target receives the raw scores.
        start: Index of the first image.
        top: Whether to also return where the class is still the top one, as `Target.is_top` does.

    Returns:
        float32 [count], or [count, k] for k classes per image; two such arrays with `top`.
    """
    how = {"count": count, "batch_size": batch_size, "probability": probability, "top": top}
    if isinstance(model, BlackBox):
        return _host_scores(model, perturb, targets, start=start, **how)
    values, _, extents, right = _scores(model, perturb, targets, np.int32(start), **how)
    # A warning was already given if the program returns probabilities.
    if extents is not None and not targets.normalized and not isinstance(extents, Tracer):
        scores_rule.warn_of(np.asarray(extents), normalized=False)
    return (values, right) if top else values


@partial(jax.jit, static_argnames=("count", "batch_size", "probability", "top"))
def _scores(model, perturb, targets, start, *, count, batch_size, probability, top):
    def chunk(indices):
        x, owners = perturb(indices)
        return _pick(model(x), targets.take(owners), probability, top)

    return batching.map_chunks(chunk, start + jnp.arange(count, dtype=jnp.int32), batch_size=batch_size)


def _pick(outputs, targets, probability, top):
    """Return the explained values; for probabilities the extent of the scores; and where the class is top."""
    right = targets.is_top(outputs) if top else None
    if not probability or targets.function is not None:
        return targets.of(outputs), None, None, right
    return targets.probability(outputs), targets.of(outputs), scores_rule.extent(outputs), right


_call_perturb = jax.jit(lambda perturb, indices: perturb(indices))
_call_pick = jax.jit(_pick, static_argnames=("probability", "top"))


def _host_scores(model, perturb, targets, *, count, batch_size, probability, start, top):
    parts = []
    with model.progress_bar(count) as advance:
        for first in range(start, start + count, batch_size):
            # Chunks of one size compile once; indices beyond the count are dropped before the call.
            indices = jnp.arange(first, first + batch_size, dtype=jnp.int32)
            valid = min(batch_size, start + count - first)
            x, owners = _call_perturb(perturb, jnp.minimum(indices, start + count - 1))
            outputs = jnp.asarray(model.scores(x[:valid]))
            chosen = targets.take(owners[:valid])
            if chosen.classes is not None and outputs.ndim == 2:
                _targets.check_classes(np.asarray(chosen.classes), outputs.shape[1])
            parts.append(jax.device_get(_call_pick(outputs, chosen, probability=probability, top=top)))
            advance(valid)
    values, raw, extents, right = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    if extents is not None:
        # There is no program to read, so the values decide whether they are probabilities.
        normalized = scores_rule.sum_to_one(extents)
        values = raw if normalized else values
        scores_rule.warn_of(extents, normalized=normalized)
    return (jnp.asarray(values), jnp.asarray(right)) if top else jnp.asarray(values)


def check_finite(values: jax.Array) -> None:
    """Raise ValueError if concrete scores are not finite: no surrogate can be fitted to them."""
    if isinstance(values, Tracer):
        return
    bad = int((~np.isfinite(np.asarray(values))).sum())
    if bad:
        raise ValueError(f"the model returned NaN or infinite scores: {bad} of {values.size}")


def pairs(
    images: jax.Array, background: jax.Array, segments: jax.Array, masks: jax.Array, indices: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Make the changed images of flat indices of (image, mask) pairs: image 0 with all masks, image 1, ...

    Args:
        images: [batch, height, width, channels].
        background: What shows where a mask is 0, like `images`.
        segments: Labels [batch, height, width].
        masks: float [samples, S] for all images, or [batch, samples, S].
        indices: int32 [chunk].

    Returns:
        Images [chunk, height, width, channels] and the index of each one's original [chunk].
    """
    samples = masks.shape[-2]
    owners, rows = indices // samples, indices % samples
    chosen = (masks[rows] if masks.ndim == 2 else masks[owners, rows]).astype(images.dtype)
    if images.shape[0] == 1:
        # One axis of pixels, because the gather is faster than along two.
        shown = jnp.take(chosen, segments.reshape(-1), axis=1)
        flat = (1, -1, images.shape[-1])
        changed = blend(shown, images.reshape(flat), background.reshape(flat))
        return changed.reshape(-1, *images.shape[1:]), owners
    shown = jax.vmap(lambda row, owner: row[segments[owner]])(chosen, owners)
    return blend(shown, images[owners], background[owners]), owners


def blend(shown: jax.Array, images: jax.Array, background: jax.Array) -> jax.Array:
    """Mix images and background by `shown`, without channels; exactly one of them where it is 1 or 0."""
    shown = shown[..., None]
    return shown * images + (1 - shown) * background


def of_masks(
    model: Any,
    images: jax.Array,
    background: jax.Array,
    segments: jax.Array,
    masks: jax.Array,
    targets: Target,
    *,
    batch_size: int,
    probability: bool,
) -> jax.Array:
    """Return the target values of every image under every mask, float32 [batch, samples, *k].

    Args:
        model: A callable pytree or a `BlackBox`.
        images: [batch, height, width, channels].
        background: What shows where a mask is 0, like `images`.
        segments: Labels [batch, height, width].
        masks: float [samples, S] for all images, or [batch, samples, S].
        targets: As `frozen` returns them.
        batch_size: At most this many changed images at once.
        probability: Explain the probability of classes.
    """
    batch, samples = images.shape[0], masks.shape[-2]
    values = scores(
        model,
        Perturbation(pairs, (), (images, background, segments, masks)),
        targets,
        count=batch * samples,
        batch_size=batch_size,
        probability=probability,
    )
    return values.reshape(batch, samples, *values.shape[1:])
