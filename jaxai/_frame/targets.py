"""Targets: what is explained about a batch of images. Every `targets` argument is parsed here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial, register_dataclass

from . import batching, checks, scores
from .model import as_model as as_model
from .model import flattened, one_array, output_shapes, scores_shape


@register_dataclass
@dataclass(frozen=True)
class Target:
    """What is explained: each image's top class, classes, or a function of what the model returns.

    Attributes:
        classes: None, int32[batch], or int32[batch, k] for k targets per image.
        function: `outputs -> float[batch]`; then there are no classes.
        normalized: Whether the model's scores are probabilities already.
    """

    classes: jax.Array | None = None
    function: Callable[..., Any] | None = None
    normalized: bool = field(default=False, metadata={"static": True})

    @property
    def plain(self) -> Any:
        """The target as a public method takes it."""
        return self.classes if self.function is None else self.function

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of results after the batch axis: (k,) for k targets per image, otherwise none."""
        return () if self.classes is None else self.classes.shape[1:]

    def of_classes(self, classes: jax.Array | None) -> "Target":
        """Return the target with other classes, such as those of some of the images."""
        return replace(self, classes=classes)

    def frozen(self, outputs: Any) -> "Target":
        """Return the target with None replaced by each image's top class."""
        if self.function is not None or self.classes is not None:
            return self
        return self.of_classes(jnp.argmax(_class_scores(outputs), axis=-1).astype(jnp.int32))

    def of(self, outputs: Any) -> jax.Array:
        """Return the explained value: the class's score or the function's result.

        Args:
            outputs: Scores [batch, classes]; for a function, anything that a model may return.

        Returns:
            float32[batch], or float32[batch, k] for k targets per image.
        """
        if self.function is None:
            return self._pick(_class_scores(outputs).astype(jnp.float32))
        values = jnp.asarray(self.function(outputs))
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(outputs)]
        if values.ndim != 1 or all(shape[:1] != values.shape for shape in shapes):
            raise ValueError(
                f"a callable target must return shape {shapes[0][:1]} for outputs of shape"
                f" {', '.join(map(str, shapes))}; got {values.shape}"
            )
        return values.astype(jnp.float32)

    def probability(self, outputs: Any) -> jax.Array:
        """Return the probability of the class, as `scores.probabilities` defines it; like `of`.

        A function receives the raw outputs, and its value is explained.
        """
        if self.function is not None:
            return self.of(outputs)
        target = self.frozen(outputs)
        return target._pick(scores.probabilities(_class_scores(outputs), normalized=self.normalized))

    def is_top(self, outputs: Any) -> jax.Array:
        """Return 1 where the class is the top one and 0 where not, like `of`; NaN for a function."""
        if self.function is not None:
            return jnp.full_like(self.of(outputs), jnp.nan)
        found = Target().frozen(outputs).classes
        assert found is not None and self.classes is not None
        return (self.classes == found.reshape(-1, *(1,) * len(self.axes))).astype(jnp.float32)

    def _pick(self, values: jax.Array) -> jax.Array:
        chosen = is_class(self.frozen(values).classes, values.shape[1])
        return jnp.where(chosen, values if chosen.ndim == 2 else values[:, None], 0).sum(-1)

    def cotangents(self, outputs: Any, value: "Value | None" = None) -> Any:
        """Return d value / d outputs, with a leading axis k for k targets per image.

        Args:
            outputs: As for `of`.
            value: `value(target, outputs) -> float[batch]`; None is `Target.of`.
        """

        def direction(target):
            return jax.grad(lambda s: (value or Target.of)(target, s).sum())(outputs)

        if not self.axes:
            return direction(self)
        assert self.classes is not None
        found = _class_scores(outputs)
        if value is None:
            # The cotangent must have the scores' sharding.
            return jnp.where(is_class(self.classes.T, found.shape[1]), jnp.ones_like(found)[None], 0)
        return jax.vmap(lambda classes: direction(self.of_classes(classes)), in_axes=1)(self.classes)

    def pull(self, pullback: Callable[[Any], Any], directions: Any, *, batch_size: int | None) -> Any:
        """Apply `pullback`, a function of one cotangent, to the result of `cotangents`.

        Args:
            pullback: Maps a cotangent of the outputs to a pytree of arrays [batch, ...].
            directions: As `cotangents` returns them.
            batch_size: At most this many images' backward passes at once; None means all.

        Returns:
            The pytree of results [batch, ...], or [batch, k, ...].
        """
        if not self.axes:
            return pullback(directions)
        assert self.classes is not None
        together = batching.groups(batch_size, len(self.classes))
        found = batching.map_chunks(jax.vmap(pullback), directions, batch_size=together)
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), found)

    def gradients(
        self,
        fn: Callable[[jax.Array], Any],
        x: jax.Array,
        *,
        value: "Value | None" = None,
        batch_size: int | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Return the values of `fn(x)` and their gradients: one forward pass, one backward pass per target.

        Args:
            fn: Maps `x` to scores; a model, or the head that `layers.split` returns.
            x: Float array [batch, ...].
            value: As for `cotangents`.
            batch_size: At most this many images' backward passes at once; None means all.

        Returns:
            Values [batch] and gradients [batch, ...]; for k targets per image [batch, k] and [batch, k, ...].
        """
        measure = value or Target.of
        if self.function is not None:
            # Whatever the model returns, the function reduces it to one array.
            values, pullback = jax.vjp(lambda x: measure(self, fn(x)), x)
            return values, pullback(jnp.ones_like(values))[0]
        outputs, pullback = jax.vjp(fn, x)
        target = self.frozen(outputs)
        if target.axes and value is not None:
            values = jax.vmap(lambda c: value(self.of_classes(c), outputs), 1, 1)(target.classes)
        else:
            values = measure(target, outputs)
        directions = target.cotangents(outputs, value)
        return values, target.pull(lambda d: pullback(d)[0], directions, batch_size=batch_size)

    def take(self, indices: jax.Array | int) -> "Target":
        """Return the target of the images at `indices`."""
        return self if self.classes is None else self.of_classes(self.classes[indices])

    def tile(self, count: int) -> "Target":
        """Return the target of `count` copies of the whole batch, one after the other."""
        if self.classes is None:
            return self
        return self.of_classes(jnp.tile(self.classes, (count,) + (1,) * len(self.axes)))

    def repeat(self, count: int) -> "Target":
        """Return the target of images repeated `count` times each: image 0, image 0, ..., image 1, ..."""
        return self if self.classes is None else self.of_classes(jnp.repeat(self.classes, count, axis=0))

    def spread(self, values: jax.Array) -> jax.Array:
        """Repeat arrays of the images, [batch, ...], for each of k targets: [batch, k, ...]."""
        _, copies, together = self.each()
        return together(copies(values))

    def each(self) -> "tuple[Target, Callable[[jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]":
        """Return k targets per image as targets of k copies of each image.

        Returns:
            The target of the copies, a function that repeats arrays [batch, ...] for them, and one that
            reshapes results to [batch, k, ...]. Without an axis k, all three change nothing.
        """
        if not self.axes:
            return self, lambda x: x, lambda x: x
        assert self.classes is not None
        shape = self.classes.shape
        flat = self.of_classes(self.classes.reshape(-1))
        return (
            flat,
            lambda x: jnp.repeat(x, shape[1], axis=0),
            lambda x: x.reshape(*shape, *x.shape[1:]),
        )


Value: TypeAlias = Callable[[Target, Any], jax.Array]
Targets: TypeAlias = (
    None | int | np.integer | jax.Array | np.ndarray | list | tuple | Callable[..., Any] | Target
)


def is_class(classes: Any, count: int) -> jax.Array:
    """Return classes as one-hot masks, bool [..., count]; indexing would not work across devices."""
    classes = jnp.clip(classes, 0, count - 1)[..., None]
    return classes == jax.lax.broadcasted_iota(
        classes.dtype, (1,) * (classes.ndim - 1) + (count,), classes.ndim - 1
    )


def _class_scores(outputs: Any) -> jax.Array:
    array = one_array(outputs)
    class_count(array.shape)
    return array


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


def prepare(
    model: Any, images: Any, targets: Targets, *, probability: bool = False, plane: bool = True
) -> tuple[Any, jax.Array, Target]:
    """Check the arguments that every method shares and convert them to the form of its compiled part.

    Args:
        model: As users pass it.
        images: As users pass them.
        targets: As users pass them.
        probability: Whether the probability of classes is explained; if so, the model's program is read to
            find out whether it returns probabilities.
        plane: Whether the method needs images; if not, signals and volumes are taken too.

    Returns:
        The model as a callable pytree, the images as an array [batch, height, width, channels], the target.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit or a class does not exist.
    """
    (model, flat), images = flattened(model), checks.images(images, plane=plane)
    if images.ndim != 4:
        _check_taken(model, images, flat)
    target = as_target(targets, images, lambda: class_count(scores_shape(model, images, flat)))
    if probability and target.function is None:
        class_count(scores_shape(model, images, flat))
        target = replace(target, normalized=scores.are_probabilities(model, images))
    return model, images, target


def _check_taken(model: Any, images: jax.Array, flat: Any) -> None:
    """Check that a model takes signals or volumes: an image without a batch looks like signals.

    Raises:
        ValueError: If it does not.
    """
    try:
        output_shapes(model, images, flat)
    except (TypeError, ValueError) as error:
        raise ValueError(
            checks.of_rank("images", images.shape, False) + ", which the model does not take"
        ) from error


def as_target(targets: Targets, images: jax.Array, count: Callable[[], int] | None) -> Target:
    """Return `targets` as a `Target`, checked.

    Args:
        targets: As users pass them.
        images: Checked images.
        count: Returns the number of classes, called only if needed; None if it is not known yet.
    """
    if targets is None or isinstance(targets, Target):
        return targets or Target()
    if callable(targets):
        return Target(function=as_model(targets))
    batch = images.shape[0]
    # Concrete classes are checked on the host, so that nothing waits for a device or is traced.
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(targets))
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
        check_classes(np.asarray(classes), None if count is None else count())
    return Target(jnp.asarray(classes.astype(np.int32)))


def check_classes(classes: np.ndarray, count: int | None) -> None:
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or (count is not None and high >= count):
        known = "0 and above" if count is None else f"0 to {count - 1}" if count > 1 else "0, the only one"
        raise ValueError(f"`targets` must be classes {known}; got {low if low < 0 else high}")
    if classes.ndim == 2:
        ordered = np.sort(classes, axis=1)
        twice = ordered[:, 1:] == ordered[:, :-1]
        if twice.any():
            image = int(twice.any(1).argmax())
            raise ValueError(
                f"`targets` [batch, k] are k different classes per image; image {image} has class"
                f" {int(ordered[image, 1:][twice[image]][0])} twice. For one-hot rows pass the class,"
                " targets.argmax(-1)"
            )


@partial(jax.jit, static_argnames="batch_size")
def top_classes(model, images, *, batch_size):
    """Return each image's top class, int32 [batch], with at most `batch_size` images in flight."""
    size = batching.chunk_size(batch_size, model, images)
    return batching.map_chunks(lambda x: Target().frozen(model(x)).classes, images, batch_size=size)


def frozen(model: Any, images: jax.Array, target: Target, batch_size: int | None) -> Target:
    """Return the target with None replaced by each image's top class, at most `batch_size` in flight."""
    if target.function is not None or target.classes is not None:
        return target
    return target.of_classes(top_classes(model, images, batch_size=batch_size))


def join(model: Any, images: Any, target: Target) -> tuple[Any, Target]:
    """Return a model with one output array and the target for it, for methods that read the program.

    The arrays of a dict or a tuple are concatenated, float32 [batch, values]; a single array is unchanged.

    Raises:
        TypeError: If the model returns several arrays and the target is not a function that could choose.
    """
    outputs = output_shapes(model, images)
    if target.function is None:
        one_array(outputs)
        return model, target
    if hasattr(outputs, "shape"):
        return model, target
    shapes, tree = jax.tree.flatten(outputs)
    parts = OfParts(
        tree, tuple((leaf.shape, leaf.dtype) for leaf in shapes), images.shape[0], target.function
    )
    return Partial(_side_by_side, model), replace(target, function=Partial(_on_parts, parts))


def _side_by_side(model, images):
    batch = images.shape[0]

    def rows(leaf):
        own = leaf if jnp.shape(leaf)[:1] == (batch,) else jnp.broadcast_to(leaf, (batch, *jnp.shape(leaf)))
        return own.reshape(batch, -1).astype(jnp.float32)

    return jnp.concatenate([rows(leaf) for leaf in jax.tree.leaves(model(images))], axis=1)


def _on_parts(parts, joined):
    return parts(joined)


@register_dataclass
@dataclass(frozen=True)
class OfParts:
    """A target of several outputs as a target of the array that `join` makes of them."""

    tree: Any = field(metadata={"static": True})
    leaves: tuple[Any, ...] = field(metadata={"static": True})
    batch: int = field(metadata={"static": True})
    function: Callable[..., Any]

    def __call__(self, joined: jax.Array) -> jax.Array:
        """Separate the outputs again and return the function's value for them."""
        found, start = [], 0
        for shape, dtype in self.leaves:
            own = shape[:1] == (self.batch,)
            size = math.prod(shape[1:] if own else shape)
            columns = joined[:, start : start + size].astype(dtype)
            found.append(columns.reshape(-1, *shape[1:]) if own else columns[0].reshape(shape))
            start += size
        return self.function(jax.tree.unflatten(self.tree, found))
