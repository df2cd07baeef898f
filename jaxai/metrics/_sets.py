"""Metrics over sets of maps: whether images with the same explanation have the same class."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._frame import checks
from .._frame.contract import like
from .._frame.targets import Target
from ..perturbation import _scoring
from . import _hidden, _maps
from ._removal import deletion


@like(deletion)
def sufficiency(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch height width"],
    *,
    similarity: float = 0.9,
    batch_size: int | None = None,
) -> Float[Array, " batch"]:
    """Return the fraction of the images with a similar map that have the same predicted class; 1 is best.

    Maps are similar if the cosine of the angle between them is at least `similarity`. Quantus compares
    standardised Euclidean distances instead.

    Args:
        images: As for `deletion`; the more, the better.
        maps: As for `deletion`, of each image's top class.
        similarity: Smallest cosine of similar maps, in [-1, 1].
        batch_size: At most this many images in flight; None chooses by size.

    Returns:
        float32 [batch], in [0, 1]; NaN if no other image has a similar map.

    References:
        Dasgupta, Frost, Moshkovitz: Framework for Evaluating Faithfulness of Local Explanations. ICML 2022,
        arXiv 2202.00734, definition 3.
    """
    images, values, classes = _seen(model, images, maps, batch_size)
    values = values.reshape(len(images), -1)
    similarity = checks.number(similarity, "similarity", "[-1, 1]")
    length = jnp.linalg.norm(values, axis=-1, keepdims=True)
    values = values / jnp.where(length > 0, length, 1)
    return _of_one_class(jnp.dot(values, values.T, precision="highest") >= similarity, classes)


@like(deletion)
def consistency(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch height width"],
    *,
    cells: int = 4,
    discretize: Callable[[jax.Array], Any] | None = None,
    batch_size: int | None = None,
) -> Float[Array, " batch"]:
    """Return the fraction of images with the same explanation that have the same predicted class; 1 is best.

    Maps are the same explanation if `discretize` gives them the same label: by default, if the same cell of a
    grid has the largest sum. The paper's explanations are finite (trees, anchors); Quantus compares the
    positions and signs of the five largest values, which two images hardly ever share.

    Args:
        images: As for `deletion`; the more, the better.
        maps: As for `deletion`, of each image's top class.
        cells: Rows and columns of the grid.
        discretize: `discretize(maps) -> labels`, from float [batch, height, width] to integers [batch];
            instead of the grid.
        batch_size: At most this many images in flight; None chooses by size.

    Returns:
        float32 [batch], in [0, 1]; NaN if no other image has the same explanation.

    Raises:
        ValueError: If `discretize` does not return one label per image.

    References:
        Dasgupta, Frost, Moshkovitz: Framework for Evaluating Faithfulness of Local Explanations. ICML 2022,
        arXiv 2202.00734, definition 1.
    """
    images, values, classes = _seen(model, images, maps, batch_size)
    if discretize is None:
        labels = _largest_cell(values, _hidden.grid(images, checks.positive(cells, "cells")))
    else:
        labels = jnp.asarray(discretize(values))
        if labels.shape != (len(images),) or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                f"`discretize` must return integers [batch], shape {(len(images),)};"
                f" got {labels.dtype} of shape {labels.shape}"
            )
    return _of_one_class(labels[:, None] == labels, classes)


def _seen(model, images, maps, batch_size):
    """Return the images, their maps and the predicted classes."""
    model, images, _ = _scoring.prepare(model, images, None)
    values = _maps.of_images(maps, images, Target())
    chunk = _scoring.in_flight(model, images, batch_size, len(images))
    classes = _scoring.frozen(model, images, Target(), chunk).classes
    assert classes is not None
    return images, values, classes


def _largest_cell(maps, labels):
    def sums(values):
        return jax.ops.segment_sum(values.reshape(-1), labels.reshape(-1), num_segments=labels.size)

    return jax.vmap(sums)(maps).argmax(-1)


def _of_one_class(alike, classes):
    """Return, per image, the fraction of similar images that have its class."""
    alike = alike & ~jnp.eye(len(classes), dtype=bool)
    number = alike.sum(-1)
    same = (alike & (classes[:, None] == classes)).sum(-1)
    return jnp.where(number > 0, same / jnp.maximum(number, 1), jnp.nan)
