"""Superpixels: computation on the host, checks, and expanding their values to pixels."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, Shaped

from .._frame import checks

METHODS = ("quickshift", "slic", "felzenszwalb", "grid")

# The parameters of lime_image for quickshift; scikit-image's example values for the others.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "quickshift": {"kernel_size": 4, "max_dist": 200, "ratio": 0.2},
    "slic": {"n_segments": 60, "compactness": 10.0, "sigma": 1.0, "start_label": 0},
    "felzenszwalb": {"scale": 100.0, "sigma": 0.5, "min_size": 200},
    "grid": {"rows": 8, "columns": 8},
}


def segment(
    photos: Float[ArrayLike, "batch height width channels"], *, method: str = "quickshift", **options: Any
) -> Int[Array, "batch height width"]:
    """Segment photographs into superpixels, each image independently.

    Args:
        photos: Pixels in [0, 1], float [batch, height, width, 3] (or one channel), before normalisation.
        method: `"quickshift"` (with the parameters of `lime_image`: kernel_size 4, max_dist 200, ratio 0.2),
            `"slic"` or `"felzenszwalb"`, which scikit-image computes on the host, several images in parallel;
            `"grid"`, equal rectangles.
        options: Parameters of the algorithm, named as in scikit-image; `rows` and `columns` of the grid.

    Returns:
        Labels int32 [batch, height, width]: 0 to S - 1 in each image, without gaps. Counts may differ.

    Raises:
        ValueError: If the photos are not in [0, 1], are not finite, or the method does not exist.
        TypeError: If the photos are not floating point, or an option does not exist.

    References:
        Vedaldi, Soatto: Quick Shift and Kernel Methods for Mode Seeking. ECCV 2008.
        Achanta et al.: SLIC Superpixels Compared to State-of-the-Art Superpixel Methods. PAMI 2012.
        Felzenszwalb, Huttenlocher: Efficient Graph-Based Image Segmentation. IJCV 2004.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.segment(jnp.zeros((1, 4, 4, 3)), method="grid", rows=2, columns=2)[0].tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    """
    checks.choice(method, "method", METHODS)
    photos = np.asarray(checks.images(photos, "photos"), np.float32)
    if photos.shape[-1] not in (1, 3):
        raise ValueError(f"`photos` must have one or three channels; got {photos.shape[-1]}")
    if not np.isfinite(photos).all():
        raise ValueError("`photos` must be finite; got NaN or infinite pixels")
    if photos.min() < 0 or photos.max() > 1:
        raise ValueError(
            f"`photos` must be in [0, 1], before normalisation; got {photos.min():g} to {photos.max():g}"
        )
    if photos.shape[-1] == 1:
        photos = np.repeat(photos, 3, axis=-1)
    known = _DEFAULTS[method]
    if method == "grid" and (unknown := set(options) - set(known)):
        raise TypeError(f"{method} has no option {sorted(unknown)[0]!r}; it has {list(known)}")
    options = {**known, **options}
    if method == "grid":
        labels = grid(photos.shape[1:3], options["rows"], options["columns"])
        return jnp.asarray(np.broadcast_to(labels, photos.shape[:3]))
    return jnp.asarray(_on_host(method, photos, options))


def grid(size: tuple[int, int], rows: int, columns: int) -> Int[Array, "height width"]:
    """Return labels of `rows` x `columns` rectangles of (almost) equal size, in row-major order.

    Args:
        size: Height and width of the image.
        rows: Number of rectangles along the height, at most the height.
        columns: Number along the width, at most the width.
    """
    rows, columns = checks.positive(rows, "rows"), checks.positive(columns, "columns")
    height, width = size
    if rows > height or columns > width:
        raise ValueError(f"a grid of {rows} x {columns} does not fit into {height} x {width} pixels")
    down = np.arange(height) * rows // height
    right = np.arange(width) * columns // width
    return jnp.asarray(down[:, None] * columns + right[None, :], jnp.int32)


def _on_host(method: str, photos: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    from skimage import segmentation

    algorithm: Callable[..., np.ndarray] = getattr(segmentation, method)
    # scikit-image's loops release the interpreter lock most of the time.
    with ThreadPoolExecutor(max_workers=min(len(photos), os.cpu_count() or 1)) as pool:
        labels = list(pool.map(lambda photo: algorithm(photo, **options), photos))
    return _sequential(np.stack(labels))


def _sequential(labels: np.ndarray) -> np.ndarray:
    """Number the labels of each image from 0 without gaps, in ascending order of the old labels."""
    renamed = [np.unique(image, return_inverse=True)[1].reshape(image.shape) for image in labels]
    return np.stack(renamed).astype(np.int32)


class Superpixels(NamedTuple):
    """Checked labels int32 [batch, height, width], their static number, and whether some image has fewer."""

    labels: jax.Array
    count: int
    padded: bool

    @property
    def present(self) -> jax.Array:
        """1 for every label that occurs in an image and 0 for padding, float32 [batch, count]."""
        return present(self.labels, self.count)


def prepare(segments: Any, images: jax.Array, num_segments: int | None) -> Superpixels:
    """Check superpixels against their images.

    Args:
        segments: Labels, integers of any type, [batch, height, width], or [height, width] for all images.
        images: The images [batch, height, width, channels].
        num_segments: Static number of labels; needed if `segments` is traced.

    Returns:
        The labels and their static number S, the largest of the batch.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes do not fit, an image has only one superpixel, or a label between 0 and the
            largest is missing.
    """
    # JAX would truncate 64-bit labels to 32 bits before the check.
    labels = segments if isinstance(segments, jax.Array) else np.asarray(segments)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"`segments` must be integer labels; got {labels.dtype}")
    expected = images.shape[:-1]
    if labels.shape not in (expected, expected[1:]):
        raise ValueError(f"`segments` must have shape {expected} or {expected[1:]}; got {labels.shape}")
    if isinstance(labels, Tracer):
        if num_segments is None:
            raise ValueError("`num_segments` must be given where `segments` is traced (jit, vmap)")
        count, padded = checks.positive(num_segments, "num_segments"), True
    else:
        count, padded = _count(np.asarray(labels).reshape(-1, math.prod(expected[1:])), num_segments)
    if count < 2:
        raise ValueError(f"`num_segments` must be at least 2; got {count}")
    labels = jnp.asarray(labels.astype(jnp.int32))
    return Superpixels(jnp.broadcast_to(labels, expected), count, padded)


def _count(labels: np.ndarray, num_segments: int | None) -> tuple[int, bool]:
    for index, image in enumerate(labels):
        if image.min() < 0:
            raise ValueError(f"`segments` must be 0 to S - 1; image {index} has {image.min()}")
        # A larger label implies gaps, and counting up to it could exhaust memory.
        sizes = np.bincount(np.minimum(image.astype(np.uint64), image.size).astype(np.int64))
        if len(sizes) == 1:
            raise ValueError(
                f"image {index} has one superpixel only, so there is nothing to compare;"
                " use a finer segmentation (jaxai.segment with method='grid', for example)"
            )
        if not sizes.all():
            missing = int(np.argmin(sizes))
            raise ValueError(
                f"`segments` must be 0 to S - 1 without gaps; image {index} has labels up to"
                f" {image.max()} but no {missing}"
            )
    highest = labels.max(axis=1).astype(np.int64)
    largest = int(highest.max()) + 1
    if num_segments is not None and checks.positive(num_segments, "num_segments") < largest:
        raise ValueError(f"`num_segments` must be at least {largest}; got {num_segments}")
    count = largest if num_segments is None else num_segments
    return count, bool((highest + 1 < count).any())


def sums(values: jax.Array, segments: jax.Array, count: int) -> jax.Array:
    """Sum float values [batch, height, width, ...] over the superpixels: [batch, count, ...]."""

    def one(value, labels):
        flat = value.reshape(-1, *value.shape[labels.ndim :])
        return jax.ops.segment_sum(flat, labels.reshape(-1), num_segments=count)

    return jax.vmap(one)(values.astype(jnp.float32), segments)


@partial(jax.jit, static_argnames="count")
def present(segments: jax.Array, count: int) -> Float[Array, "batch segments"]:
    """Return 1 for every label that occurs in an image and 0 for padding."""
    return (sums(jnp.ones(segments.shape), segments, count) > 0).astype(jnp.float32)


def paint(
    values: Shaped[Array, "batch *k segments"], segments: Int[Array, "batch height width"]
) -> Shaped[Array, "batch *k height width"]:
    """Give every pixel the value of its superpixel.

    Args:
        values: One value per superpixel, with any axes between the batch and the superpixels.
        segments: Labels of the images.
    """

    def one(value, labels):
        return jnp.take(value, labels, axis=-1)

    return jax.vmap(one)(values, segments)
