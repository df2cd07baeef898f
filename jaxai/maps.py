"""Post-processing of raw maps: resizing, scaling, reducing channels. All functions are NaN-safe."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._frame import checks

__all__ = ["magnitude", "normalize", "upsample"]


def upsample(maps: Float[Array, "*batch h w"], size: Sequence[int]) -> Float[Array, "*batch height width"]:
    """Resize maps to `size` (rows, columns), bilinear between half-pixel centres, without antialiasing.

    Args:
        maps: [..., h, w], any leading axes.
        size: Rows and columns of the result.
    """
    shape = (*maps.shape[:-2], *size)
    return jax.image.resize(maps, shape, method="bilinear", antialias=False)


def normalize(
    maps: Float[Array, "*batch height width"], *, method: str = "minmax", percentile: float = 100.0
) -> Float[Array, "*batch height width"]:
    """Scale each map separately for display; a constant map becomes zeros and NaN counts as zero.

    Args:
        maps: Raw maps, any leading axes.
        method: `"minmax"` maps the range to [0, 1]; `"max_abs"` divides by the largest magnitude, which keeps
            signs: [-1, 1]; `"positive"` drops negative values and divides by the maximum: [0, 1].
        percentile: Use this percentile (of magnitudes, 0 to 100) as the maximum and clip values above it.

    Returns:
        Maps of the same shape.
    """
    checks.choice(method, "method", ("minmax", "max_abs", "positive"))
    maps = jnp.nan_to_num(maps, nan=0.0)
    axes = (-2, -1)
    if method == "minmax":
        low = maps.min(axes, keepdims=True)
        maps = maps - low
    elif method == "positive":
        maps = jnp.maximum(maps, 0)
    size = jnp.percentile(jnp.abs(maps), percentile, axis=axes, keepdims=True)
    scaled = maps / jnp.where(size > 0, size, 1)
    return jnp.clip(jnp.where(size > 0, scaled, 0), -1, 1)


def magnitude(
    attributions: Float[Array, "*batch height width channels"], *, method: str = "max"
) -> Float[Array, "*batch height width"]:
    """Reduce the channels of signed pixel attributions to one map.

    Args:
        attributions: Signed values per pixel and channel.
        method: `"max"`: largest magnitude (Simonyan et al. 2014); `"l2"`: Euclidean norm; `"sum"`: signed
            sum; `"sum_abs"`: sum of magnitudes.
    """
    checks.choice(method, "method", ("max", "l2", "sum", "sum_abs"))
    if method == "max":
        return jnp.abs(attributions).max(-1)
    if method == "l2":
        return jnp.sqrt(jnp.square(attributions).sum(-1))
    if method == "sum":
        return attributions.sum(-1)
    return jnp.abs(attributions).sum(-1)
