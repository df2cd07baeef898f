"""Shared parts of Sobol and HSIC attribution: quasi-random masks on a grid and their scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .. import maps
from .._frame import checks
from . import _fills, _scoring, _segments

SAMPLERS = ("sobol", "halton", "latin_hypercube")


def points(sampler: str, dimensions: int, number: int, key: jax.Array | None) -> np.ndarray:
    """Return quasi-random points, float32 [number, dimensions] in [0, 1), from scipy on the host.

    Args:
        sampler: `"sobol"`, `"halton"` or `"latin_hypercube"`.
        dimensions: Dimensions of the cube.
        number: Number of points.
        key: Scrambles the sequence; None uses the unscrambled sequence (without its first point, the origin).

    Raises:
        TypeError: If the key is traced; inside `jit` it must be a constant.
        ValueError: If the sampler is unknown, or `"latin_hypercube"` has no key.
    """
    from scipy.stats import qmc

    checks.choice(sampler, "sampler", SAMPLERS)
    seed = None if key is None else _seed(checks.key(key))
    if sampler == "latin_hypercube":
        if seed is None:
            raise ValueError("`sampler='latin_hypercube'` is random and needs a `key`; got None")
        return qmc.LatinHypercube(dimensions, rng=seed).random(number).astype(np.float32)
    kind = qmc.Sobol if sampler == "sobol" else qmc.Halton
    sequence = kind(dimensions, scramble=seed is not None, rng=seed)
    if seed is None:
        sequence.fast_forward(1)
    return _draw(sequence, number)


def _seed(key: jax.Array) -> int:
    if isinstance(key, Tracer):
        raise TypeError(
            "`key` must be a concrete key, as scipy makes the points on the host; got a traced one"
        )
    with jax.ensure_compile_time_eval():
        return int(jax.random.bits(key, (), jnp.uint32))


def _draw(sequence: Any, number: int) -> np.ndarray:
    """Draw any number of points, without scipy's warning that it is not a power of two."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return sequence.random(number).astype(np.float32)


def grid_scores(
    model: Any,
    images: Any,
    targets: Any,
    masks: np.ndarray,
    *,
    grid: tuple[int, int],
    fill: Any,
    key: jax.Array | None,
    batch_size: int | None,
) -> tuple[jax.Array, jax.Array]:
    """Return the checked images, and their logits for masks [samples, cells]: [batch, samples, *k]."""
    model, images, targets = _scoring.prepare(model, images, targets)
    cells = _segments.grid(images.shape[1:3], *grid)
    labels = jnp.broadcast_to(cells, images.shape[:3])
    background = _fills.background(fill, images, labels, masks.shape[1], key=key)
    chunk = _scoring.in_flight(model, images, batch_size, images.shape[0] * len(masks))
    targets = _scoring.frozen(model, images, targets, chunk)
    values = _scoring.of_masks(
        model, images, background, labels, jnp.asarray(masks), targets, batch_size=chunk, probability=False
    )
    _scoring.check_finite(values)
    return images, values


def as_map(indices: jax.Array, images: jax.Array, grid: tuple[int, int], upsample: bool) -> jax.Array:
    """Return indices [batch, *k, cells] as maps of the grid, or of the image, bilinear."""
    cells = indices.reshape(*indices.shape[:-1], *grid)
    return maps.upsample(cells, images.shape[1:3]) if upsample else cells
