"""Explanations by example: the nearest images of a data set that belong to another class."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Integer

from ... import layers
from ..._frame import batching, checks
from ..._frame import targets as _targets
from ..._frame.contract import completed
from ..._frame.results import brief
from .._activations import activations

METRICS = ("cosine", "euclidean")


class Neighbours(NamedTuple):
    """Images of a data set that answer "why not another class?"."""

    indices: Int[Array, "batch k"]
    """The nearest unlike images of the data set, nearest first."""
    distances: Float[Array, "batch k"]
    """Their distances."""
    classes: Int[Array, "batch k"]
    """Their classes."""
    own: Int[Array, " batch"]
    """The image's class as predicted by the network."""
    semifactuals: Int[Array, " batch"]
    """The "even if" example: among images of the same class at most as far as the nearest unlike one, the one
    closest to that; -1 if there is none."""

    __repr__ = brief


@completed
def unlike_neighbours(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    pool: Float[Array, "others height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    labels: Integer[ArrayLike, " others"] | None = None,
    k: int = 1,
    metric: str = "cosine",
    batch_size: int | None = None,
) -> Neighbours:
    """Find the nearest images of a data set that are of another class: nearest unlike neighbours.

    Images are compared by a layer's activations, averaged over its positions. A neighbour can serve as the
    distractor of `swap_cells`: `pool[found.indices[:, 0]]`.

    Args:
        images: Images to explain, model input, [batch, height, width, channels].
        pool: Images of the data set, model input.
        targets: The class that a neighbour must have, int or int[batch]; None is any class but the image's
            own.
        labels: Classes of the pool, int [others]; None uses the network's predictions.
        k: Number of neighbours.
        metric: `"cosine"`, 1 minus the cosine; or `"euclidean"`.

    Returns:
        A `Neighbours`.

    Raises:
        ValueError: If the pool has fewer than k images of another class.

    References:
        Dasarathy: Nearest unlike neighbor (NUN). Optical Engineering 34, 1995.
        Cummins, Bridge: KLEOR: A Knowledge Lite Approach to Explanation Oriented Retrieval. Computing and
        Informatics 25, 2006 (semifactuals, "global-sim").

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"seen": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> colours = jnp.array([[1.0, 0.0], [0.9, 0.5], [0.4, 0.9], [0.0, 1.0]])
        >>> pool = jnp.broadcast_to(colours[:, None, None], (4, 2, 2, 2))
        >>> found = jaxai.concepts.counterfactuals.unlike_neighbours(net, pool[:1], pool, layer="seen")
        >>> found.indices.tolist(), found.own.tolist(), found.semifactuals.tolist()
        ([[2]], [0], [1])
    """
    checks.choice(metric, "metric", METRICS)
    k = checks.positive(k, "k")
    if callable(targets):
        raise ValueError("`targets` must be None or classes, which the images of `pool` have; got a callable")
    model, images, wanted = _targets.prepare(model, images, targets)
    if wanted.axes:
        raise ValueError("`targets` must be one class per image, int or int[batch]; got int[batch, k]")
    pool = checks.images(pool, "pool")
    layer, size = layers.resolve(model, layer, images), checks.batch_size(batch_size)
    own = _targets.top_classes(model, images, batch_size=size)
    if labels is None:
        theirs = _targets.top_classes(model, pool, batch_size=size)
    else:
        given = np.asarray(labels)
        if given.shape != (len(pool),) or not np.issubdtype(given.dtype, np.integer):
            raise ValueError(
                f"`labels` must be int [{len(pool)}], a class for each of `pool`; got {given.shape}"
            )
        theirs = jnp.asarray(given.astype(np.int32))
    classes = wanted.classes
    unlike = theirs[None] != own[:, None] if classes is None else theirs[None] == classes[:, None]
    least = unlike.sum(1)
    if int(least.min()) < k:
        poor = int(least.argmin())
        kind = "another class" if classes is None else f"class {int(classes[poor])}"
        raise ValueError(
            f"`pool` must have at least {k} images of {kind} for image {poor}; got {int(least[poor])}"
        )
    see = partial(activations, model, names=(layer,), positions="mean", batch_size=size)
    seen = see(images)[layer], see(pool)[layer]
    return Neighbours(*_nearest(*seen, own, theirs, unlike, k=k, metric=metric))


@partial(jax.jit, static_argnames=("k", "metric"))
def _nearest(seen, others, own, theirs, unlike, *, k, metric):
    def distances(a):
        return _distances(a, others, metric)

    # The distances of at most this many images are in memory at a time.
    def chunk(inputs):
        a, mine, far = inputs
        between = distances(a)
        negative, indices = jax.lax.top_k(jnp.where(far, -between, -jnp.inf), k)
        nearest = indices[:, 0]
        # Of the same class, at most as far as the nearest unlike one, and closest to that.
        like = (theirs[None] == mine[:, None]) & ~far & (between <= -negative[:, :1])
        beyond = jnp.where(like, distances(others[nearest]), jnp.inf)
        semifactual = jnp.where(like.any(1), beyond.argmin(1), -1)
        return indices, -negative, theirs[indices], mine, semifactual.astype(jnp.int32)

    return batching.map_chunks(chunk, (seen, own, unlike), batch_size=64)


def _distances(a, b, metric):
    if metric == "cosine":
        a, b = (x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
        return 1 - jnp.matmul(a, b.T, precision="highest")
    squares = jnp.square(a).sum(1)[:, None] + jnp.square(b).sum(1)[None]
    return jnp.sqrt(jnp.maximum(squares - 2 * jnp.matmul(a, b.T, precision="highest"), 0))
