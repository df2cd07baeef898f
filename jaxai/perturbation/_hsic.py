"""HSIC attribution: how strongly the score depends on whether a cell of the image is shown."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._frame import batching, checks
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _sensitivity


@describes(title="HSIC", result="heatmap", cost=lambda o: Passes(o.num_designs), unit="dependence")
def hsic(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array | None = None,
    grid: int | tuple[int, int] = 8,
    num_designs: int = 500,
    sampler: str = "sobol",
    width: float | None = None,
    fill: Any = 0.0,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Map the Hilbert-Schmidt independence criterion between each cell's mask bit and the logit.

    Cells are shown or hidden by quasi-random bits; the dependence is measured with the Dirac kernel on bits
    and a Gaussian kernel on scores (Xplique's definitions). Costs num_designs forward passes, whatever the
    grid.

    Args:
        key: Scrambles the quasi-random points (and draws `fill="noise"`); None uses the unscrambled sequence.
            Inside `jit` the key must be a constant, not an argument.
        grid: Number of cells down and across.
        num_designs: Number of masks.
        sampler: `"sobol"`, `"halton"` or `"latin_hypercube"` (the paper's; needs a key).
        width: Width of the Gaussian kernel on scores; None is the magnitude of their median, as in Xplique.
        fill: Content of hidden cells, in the model's input space, as in `jaxai.lime`.

    Returns:
        Maps [batch, height, width] ([batch, rows, columns] without `upsample`); [batch, k, ...] for k
        classes per image.

    References:
        Novello, Fel, Vigouroux: Making Sense of Dependence: Efficient Black-box Explanations Using
        Dependence Measure. NeurIPS 2022, arXiv 2206.06219, equations 4 to 6.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: x[:, 0, 0] + 1  # the upper left pixel alone
        >>> dependence = jaxai.hsic(model, jnp.ones((1, 2, 2, 1)), 0, grid=2, num_designs=64, upsample=False)
        >>> int(dependence[0].argmax())
        0
    """
    grid = checks.pair(grid, "grid")
    if checks.positive(num_designs, "num_designs") < 2:
        raise ValueError(f"`num_designs` must be at least 2; got {num_designs}")
    if width is not None and not width > 0:
        raise ValueError(f"`width` must be positive; got {width!r}")
    masks = np.round(_sensitivity.points(sampler, grid[0] * grid[1], num_designs, key))
    images, values = _sensitivity.grid_scores(
        model, images, targets, masks, grid=grid, fill=fill, key=key, batch_size=batch_size
    )
    indices = hsic_indices(
        masks, jnp.moveaxis(values, 1, -1), width=None if width is None else np.float32(width)
    )
    return _sensitivity.as_map(indices, images, grid, upsample)


@jax.jit
def hsic_indices(
    masks: Float[Array, "samples dimensions"],
    values: Float[Array, "*batch samples"],
    *,
    width: Float[Array, ""] | None = None,
) -> Float[Array, "*batch dimensions"]:
    """Estimate the HSIC between each column of binary masks and values.

    With K_ij = 1.5 - (z_i - z_j)^2 of a column, L_ij = exp(-(y_i - y_j)^2 / (2 width^2)) and H the centring
    matrix, it is sum(H K H * H L H) / n.

    Args:
        masks: Binary, float [n, d].
        values: float [..., n].
        width: Width of the kernel on values; None is the magnitude of the median value.

    Returns:
        float32 [..., d].
    """
    number = masks.shape[0]
    flat = values.reshape(-1, number).astype(jnp.float32)

    def one(y):
        scale = jnp.abs(jnp.median(y)) if width is None else width
        square = jnp.square(y[:, None] - y[None, :])
        # L - 1, which is the same after centring: near 1, float32 has no digits left for large scores. A
        # median of zero gives the narrowest kernel, which only distinguishes equal from unequal.
        kernel = jnp.where(square > 0, jnp.expm1(-square / jnp.maximum(2 * scale**2, 1e-30)), 0.0)
        centred = kernel - kernel.mean(0, keepdims=True) - kernel.mean(1, keepdims=True) + kernel.mean()
        # K is rank two after centring: H (1.5 - (z_i - z_j)^2) H = 2 (H z) (H z)'.
        z = masks - masks.mean(0, keepdims=True)
        return 2 * jnp.einsum("id,ij,jd->d", z, centred, z, precision="highest") / number

    found = batching.map_chunks(jax.vmap(one), flat, batch_size=1)
    return found.reshape(*values.shape[:-1], masks.shape[1])
