"""Performance information curves: the model's output against the information shown of the image."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float
from PIL import Image

from .._frame import checks
from .._frame.contract import like
from .._frame.results import brief, picture, plot, save, to_html
from .._frame.targets import Targets
from . import _hidden, _order, _statistics
from ._removal import deletion

# The values of the authors' example.
SHARES = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75)
_POINTS = 101


class InformationCurve(NamedTuple):
    """The model's output against the information shown; both from 0 (blurred) to 1 (whole image).

    Attributes:
        curve: Values at evenly spaced information, 0, 0.01, ..., 1, float32 [batch, 101] ([batch, k, 101] for
            k targets per image); means over images are the paper's curves.
        area: Area under the curve, in [0, 1], float32 [batch] or [batch, k].
        information: Information of the images shown, [batch, shares + 2] or [batch, k, shares + 2].
    """

    curve: Float[Array, "batch *k points"]
    area: Float[Array, "batch *k"]
    information: Float[Array, "batch *k shares"]

    __repr__ = brief
    plot, save, to_html, _repr_png_ = plot, save, to_html, picture


@like(deletion)
def sic(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    shares: tuple[float, ...] = SHARES,
    fill: Any = "blur",
    compression: str = "webp",
    key: jax.Array | None = None,
    batch_size: int | None = None,
) -> InformationCurve:
    """Return the probability against the information shown, most relevant first; a higher area is better.

    The softmax information curve. Starting from the blurred image, increasing shares of the most relevant
    pixels are made sharp. The information of such an image is the size of its lossless file, scaled to 0 for
    the blurred and 1 for the whole image; the probability is scaled likewise and made non-decreasing.

    Args:
        shares: Shares of pixels made sharp, each between 0 and 1.
        fill: The blurred image, as for `deletion`. The authors' program interpolates between a hundredth of
            the pixels instead.
        compression: `"webp"` (the authors' program) or `"png"`, of 8 bits between the image's extremes.

    Returns:
        `InformationCurve` with `curve`, `area` and `information`; NaN for a constant map, and if the blurred
        image's score or file size is not below the whole image's. The authors exclude images with a
        probability below 0.8, and take medians over the others.

    Raises:
        TypeError: Under `jax.jit`: files are compressed on the host.
        ValueError: If a share is not between 0 and 1.

    References:
        Kapishnikov et al.: XRAI: Better Attributions Through Regions. ICCV 2019, arXiv 1906.02825, section 4.
        Kapishnikov et al.: Guided Integrated Gradients: An Adaptive Path Method for Removing Noise. CVPR
        2021, arXiv 2106.09788, section 4 (normalised curves).
    """
    return _curves(model, images, maps, targets, shares, fill, compression, key, batch_size, right=False)


@like(sic)
def aic(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    shares: tuple[float, ...] = SHARES,
    fill: Any = "blur",
    compression: str = "webp",
    key: jax.Array | None = None,
    batch_size: int | None = None,
) -> InformationCurve:
    """Return whether the class is the top one, against the information shown; a higher area is better.

    The accuracy information curve: like `sic`, with 1 where the target is the top class and 0 elsewhere.

    Args:
        targets: Classes, or None: each image's top class.

    Returns:
        `InformationCurve`; NaN for a constant map, and if the target is the blurred image's top class, or not
        the whole image's. Means over many images are accuracies.

    Raises:
        TypeError: If the target is a callable.

    References:
        Kapishnikov et al.: XRAI: Better Attributions Through Regions. ICCV 2019, arXiv 1906.02825, section 4.
    """
    if callable(targets):
        raise TypeError("`targets` must be classes, or None: a callable is never the top class")
    return _curves(model, images, maps, targets, shares, fill, compression, key, batch_size, right=True)


def _curves(model, images, maps, targets, shares, fill, compression, key, batch_size, *, right):
    shares = tuple(sorted(checks.number(share, "shares", "(0, 1)") for share in shares))
    if not shares:
        raise ValueError("`shares` must hold at least one number; got none")
    checks.choice(compression, "compression", ("webp", "png"))
    asked = _hidden.ask(
        model, images, maps, targets, fill=fill, batch_size=batch_size, probability=True, key=key
    )
    if isinstance(asked.images, Tracer) or isinstance(asked.maps, Tracer):
        raise TypeError("information curves compress images on the host: call them outside of jax.jit")
    pixels = _hidden.unit_count(asked)
    row = [0, *(int(share * pixels + 1e-6) for share in shares), pixels]
    taken = jnp.broadcast_to(jnp.asarray(np.array(row, np.int32)), (len(asked.images), len(row)))
    values, on_top = _order.along(asked, taken, reveal=True, top=True)
    said = np.asarray((on_top if right else values)[..., 0, :], np.float64)
    sizes = _file_sizes(asked, taken, compression).reshape(said.shape)
    information, said = _rising(sizes), np.maximum.accumulate(_rising(said), axis=-1)
    at = np.linspace(0, 1, _POINTS)
    curves = np.array(
        [_interpolated(at, x, y) for x, y in zip(_rows(information), _rows(said), strict=True)], np.float32
    ).reshape(*said.shape[:-1], _POINTS)
    found = jnp.asarray(curves)
    area = _statistics.area(found, jnp.asarray(at, jnp.float32))
    return InformationCurve(found, area, jnp.asarray(information, jnp.float32))


def _rows(values):
    return values.reshape(-1, values.shape[-1])


def _rising(values):
    """Return values [..., points] scaled to 0 at the first and 1 at the last; NaN where they do not rise."""
    first, last = values[..., :1], values[..., -1:]
    scaled = (values - first) / np.where(last > first, last - first, 1)
    return np.where(last > first, np.clip(scaled, 0, 1), np.nan)


def _interpolated(at, x, y):
    if np.isnan(x).any() or np.isnan(y).any():
        return np.full(at.shape, np.nan)
    order = np.argsort(x, kind="stable")
    return np.interp(at, x[order], y[order])


def _file_sizes(asked, taken, compression):
    """Return the sizes in bytes of every image on every map's path, [maps * points]."""
    hidden, copies = _order.removal(asked, taken, reveal=True)
    points = taken.shape[1]
    low = asked.images.min((1, 2, 3), keepdims=True)
    spread = asked.images.max((1, 2, 3), keepdims=True) - low
    scale = 255 / jnp.where(spread > 0, spread, 1)
    count = len(asked.images) * copies * points
    sizes = []
    for start in range(0, count, asked.batch_size):
        indices = jnp.minimum(jnp.arange(start, start + asked.batch_size, dtype=jnp.int32), count - 1)
        shown = _shown(asked.images, asked.imputer, hidden, low, scale, indices, points=points, copies=copies)
        sizes += [_file_size(image, compression) for image in np.asarray(shown)[: count - start]]
    return np.array(sizes, np.float64)


@partial(jax.jit, static_argnames=("points", "copies"))
def _shown(images, imputer, hidden, low, scale, indices, *, points, copies):
    owners, rows = indices // points, indices % points
    image = owners // copies
    found = imputer(images, image, hidden((owners, rows)))
    return jnp.round(jnp.clip((found - low[image]) * scale[image], 0, 255)).astype(jnp.uint8)


def _file_size(image, compression):
    # With other numbers of channels, these are placed side by side in grey.
    pixels = image if image.shape[-1] == 3 else np.concatenate(np.moveaxis(image, -1, 0), axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, compression, **({"lossless": True} if compression == "webp" else {}))
    return file.tell()
