"""Targets as the methods take them: checked, frozen, and pulled through a network (`jaxai.targets`)."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from . import batching, checks
from .model import as_model as as_model
from .model import scores_shape

Targets: TypeAlias = None | int | jax.Array | np.ndarray | list | tuple | Callable[..., Any]


def prepare(model: Any, images: Any, targets: Targets) -> tuple[Any, jax.Array, Any]:
    """Check the arguments that every method shares and bring them into the form its compiled part takes.

    Returns:
        The model as a callable pytree, the images as an array [batch, height, width, channels], and the
        targets as None, int32[batch], int32[batch, k] or a `Partial`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit or a class does not exist.
    """
    model, images = as_model(model), checks.images(images)
    return model, images, as_targets(targets, model, images)


def as_targets(targets: Targets, model: Any, images: jax.Array) -> Any:
    """Return `targets` as None, int32[batch], int32[batch, k] or a `Partial`, checked against the scores."""
    if targets is None:
        return None
    if callable(targets):
        return targets if isinstance(targets, Partial) else Partial(targets)
    batch = images.shape[0]
    # Concrete classes are looked at on the host, so that nothing waits for a device or is traced.
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(targets))
    classes = jnp.asarray(targets) if traced else np.asarray(targets)
    if not jnp.issubdtype(classes.dtype, jnp.integer):
        raise TypeError(
            "`targets` must be None, an integer class, int[batch], int[batch, k] or a callable;"
            f" got {getattr(targets, 'dtype', type(targets).__name__)}"
        )
    if classes.ndim == 0:
        classes = (jnp if traced else np).broadcast_to(classes, (batch,))
    if classes.ndim > 2 or classes.shape[0] != batch or 0 in classes.shape:
        raise ValueError(
            f"`targets` must be int[batch] or int[batch, k] with batch = {batch}; got shape {classes.shape}"
        )
    if not traced:
        count = class_count(scores_shape(model, images))
        low, high = int(classes.min()), int(classes.max())
        if low < 0 or high >= count:
            wrong = low if low < 0 else high
            raise ValueError(f"`targets` must be classes 0 to {count - 1}; got {wrong}")
    return jnp.asarray(classes.astype(np.int32))


def class_count(shape: tuple[int, ...]) -> int:
    """Return the number of classes of scores of this shape.

    Raises:
        ValueError: If the scores are not [batch, classes]: such a model has no classes to name.
    """
    if len(shape) != 2:
        raise ValueError(
            f"class targets need scores [batch, classes]; the model returns shape {shape}:"
            " pass a callable target, scores -> float[batch]"
        )
    return shape[1]


def freeze(scores: jax.Array, targets: Any) -> Any:
    """Return `targets` with None replaced by each image's top class, int32[batch]."""
    if targets is not None:
        return targets
    class_count(scores.shape)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


@partial(jax.jit, static_argnames="batch_size")
def top_classes(model: Any, images: jax.Array, *, batch_size: int | None) -> jax.Array:
    """Return each image's top class, int32[batch], with at most `batch_size` images in flight."""
    batch_size = batching.chunk_size(batch_size, model, images)
    return batching.map_chunks(lambda x: freeze(model(x), None), images, batch_size=batch_size)


def select(scores: jax.Array, targets: Any) -> jax.Array:
    """Return what `targets` say of `scores`: float32[batch], or float32[batch, k] for k classes.

    Args:
        scores: [batch, classes] (any shape with a batch axis for a callable target).
        targets: As `prepare` returns them.
    """
    if callable(targets):
        values = jnp.asarray(targets(scores))
        if values.shape != scores.shape[:1]:
            raise ValueError(
                f"a callable target must return shape {scores.shape[:1]} for scores of shape"
                f" {scores.shape}; got {values.shape}"
            )
        return values.astype(jnp.float32)
    targets = freeze(scores, targets)
    count = class_count(scores.shape)
    scores = scores.astype(jnp.float32)
    # Indexing would not know how to spread its result over devices that share the classes.
    chosen = jnp.clip(targets, 0, count - 1)[..., None] == jnp.arange(count)
    return jnp.where(chosen, scores if targets.ndim == 1 else scores[:, None], 0).sum(-1)


def probability(scores: jax.Array, targets: Any) -> jax.Array:
    """Return `select` of the softmax of `scores`; a callable target receives the raw scores."""
    if callable(targets):
        return select(scores, targets)
    targets = freeze(scores, targets)
    return select(jax.nn.softmax(scores.astype(jnp.float32), axis=-1), targets)


def repeat(targets: Any, count: int) -> Any:
    """Return targets for images repeated `count` times each: image 0, image 0, ..., image 1, ..."""
    if targets is None or callable(targets):
        return targets
    return jnp.repeat(targets, count, axis=0)


def take(targets: Any, indices: jax.Array) -> Any:
    """Return the targets of the images at `indices`."""
    if targets is None or callable(targets):
        return targets
    return targets[indices]


def tile(targets: Any, count: int) -> Any:
    """Return targets for `count` copies of the whole batch, one after the other."""
    if targets is None or callable(targets):
        return targets
    return jnp.tile(targets, (count,) + (1,) * (targets.ndim - 1))


Value = Callable[[jax.Array, Any], jax.Array]


def cotangents(scores: jax.Array, targets: Any, *, value: Value = select) -> jax.Array:
    """Return d target / d scores: like `scores`, with a leading axis k for k classes an image.

    Args:
        scores: [batch, classes] (any shape with a batch axis for a callable target).
        targets: As `prepare` returns them.
        value: What is said of a class, `value(scores, int32[batch]) -> float[batch]`: its score, or for
            example `probability`.
    """

    def direction(target):
        return jax.grad(lambda s: value(s, target).sum())(scores)

    if not callable(targets) and targets is not None and targets.ndim == 2:
        class_count(scores.shape)
        if value is select:
            # Of the scores' own sharding, as the type of a cotangent must be.
            chosen = targets.T[..., None] == jnp.arange(scores.shape[1])
            return jnp.where(chosen, jnp.ones_like(scores), 0)
        return jax.vmap(direction, in_axes=1)(targets)
    return direction(targets)


def values(scores: jax.Array, targets: Any, *, value: Value = select) -> jax.Array:
    """Return float32[batch], or float32[batch, k] for k classes an image, of any `value` of a class."""
    if not callable(targets) and targets is not None and targets.ndim == 2 and value is not select:
        return jax.vmap(value, in_axes=(None, 1), out_axes=1)(scores, targets)
    return value(scores, targets)


def gradients(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    targets: Any,
    *,
    value: Value = select,
    batch_size: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the target values of `fn(x)` and their gradients: one forward, one backward pass a target.

    Args:
        fn: Maps `x` to scores; a model, or the head that `layers.split` returns.
        x: Float array [batch, ...].
        targets: As `prepare` returns them.
        value: What is said of a class, as in `cotangents`.
        batch_size: At most so many images' backward passes at once; None means all.

    Returns:
        Values [batch] and gradients [batch, ...]; for k classes an image [batch, k] and [batch, k, ...].
    """
    scores, pullback = jax.vjp(fn, x)
    targets = targets if callable(targets) else freeze(scores, targets)
    results = values(scores, targets, value=value)
    directions = cotangents(scores, targets, value=value)
    if results.ndim == 1:
        return results, pullback(directions)[0]
    chunk = None if batch_size is None else max(1, batch_size // x.shape[0])
    stacked = batching.map_chunks(
        jax.vmap(lambda direction: pullback(direction)[0]), directions, batch_size=chunk
    )
    return results, jnp.moveaxis(stacked, 0, 1)
