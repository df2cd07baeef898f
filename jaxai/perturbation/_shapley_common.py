"""Shared parts of the Shapley methods: arguments, scores of masks, errors."""

from typing import Any, NamedTuple

import jax

from . import _fills, _scoring, _segments


class Game(NamedTuple):
    """A model's scores as a cooperative game of the superpixels of each image."""

    model: Any
    images: jax.Array
    background: jax.Array
    superpixels: _segments.Superpixels
    targets: Any
    batch_size: int | None

    def values(self, masks: jax.Array) -> jax.Array:
        """Return the probability of the target for masks [samples, S] or [batch, samples, S].

        Returns:
            float32 [batch, samples, *k].

        Raises:
            ValueError: If they are not finite.
        """
        chunk = _scoring.in_flight(
            self.model, self.images, self.batch_size, self.images.shape[0] * masks.shape[-2]
        )
        values = _scoring.of_masks(
            self.model,
            self.images,
            self.background,
            self.superpixels.labels,
            masks,
            self.targets,
            batch_size=chunk,
            probability=True,
        )
        _scoring.check_finite(values)
        return values


def game(
    model: Any,
    images: Any,
    targets: Any,
    *,
    segments: Any,
    fill: Any,
    num_segments: int | None,
    batch_size: int | None,
    key: jax.Array | None = None,
    plane: bool = False,
) -> Game:
    """Check the arguments of a Shapley method, which are as in `kernel_shap`; `plane` as in `prepare`."""
    model, images, targets = _scoring.prepare(model, images, targets, probability=True, plane=plane)
    superpixels = _segments.prepare(segments, images, num_segments)
    background = _fills.background(fill, images, superpixels.labels, superpixels.count, key=key)
    chunk = _scoring.in_flight(model, images, batch_size, images.shape[0])
    targets = _scoring.frozen(model, images, targets, chunk)
    return Game(model, images, background, superpixels, targets, batch_size)


def per_image(fn: Any, values: jax.Array, *others: jax.Array) -> Any:
    """Apply `fn(values [samples, targets], *others) -> arrays [targets, ...]` to each image.

    Args:
        fn: Function of one image's values.
        values: float32 [batch, samples, *k].
        others: Arrays with a batch axis.

    Returns:
        The results with axes [batch, *k, ...].
    """
    batch, samples, *rest = values.shape
    results = jax.vmap(fn)(values.reshape(batch, samples, -1), *others)
    return jax.tree.map(lambda x: x.reshape(batch, *rest, *x.shape[2:]), results)
