"""SLIC superpixels compiled for the device: k-means in colour and place, then connected pieces."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._frame import checks
from . import _fills

# Pieces smaller than this share of a regular cell are joined to a neighbour (scikit-image's default).
_SMALLEST = 0.5
_REACH = 2
_BT709 = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
    np.float32,
)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)


def slic(
    photos: Float[ArrayLike, "batch height width 3"],
    *,
    n_segments: int = 60,
    compactness: float = 10.0,
    sigma: float = 1.0,
    iterations: int = 10,
) -> Int[Array, "batch height width"]:
    """Cut photographs into SLIC superpixels on the device; runs under `jit` and `vmap`.

    It follows scikit-image's `slic`: CIELAB colours, a Gaussian blur, centres on a regular grid, ten rounds
    of k-means where a centre competes for the pixels around it. Then every superpixel is made connected:
    pieces smaller than half a regular cell join the largest neighbour. (scikit-image joins them to the
    neighbour that its scan met last, so labels agree up to such pieces.)

    Args:
        photos: Pixels in [0, 1], float [batch, height, width, 3].
        n_segments: About how many superpixels; `slic_bound` tells how many there can be at most.
        compactness: Weight of place against colour.
        sigma: Width of the blur in pixels; 0 for none.
        iterations: Rounds of k-means.

    Returns:
        Labels int32 [batch, height, width], 0 to S - 1 in row-major order of first appearance; S differs
        between images.

    Raises:
        ValueError: If the photos are not [batch, height, width, 3], or a number is not positive.

    References:
        Achanta et al.: SLIC Superpixels Compared to State-of-the-Art Superpixel Methods. PAMI 2012,
        algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxai.perturbation import slic
        >>> photo = jnp.zeros((1, 8, 8, 3)).at[:, :, 4:].set(1.0)
        >>> slic(photo, n_segments=4, sigma=0.0)[0, 3].tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]
    """
    photos = checks.images(photos, "photos")
    if photos.shape[-1] != 3:
        raise ValueError(f"`photos` must have three channels; got {photos.shape[-1]}")
    if not compactness > 0 or not sigma >= 0:
        raise ValueError(
            f"`compactness` must be positive and `sigma` not negative; got {compactness}, {sigma}"
        )
    return _slic(
        photos.astype(jnp.float32),
        np.float32(compactness),
        n_segments=checks.positive(n_segments, "n_segments"),
        sigma=float(sigma),
        iterations=checks.positive(iterations, "iterations"),
    )


def slic_bound(size: tuple[int, int], *, n_segments: int = 60) -> int:
    """Return how many superpixels `slic` makes at most of an image of this size: a static `num_segments`."""
    return max(2, size[0] * size[1] // _smallest(_grid(size, n_segments)[1]))


def _smallest(steps):
    return max(1, int(_SMALLEST * steps[0] * steps[1]))


def _grid(size, n_segments):
    """Return the rows and columns of scikit-image's regular centres, and their distances."""
    from skimage.util import regular_grid

    slices = regular_grid((1, *size), n_segments)[1:]
    steps = [s.step or 1 for s in slices]
    return [np.arange(side)[s] for side, s in zip(size, slices, strict=True)], steps


@partial(jax.jit, static_argnames=("n_segments", "sigma", "iterations"))
def _slic(photos, compactness, *, n_segments, sigma, iterations):
    low, high = photos.min((1, 2, 3), keepdims=True), photos.max((1, 2, 3), keepdims=True)
    colours = lab((photos - low) / jnp.where(high > low, high - low, 1))
    if sigma > 0:
        colours = _fills.blur(colours, sigma)
    starts, steps = _grid(photos.shape[1:3], n_segments)

    def one(image):
        labels = _k_means(image / compactness, starts, steps, iterations)
        return _number(_join(_components(labels), _smallest(steps)))

    return jax.vmap(one)(colours)


def lab(pixels: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Return CIELAB colours (D65, two degrees) of sRGB pixels in [0, 1]."""
    linear = jnp.where(pixels > 0.04045, ((pixels + 0.055) / 1.055) ** 2.4, pixels / 12.92)
    xyz = jnp.einsum("...c,dc->...d", linear, _BT709, precision="highest") / _WHITE
    f = jnp.where(xyz > 0.008856, jnp.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _k_means(colours, starts, steps, iterations):
    """Return the centre nearest to each pixel, among those whose grid cell is at most two cells away."""
    height, width = colours.shape[:2]
    rows, columns = len(starts[0]), len(starts[1])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # The candidates of a pixel: the centres around its own cell of the grid.
    own = [
        np.abs(np.arange(side)[:, None] - start[None, :]).argmin(1)
        for side, start in zip((height, width), starts, strict=True)
    ]
    scale = np.float32(1 / max(steps) ** 2)
    features = jnp.concatenate([jnp.stack([y, x], axis=-1), colours], axis=-1)
    place = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)

    def assign(centres, with_colour):
        best = jnp.full((height, width), jnp.inf, jnp.float32)
        label = jnp.zeros((height, width), jnp.int32)
        table = centres.reshape(rows, columns, -1)
        for i in range(-_REACH, _REACH + 1):
            for j in range(-_REACH, _REACH + 1):
                down, across = own[0] + i, own[1] + j
                inside = ((down >= 0) & (down < rows))[:, None] & ((across >= 0) & (across < columns))[None]
                down, across = np.clip(down, 0, rows - 1), np.clip(across, 0, columns - 1)
                centre = table[down][:, across]
                apart = jnp.square(features - centre)
                near = (jnp.abs(y - centre[..., 0]) <= 2 * steps[0] + 1) & (
                    jnp.abs(x - centre[..., 1]) <= 2 * steps[1] + 1
                )
                distance = apart[..., :2].sum(-1) * scale + with_colour * apart[..., 2:].sum(-1)
                distance = jnp.where(inside & near, distance, jnp.inf)
                number = down[:, None] * columns + across[None]
                label = jnp.where(distance < best, number, label)
                best = jnp.minimum(distance, best)
        return label

    def update(label, centres):
        flat, total = label.reshape(-1), rows * columns
        sums = jax.ops.segment_sum(features.reshape(-1, features.shape[-1]), flat, num_segments=total)
        counts = jax.ops.segment_sum(jnp.ones_like(flat, jnp.float32), flat, num_segments=total)[:, None]
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), centres)

    def step(index, state):
        centres, _ = state
        # Without colours yet, the first round divides the image by place alone.
        label = assign(centres, jnp.where(index == 0, 0.0, 1.0))
        return update(label, centres), label

    centres = jnp.concatenate([place, jnp.zeros((len(place), colours.shape[-1]), jnp.float32)], axis=1)
    return jax.lax.fori_loop(0, iterations, step, (centres, jnp.zeros((height, width), jnp.int32)))[1]


def _shifted(values, filler):
    """Return the values of the pixel above, below, left and right of each pixel."""
    padded = jnp.pad(values, 1, constant_values=filler)
    return padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]


def _components(labels):
    """Number connected pieces of equal label by the index of their first pixel in row-major order."""
    height, width = labels.shape
    index = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width)
    alike = [other == labels for other in _shifted(labels, -1)]

    def spread(state):
        root, _ = state
        lowest = root
        for same, other in zip(alike, _shifted(root, height * width), strict=True):
            lowest = jnp.where(same, jnp.minimum(lowest, other), lowest)
        # A piece's number is one of its pixels, so looking up that pixel's number doubles the reach.
        for _ in range(3):
            lowest = lowest.reshape(-1)[lowest]
        return lowest, (lowest != root).any()

    return jax.lax.while_loop(lambda state: state[1], spread, (index, jnp.array(True)))[0]


def _join(pieces, smallest):
    """Join every piece of fewer than `smallest` pixels to its largest neighbour, until none is left."""
    height, width = pieces.shape
    total = height * width

    def larger(state):
        pieces, _ = state
        flat = pieces.reshape(-1)
        sizes = jax.ops.segment_sum(jnp.ones_like(flat), flat, num_segments=total)
        # Rank by size, then by number: pieces only ever join one of higher rank, so no circles arise.
        order = jnp.argsort(sizes, stable=True)
        rank = jnp.zeros(total, jnp.int32).at[order].set(jnp.arange(total, dtype=jnp.int32))
        best = jnp.full(total, -1, jnp.int32)
        for other in _shifted(pieces, -1):
            differs = (other != pieces) & (other >= 0)
            value = jnp.where(differs, rank[jnp.maximum(other, 0)], -1).reshape(-1)
            best = jnp.maximum(best, jax.ops.segment_max(value, flat, num_segments=total))
        small = (sizes > 0) & (sizes < smallest) & (best > rank)
        target = jnp.where(small, order[jnp.maximum(best, 0)], jnp.arange(total))
        for _ in range(max(1, total.bit_length())):
            target = target[target]
        joined = target[flat].reshape(height, width).astype(jnp.int32)
        return joined, (joined != pieces).any()

    return jax.lax.while_loop(lambda state: state[1], larger, (pieces, jnp.array(True)))[0]


def _number(pieces):
    """Number pieces 0, 1, 2, ... in the order of their first pixel."""
    flat = pieces.reshape(-1)
    total = flat.shape[0]
    first = jax.ops.segment_min(jnp.arange(total, dtype=jnp.int32), flat, num_segments=total)
    starts = first[flat] == jnp.arange(total)
    number = jnp.cumsum(starts) - 1
    return number[first[flat]].reshape(pieces.shape).astype(jnp.int32)
