"""Greedy search for an order of regions, as a reference for what `relevance_gain` can attain."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .._frame import checks
from ..perturbation import _segments
from ..perturbation._scoring import Perturbation
from . import _hidden

GRID = (7, 7)
# The number of candidates decreases in such steps, so that few programs are compiled.
_SHRINK = 0.7


def search(
    model: Any,
    images: Any,
    targets: Any,
    *,
    grid: tuple[int, int] = GRID,
    fill: Any = "mean",
    batch_size: int | None = None,
) -> Any:
    """Return the best order of a grid's cells found by a greedy search, as maps [batch, height, width].

    It alternates between the cell whose removal lowers the probability most, after removal of the most
    relevant ones found, and the cell whose removal lowers it least, after removal of the least relevant ones:
    both curves of `relevance_gain` follow the best next step. The result shows what an explanation could
    attain on this grid, but is not an explanation. Costs about 0.6 cells^2 forward passes per image.

    Args:
        model: As for `jaxai.metrics.deletion`.
        images: As for `deletion`.
        targets: One target per image.
        grid: Rows and columns of cells.
        fill: As for `deletion`; a fill without randomness.
        batch_size: As for `deletion`.

    References:
        Wang, Wang: Benchmarking Deletion Metrics with the Principled Explanations. ICML 2024 (TRACE).
    """
    images = checks.images(images)
    rows, columns = checks.pair(grid, "grid")
    cells = _segments.grid(images.shape[1:3], min(rows, images.shape[1]), min(columns, images.shape[2]))
    count = int(cells.max()) + 1
    asked = _hidden.ask(
        model,
        images,
        jnp.zeros(images.shape[:3]),
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=True,
        segments=cells,
        num_segments=count,
    )
    batch = len(images)
    gone = {side: np.zeros((batch, count), bool) for side in ("most", "least")}
    rank = np.zeros((batch, count), np.float32)
    free = np.broadcast_to(np.arange(count), (batch, count))
    sizes = _sizes(count)
    for step in range(count):
        side = "most" if step % 2 == 0 else "least"
        number = free.shape[1]
        padded = min(size for size in sizes if size >= number)
        candidates = np.concatenate([free, np.repeat(free[:, :1], padded - number, axis=1)], axis=1)
        arrays = (asked.regions.labels, jnp.asarray(gone[side]), jnp.asarray(candidates, jnp.int32))
        values = np.asarray(_hidden.scores(asked, Perturbation(_one_more, (), arrays), padded))[:, :number]
        best = values.argmin(1) if side == "most" else values.argmax(1)
        image, cell = np.arange(batch), free[np.arange(batch), best]
        gone[side][image, cell] = True
        rank[image, cell] = (count - step) * (1 if side == "most" else -1)
        free = free[np.arange(number) != best[:, None]].reshape(batch, number - 1)
    return _segments.paint(jnp.asarray(rank), asked.regions.labels)


def _sizes(count):
    """Return the numbers of candidates for which programs are compiled."""
    found = [count]
    while found[-1] > 1:
        found.append(int(found[-1] * _SHRINK))
    return found


def _one_more(labels, gone, candidates, pairs):
    owners, rows = pairs
    own = labels[owners]
    before = _segments.paint(gone[owners], own)
    return before | (own == candidates[owners, rows][:, None, None])
