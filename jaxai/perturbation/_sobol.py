"""Sobol attribution: the fraction of the score's variance in which a cell of the image is involved."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _sensitivity

ESTIMATORS = ("jansen", "homma", "janon", "glen", "saltelli")


def _cost(options: Any) -> Passes:
    rows, columns = checks.pair(options.grid, "grid")
    return Passes(options.num_designs * (rows * columns + 2))


@describes(title="Sobol", result="heatmap", cost=_cost, unit="total Sobol index")
def sobol(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array | None = None,
    grid: int | tuple[int, int] = 8,
    num_designs: int = 32,
    sampler: str = "sobol",
    estimator: str = "jansen",
    fill: Any = 0.0,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Map the total Sobol index of each cell of a grid, for logits under masks that dim cells at random.

    The total index is the expected fraction of the variance that remains when all other cells are fixed: the
    cell's own effect and all its interactions. Costs num_designs (cells + 2) forward passes.

    Args:
        key: Scrambles the quasi-random points (and draws `fill="noise"`); None uses the unscrambled sequence.
            Inside `jit` the key must be a constant, not an argument.
        grid: Number of cells down and across.
        num_designs: Number of points N of the two base designs, preferably a power of two.
        sampler: `"sobol"`, `"halton"` or `"latin_hypercube"`.
        estimator: `"jansen"`, `"homma"`, `"janon"`, `"glen"` or `"saltelli"`.
        fill: Content to which a cell fades, in the model's input space, as in `jaxai.lime`.

    Returns:
        Total indices [batch, height, width] ([batch, rows, columns] without `upsample`); [batch, k, ...]
        for k classes per image. 0 where the score never changes.

    References:
        Fel et al.: Look at the Variance! Efficient Black-box Explanations with Sobol-based Sensitivity
        Analysis. NeurIPS 2021, arXiv 2111.04138, section 3.
        Jansen: Analysis of variance designs for model output. Computer Physics Communications 117, 1999.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: x[:, 0, :2].sum(1)  # two of four pixels, alike and without interaction
        >>> total = jaxai.sobol(model, jnp.ones((1, 2, 2, 1)), 0, grid=2, num_designs=1024, upsample=False)
        >>> [[round(float(value), 2) for value in row] for row in total[0]]
        [[0.5, 0.5], [0.0, 0.0]]
    """
    grid = checks.pair(grid, "grid")
    checks.choice(estimator, "estimator", ESTIMATORS)
    if checks.positive(num_designs, "num_designs") < 2:
        raise ValueError(f"`num_designs` must be at least 2; got {num_designs}")
    masks = sobol_design(grid[0] * grid[1], num_designs, sampler=sampler, key=key)
    images, values = _sensitivity.grid_scores(
        model, images, targets, masks, grid=grid, fill=fill, key=key, batch_size=batch_size
    )
    indices = sobol_indices(jnp.moveaxis(values, 1, -1), grid[0] * grid[1], estimator=estimator)
    return _sensitivity.as_map(indices, images, grid, upsample)


def sobol_design(
    dimensions: int, num_designs: int, *, sampler: str = "sobol", key: jax.Array | None = None
) -> np.ndarray:
    """Return the points at which `sobol_indices` needs a function's values.

    Args:
        dimensions: d, dimensions of the function's argument in the unit cube.
        num_designs: N, points of the base designs A and B.
        sampler: As in `sobol`.
        key: As in `sobol`.

    Returns:
        float32 [N (d + 2), d]: A, B, and per dimension A with that column taken from B.
    """
    both = _sensitivity.points(sampler, 2 * dimensions, num_designs, key)
    a, b = both[:, :dimensions], both[:, dimensions:]
    mixed = np.where(np.eye(dimensions, dtype=bool)[:, None, :], b, a)
    return np.concatenate([a, b, mixed.reshape(-1, dimensions)])


@partial(jax.jit, static_argnames=("dimensions", "estimator"))
def sobol_indices(
    values: Float[Array, "*batch points"], dimensions: int, *, estimator: str = "jansen"
) -> Float[Array, "*batch dimensions"]:
    """Estimate the total Sobol indices of a function from its values on `sobol_design`.

    Args:
        values: float [..., N (d + 2)].
        dimensions: d.
        estimator: As in `sobol`.

    Returns:
        Total indices [..., d]; 0 where the values do not vary.
    """
    number = values.shape[-1] // (dimensions + 2)
    # Only differences matter; subtracting the mean preserves float32's precision for them.
    values = values.astype(jnp.float32)
    values = values - values.mean(-1, keepdims=True)
    a = values[..., None, :number]
    c = values[..., 2 * number :].reshape(*values.shape[:-1], dimensions, number)
    mean, variance = a.mean(-1), a.var(-1, ddof=1)
    product = (a * c).mean(-1)
    if estimator == "jansen":
        top = jnp.square(a - c).mean(-1) / 2
    elif estimator in ("homma", "saltelli"):
        top = variance - product + mean**2
    elif estimator == "janon":
        middle = (mean + c.mean(-1)) / 2
        variance = (jnp.square(a).sum(-1) + jnp.square(c).sum(-1)) / (2 * (number - 1)) - middle**2
        top = variance - (product - middle**2)
    else:
        centred = (a - mean[..., None]) * (c - c.mean(-1, keepdims=True))
        deviation = jnp.sqrt(variance * c.var(-1, ddof=1))
        top, variance = deviation - centred.sum(-1) / (number - 1), deviation
    return jnp.where(variance > 0, top / jnp.where(variance > 0, variance, 1), 0.0)
