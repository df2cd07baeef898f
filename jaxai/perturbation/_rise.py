"""RISE: the average of random smooth masks, weighted by the score of the masked image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._frame import batching, checks
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _fills, _scoring

DIVISORS = ("probability", "masks")


@describes(
    title="RISE",
    result="heatmap",
    cost=lambda o: Passes(o.num_masks),
    explains="probability",
    unit="mean probability",
)
def rise(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    num_masks: int = 4000,
    grid: int | tuple[int, int] = 7,
    probability: float = 0.5,
    fill: Any = 0.0,
    divisor: str = "probability",
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Average random masks by the probability of the target in the masked image.

    A mask is a grid of random bits, enlarged by bilinear interpolation to slightly more than the image and
    cropped at a random shift. Masks are generated on the device when needed and never stored; the maps of all
    images and classes come from one matrix product per chunk.

    Args:
        key: Randomness of the masks; a typed key.
        num_masks: Number of masks, shared by the images. The paper uses 4000 for VGG16.
        grid: Number of bits down and across.
        probability: Probability that a bit is shown.
        fill: Content of hidden pixels, in the model's input space; 0, as in the paper, is the mean colour
            after ImageNet normalisation. Also `"image_mean"`, `"blur"` or `"noise"`.
        divisor: `"probability"` divides the weighted sum by num_masks x probability (the paper's equation 6);
            `"masks"` divides each pixel by the sum of its masks (Xplique).

    Returns:
        Maps [batch, height, width]; [batch, k, height, width] for k classes per image.

    References:
        Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC
        2018, arXiv 1806.07421, equation 6 and section 3.2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: x[:, 0, 0, :]  # looks at the upper left pixel alone
        >>> image, key = jnp.ones((1, 8, 8, 1)), jax.random.key(0)
        >>> m = jaxai.rise(model, image, lambda scores: scores[:, 0], key=key, num_masks=200)
        >>> bool(m[0, 0, 0] == m.max())
        True
    """
    model, images, targets = _scoring.prepare(model, images, targets, probability=True)
    key, num_masks = checks.key(key), checks.positive(num_masks, "num_masks")
    checks.choice(divisor, "divisor", DIVISORS)
    if not 0 < probability < 1:
        raise ValueError(f"`probability` must lie between 0 and 1; got {probability!r}")
    shape = (checks.pair(grid, "grid"), images.shape[1:3])
    masks = _scoring.Perturbation(smooth_masks, shape, (key, np.float32(probability)))
    background = _fills.background(fill, images, None, 0, key=key)
    chunk = _scoring.in_flight(model, images, batch_size, images.shape[0] * num_masks)
    targets = _scoring.frozen(model, images, targets, chunk)
    values = _scoring.scores(
        model,
        _scoring.Perturbation(_masked, (num_masks,), (images, background, masks)),
        targets,
        count=images.shape[0] * num_masks,
        batch_size=chunk,
        probability=True,
    )
    values = values.reshape(images.shape[0], num_masks, *values.shape[1:])
    _scoring.check_finite(values)
    return _average(values, masks, np.float32(probability), divisor=divisor, batch_size=chunk)


def smooth_masks(
    grid: tuple[int, int], size: tuple[int, int], key: jax.Array, probability: jax.Array, indices: jax.Array
) -> Float[Array, "chunk height width"]:
    """Return the masks of these indices; each depends on (key, index) only.

    A grid cell covers ceil(size / grid) pixels; the bits are enlarged to grid + 1 cells with half-pixel
    centres and cropped at a shift of less than a cell, as in the authors' program.
    """

    def one(index):
        # One draw for bits and shifts, because each call of the generator takes long to compile.
        noise = jax.random.uniform(jax.random.fold_in(key, index), (grid[0] * grid[1] + 2,), jnp.float32)
        shown = (noise[2:] < probability).astype(jnp.float32).reshape(grid)
        down, across = (_interpolation(size[axis], grid[axis], noise[axis]) for axis in (0, 1))
        return jnp.einsum("hi,ij,wj->hw", down, shown, across, precision="highest")

    return jax.vmap(one)(indices)


def _interpolation(length, bits, noise):
    """Return the matrix [length, bits] that enlarges `bits` to (bits + 1) cells and crops at random."""
    cell = -(-length // bits)
    shift = jnp.floor(noise * cell)
    position = (jnp.arange(length, dtype=jnp.float32) + shift + 0.5) * (bits / ((bits + 1) * cell)) - 0.5
    # Beyond the outer bits' centres the grid is mirrored, as scikit-image's `mode="reflect"` does.
    position = jnp.abs(position)
    position = jnp.clip(jnp.minimum(position, 2 * (bits - 1) - position), 0, bits - 1)
    return jnp.maximum(0, 1 - jnp.abs(position[:, None] - jnp.arange(bits, dtype=jnp.float32)[None]))


def _masked(num_masks, images, background, masks, indices):
    owners = indices // num_masks
    shown = masks(indices % num_masks).astype(images.dtype)
    if images.shape[0] > 1:
        images, background = images[owners], background[owners]
    return _scoring.blend(shown, images, background), owners


@partial(jax.jit, static_argnames=("divisor", "batch_size"))
def _average(values, masks, probability, *, divisor, batch_size):
    """Sum masks weighted by values [batch, masks, *k] and divide: float32 [batch, *k, height, width]."""
    count = values.shape[1]
    # [masks, batch, *k]: all images and classes use the same masks.
    weights = jnp.moveaxis(values, 1, 0)

    def some(chunk, valid):
        indices, weight = chunk
        shown = masks(indices) * valid[:, None, None]
        flat = shown.reshape(shown.shape[0], -1)
        total = jnp.dot(weight.reshape(weight.shape[0], -1).T, flat, precision="highest")
        return total.reshape(*weight.shape[1:], *shown.shape[1:]), shown.sum(0)

    # A mask needs a fraction of an image's memory in the network, and fewer chunks are summed faster.
    total, shown = batching.sum_chunks(some, (jnp.arange(count), weights), batch_size=8 * batch_size)
    if divisor == "probability":
        return total / (count * probability)
    return total / jnp.where(shown > 0, shown, 1).reshape((1,) * (total.ndim - 2) + shown.shape)
