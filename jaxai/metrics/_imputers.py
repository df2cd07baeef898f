"""Content of removed pixels: the fills that the package's docstring lists, shared by the metrics."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

from .._cpu import threefry
from ..perturbation import _fills, _scoring
from ._linear import linear

NAMES = ("mean", "segment_mean", "neighbours", "blur", "rise_blur", "noise", "uniform", "linear")
# Names of fills that differ in `jaxai.perturbation`.
_OTHER = {"mean": "image_mean", "segment_mean": "mean"}


@register_dataclass
@dataclass(frozen=True)
class Imputer:
    """Content of removed pixels: a background, or the solution of a linear system plus noise.

    Attributes:
        background: An array like the images; if a system is solved, the noise to add.
        solve: Whether to compute removed pixels by ROAD's linear system.
    """

    background: jax.Array
    solve: bool = field(default=False, metadata={"static": True})

    def __call__(self, images: jax.Array, owners: jax.Array, hidden: jax.Array) -> jax.Array:
        """Return the images `owners` with their pixels hidden where `hidden` [chunk, height, width] is 1."""
        x, behind = images[owners], self.background[owners]
        hidden = hidden.astype(x.dtype)
        if self.solve:
            found = linear(x, hidden).astype(x.dtype)
            return found + hidden[..., None] * behind
        return _scoring.blend(1 - hidden, x, behind)


def imputer(
    fill: Any,
    images: jax.Array,
    *,
    labels: jax.Array | None = None,
    count: int = 0,
    key: jax.Array | None = None,
    noise: float = 0.0,
) -> Imputer:
    """Return the imputer of a fill.

    Args:
        fill: A name of this module, or a value that broadcasts to the images.
        images: [batch, height, width, channels].
        labels: Superpixels [batch, height, width], for the fills that need them.
        count: Static number of superpixels.
        key: Randomness of noise; the same noise for all images.
        noise: Standard deviation of the noise added to `"linear"`.

    Raises:
        ValueError: If the name is unknown, or the value does not broadcast.
        TypeError: If noise has no key.
    """
    if not isinstance(fill, str):
        return Imputer(_fills.background(fill, images, labels, count))
    if fill not in (*NAMES, "image_mean"):
        raise ValueError(f"`fill` must be a value or one of {', '.join(NAMES)}; got {fill!r}")
    if labels is None and fill in ("segment_mean", "neighbours"):
        raise ValueError(f"`fill={fill!r}` needs superpixels, `segments=`")
    if fill == "rise_blur":
        height, width = images.shape[1:3]
        return Imputer(_fills.filtered(images, _rise_matrix(height), _rise_matrix(width)))
    if key is None:
        if fill in ("noise", "uniform") or noise:
            raise TypeError(f"`fill={fill!r}` needs a `key`")
    elif fill == "uniform":
        low, high = (edge((1, 2), keepdims=True).astype(jnp.float32) for edge in (images.min, images.max))
        drawn = threefry.uniform(jax.random.fold_in(key, 0x756E6966), images.shape[1:])
        return Imputer((low + (high - low) * drawn).astype(images.dtype))
    if fill == "linear":
        added = jnp.zeros(images.shape[1:], jnp.float32)
        if noise and key is not None:
            added = noise * threefry.normal(jax.random.fold_in(key, 0x726F6164), images.shape[1:])
        return Imputer(jnp.broadcast_to(added.astype(images.dtype), images.shape), solve=True)
    return Imputer(_fills.background(_OTHER.get(fill, fill), images, labels, count, key=key))


def _rise_matrix(length: int) -> jax.Array:
    """Return the matrix of RISE's kernel: a Gaussian of sigma 5 reflected within eleven pixels."""
    offsets = np.arange(-20, 21)
    weights = np.exp(-0.5 * (offsets / 5) ** 2)
    sources = np.mod(np.arange(11)[:, None] + offsets, 22)
    at_centre = np.where(sources > 10, 21 - sources, sources) == 5
    kernel = (weights * at_centre).sum(1) / weights.sum()
    away = np.arange(length)[:, None] - np.arange(length) + 5
    return jnp.asarray(np.where((away >= 0) & (away < 11), kernel[np.clip(away, 0, 10)], 0), jnp.float32)
