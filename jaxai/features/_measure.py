"""Values of objectives for given photos, and the photos that excite a feature most."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.results import brief
from . import _engine, objectives
from ._dream import identity
from ._visualize import check_names, groups, listed
from .objectives import IMAGES, OPACITY, Objective


@completed
def measure(
    model: Callable[..., Any],
    objective: str | Objective | Callable[..., Any] | Sequence[Any],
    photos: Float[Array, "batch height width channels"],
    *,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    batch_size: int | None = None,
) -> Float[Array, "objectives batch"]:
    """Return the value of each objective for each photo: one forward pass for objectives of one structure.

    Returns:
        float32[objectives, batch].
    """
    model = _targets.as_model(model)
    normalize = _targets.as_model(normalize or identity)
    photos = checks.images(photos, "photos")
    parsed = [objectives.parse(one) for one in listed(objective)]
    check_names(model, frozenset().union(*(one.layers() for one in parsed)), True)
    rows: list[Any] = [None] * len(parsed)
    for members in groups(parsed):
        chosen = [parsed[i] for i in members]
        names = _engine.in_order(model, chosen[0].layers())
        first = jax.ShapeDtypeStruct((1, *photos.shape[1:]), photos.dtype)
        shapes = _engine.seen.eval_shape(model, normalize, first, names=names)
        known = {name: a.shape for name, a in zip(names, shapes, strict=True)}
        frame = (1, *photos.shape[1:])
        for one in chosen:
            objectives.check(one, {**known, IMAGES: frame, OPACITY: (*frame[:3], 1)})
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chosen)
        values = _measure(
            model,
            normalize,
            stacked,
            photos,
            count=len(members),
            names=names,
            batch_size=batching.chunk_size(batch_size, model, photos),
        )
        for row, i in enumerate(members):
            rows[i] = values[row]
    return jnp.stack(rows)


@partial(jax.jit, static_argnames=("count", "names", "batch_size"))
def _measure(model, normalize, stacked, photos, *, count, names, batch_size):
    def of_photo(objective, acts, photo):
        view = {name: a[None] for name, a in acts.items()}
        view = {**view, IMAGES: photo[None], OPACITY: jnp.ones((1, *photo.shape[:2], 1), jnp.float32)}
        return jnp.broadcast_to(objective(view), (1,))[0].astype(jnp.float32)

    def chunk(x):
        acts = _engine.see(model, normalize, names, x)
        # An objective of a whole layer has no data from which to infer their number.
        of_all = jax.vmap(jax.vmap(of_photo, (None, 0, 0)), (0, None, None), axis_size=count)
        return of_all(stacked, acts, x).T

    return batching.map_chunks(chunk, photos, batch_size=batch_size).T


class Exemplars(NamedTuple):
    """The photos that excite objectives most, best first."""

    indices: Int[Array, "objectives top"]
    values: Float[Array, "objectives top"]

    __repr__ = brief


@completed
def exemplars(
    model: Callable[..., Any],
    objective: str | Objective | Callable[..., Any] | Sequence[Any],
    photos: Float[Array, "batch height width channels"],
    *,
    top: int = 9,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    batch_size: int | None = None,
) -> Exemplars:
    """Return the photos with the largest values of each objective, to show beside synthetic images.

    Args:
        top: Number of photos per objective, at most all.

    Returns:
        Indices into the photos, and values.
    """
    values = measure(model, objective, photos, normalize=normalize, batch_size=batch_size)
    best, indices = jax.lax.top_k(values, min(checks.positive(top, "top"), values.shape[1]))
    return Exemplars(indices, best)


def percentile(values: Float[Array, " runs"], real: Float[Array, "runs photos"]) -> Float[Array, " runs"]:
    """Return the percentage of the photos' values that lie below each value."""
    return jnp.asarray(100 * (np.asarray(real) < np.asarray(values)[:, None]).mean(1), jnp.float32)
