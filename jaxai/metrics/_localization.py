"""Localization: whether a map points at the marked region of an image, and the scores of random maps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._frame import checks
from .._frame.contract import like
from . import _maps, _statistics


def _prepared(maps, masks):
    values = _maps.alone(maps)
    marked = _maps.masks(masks, values)
    return values, marked, _maps.constant(values)


def pointing_game(
    maps: Real[ArrayLike, "batch height width *channels"],
    masks: Real[ArrayLike, "*batch height width"] | Bool[ArrayLike, "*batch height width"],
    *,
    tolerance: float = 15.0,
) -> Float[Array, " batch"]:
    """Return 1 if the map's largest value lies in the mask or close to it, else 0; higher is better.

    Args:
        maps: [batch, height, width], of any library; channels after these are summed with their signs. The
            first of equal values in row-major order counts.
        masks: The marked regions, bool or 0 and 1, [batch, height, width], or [height, width] for all maps.
        tolerance: Largest distance from the mask in pixels that still counts: 15 in the paper, 0 in Quantus.

    Returns:
        float32 [batch]; NaN for a constant map. The paper averages over the images of each class, and then
        over classes. A random map scores `chance(pointing_game, masks)`; on photographs of single objects the
        centre of the image scores much higher.

    Raises:
        TypeError: If maps or masks are not real numbers.
        ValueError: If shapes do not fit, a map is NaN, or a mask marks no pixel.

    References:
        Zhang et al.: Top-down Neural Attention by Excitation Backprop. IJCV 2018, arXiv 1608.00507, section
        4.2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> maps, mask = jnp.eye(40)[None] * jnp.arange(40.0), jnp.zeros((40, 40)).at[39, 20].set(1)
        >>> jaxai.metrics.pointing_game(maps, mask, tolerance=15).tolist()
        [0.0]
        >>> jaxai.metrics.pointing_game(maps, mask, tolerance=19).tolist()
        [1.0]
    """
    values, marked, flat = _prepared(maps, masks)
    near = _near(marked, checks.number(tolerance, "tolerance", "[0, inf]"))
    best = values.reshape(len(values), -1).argmax(-1)
    hit = near.reshape(len(values), -1)[jnp.arange(len(values)), best]
    return _maps.undefined(hit.astype(jnp.float32), flat)


@jax.jit
def _near(marked, tolerance):
    """Return which pixels are at most this far from a marked one, bool [batch, height, width]."""
    height, width = marked.shape[1:]
    rows = jnp.arange(height, dtype=jnp.float32)[:, None]
    # The distance to the next marked pixel of the same column, then the nearest over columns.
    above = jax.lax.cummax(jnp.where(marked, rows, -jnp.inf), axis=1)
    below = jax.lax.cummin(jnp.where(marked, rows, jnp.inf), axis=1, reverse=True)
    down = jnp.minimum(rows - above, below - rows)
    apart = jnp.abs(jnp.arange(width)[:, None] - jnp.arange(width)).astype(jnp.float32)
    square = jax.lax.map(lambda column: (jnp.square(down) + jnp.square(column)).min(-1), apart)
    return jnp.moveaxis(square, 0, -1) <= tolerance**2


@like(pointing_game)
def mass_accuracy(
    maps: Real[ArrayLike, "batch height width *channels"],
    masks: Real[ArrayLike, "*batch height width"] | Bool[ArrayLike, "*batch height width"],
) -> Float[Array, " batch"]:
    """Return the share of the map's positive mass that lies in the mask; higher is better.

    sum_{i in mask} R_i^+ / sum_i R_i^+.

    Returns:
        float32 [batch], in [0, 1]; NaN where no value is positive. A random map scores the mask's share of
        the image, `chance(mass_accuracy, masks)`.

    References:
        Arras, Osman, Samek: CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of Neural Network
        Explanations. Information Fusion 2022, arXiv 2003.07258, equation 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.metrics.mass_accuracy(jnp.array([[[3.0, 1.0], [-5.0, 0.0]]]), jnp.array([[1, 0], [1, 0]]))
        Array([0.75], dtype=float32)
    """
    values = _maps.alone(maps)
    return _mass(values, _maps.masks(masks, values))


def _mass(values, marked):
    positive = jnp.maximum(values, 0)
    total = positive.sum((1, 2))
    inside = jnp.where(marked, positive, 0).sum((1, 2))
    return _statistics.ratio(inside, total)


@like(pointing_game)
def rank_accuracy(
    maps: Real[ArrayLike, "batch height width *channels"],
    masks: Real[ArrayLike, "*batch height width"] | Bool[ArrayLike, "*batch height width"],
) -> Float[Array, " batch"]:
    """Return the share of the K most relevant pixels that lie in a mask of K pixels; higher is better.

    Args:
        maps: As for `pointing_game`; equal values count in row-major order.

    Returns:
        float32 [batch], in [0, 1]; NaN for a constant map. A random map scores the mask's share of the image,
        `chance(rank_accuracy, masks)`.

    References:
        Arras, Osman, Samek: CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of Neural Network
        Explanations. Information Fusion 2022, arXiv 2003.07258, equation 3.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.metrics.rank_accuracy(jnp.array([[[3.0, 1.0], [0.5, 0.0]]]), jnp.array([[1, 0], [1, 0]]))
        Array([0.5], dtype=float32)
    """
    values, marked, flat = _prepared(maps, masks)
    size = marked.sum((1, 2))
    return _maps.undefined(_inside(values, marked, size) / size, flat)


@jax.jit
def _inside(values, marked, number):
    """Return how many of the `number` [batch] most relevant pixels lie in the mask."""
    order = jnp.argsort(-values.reshape(len(values), -1), axis=-1, stable=True)
    first = jnp.arange(order.shape[1]) < number[:, None]
    return (jnp.take_along_axis(marked.reshape(order.shape), order, axis=-1) & first).sum(-1)


@like(rank_accuracy)
def top_k_intersection(
    maps: Real[ArrayLike, "batch height width *channels"],
    masks: Real[ArrayLike, "*batch height width"] | Bool[ArrayLike, "*batch height width"],
    *,
    k: int = 1000,
) -> Float[Array, " batch"]:
    """Return the share of the k most relevant pixels that lie in the mask; higher is better.

    Args:
        k: Number of pixels, at most those of the image; the paper uses 1000 of 224 x 224.

    Returns:
        float32 [batch], in [0, 1]; NaN for a constant map. A random map scores the mask's share of the image,
        `chance(top_k_intersection, masks)`.

    Raises:
        ValueError: If k is out of range.

    References:
        Theiner, Mueller-Budack, Ewerth: Interpretable Semantic Photo Geolocation. WACV 2022, arXiv
        2104.14995, section 4.3.
        Ghorbani, Abid, Zou: Interpretation of Neural Networks is Fragile. AAAI 2019, arXiv 1710.10547.
    """
    values, marked, flat = _prepared(maps, masks)
    k = _pixels(k, "k", values)
    return _maps.undefined(_inside(values, marked, jnp.full(len(values), k)) / k, flat)


def _pixels(value, name, values):
    count = values.shape[1] * values.shape[2]
    if checks.positive(value, name) > count:
        raise ValueError(f"`{name}` must be at most the {count} pixels of a map; got {value}")
    return value


@like(rank_accuracy)
def iou(
    maps: Real[ArrayLike, "batch height width *channels"],
    masks: Real[ArrayLike, "*batch height width"] | Bool[ArrayLike, "*batch height width"],
    *,
    share: float | None = None,
) -> Float[Array, " batch"]:
    """Return the overlap of the most relevant pixels and the mask, as intersection over union.

    Args:
        share: Fraction of the image's pixels that counts as relevant, in (0, 1]; None: as many pixels as are
            marked.

    Returns:
        float32 [batch], in [0, 1], higher is better; NaN for a constant map. A random map scores
        `chance(iou, masks, share=share)`.

    Raises:
        ValueError: If the share is out of range.

    References:
        Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization.
        ICCV 2017, arXiv 1610.02391, section 4.1, with the relevant pixels chosen by rank.
    """
    values, marked, flat = _prepared(maps, masks)
    size = marked.sum((1, 2))
    number = _number(share, size, values)
    both = _inside(values, marked, number)
    return _maps.undefined(both / (size + number - both), flat)


def _number(share, size, values):
    if share is None:
        return size
    share = checks.number(share, "share", "(0, 1]")
    return jnp.full(len(values), max(1, round(share * values.shape[1] * values.shape[2])))


@like(pointing_game)
def auc(
    maps: Real[ArrayLike, "batch height width *channels"],
    masks: Real[ArrayLike, "*batch height width"] | Bool[ArrayLike, "*batch height width"],
) -> Float[Array, " batch"]:
    """Return the area under the ROC curve: the probability that a marked pixel exceeds an unmarked one.

    Args:
        maps: As for `pointing_game`; equal values count half.
        masks: As for `pointing_game`; not all of the image.

    Returns:
        float32 [batch], in [0, 1], higher is better; NaN if all pixels are marked, and 1/2 for a constant map
        and, on average, for a random map.

    References:
        Fawcett: An Introduction to ROC Analysis. Pattern Recognition Letters 2006, section 7.
    """
    values = _maps.alone(maps)
    marked = _maps.masks(masks, values).reshape(len(values), -1)
    return _auc(values.reshape(marked.shape), marked)


@jax.jit
def _auc(values, marked):
    # The Mann-Whitney statistic: the sum of the ranks of marked pixels minus its minimum.
    size = marked.sum(-1).astype(jnp.float32)
    rest = marked.shape[-1] - size
    # Mean ranks are centred, so that float32 sums stay accurate.
    centred = _statistics.ranks(values) - (marked.shape[-1] - 1) / 2
    total = jnp.where(marked, centred, 0).sum(-1)
    return jnp.where(rest > 0, 0.5 + total / jnp.where(rest > 0, size * rest, 1), jnp.nan)


@like(pointing_game)
def focus(
    maps: Real[ArrayLike, "batch height width *channels"],
    masks: Real[ArrayLike, "*batch height width"] | Bool[ArrayLike, "*batch height width"],
) -> Float[Array, " batch"]:
    """Return the share of a mosaic's positive mass that lies on the tiles of the target's class.

    Mosaics are made of photographs of several classes (`mosaics`); a class-specific map stays on the tiles of
    its class. The formula is that of `mass_accuracy`, with whole tiles as masks.

    Args:
        maps: Maps of mosaics for the class in question, as for `pointing_game`.
        masks: The tiles of that class, as for `pointing_game`; `mosaics` returns them.

    Returns:
        float32 [batch], in [0, 1], higher is better; NaN where no value is positive. A random map scores the
        share of the tiles, 1/2 for two of four.

    References:
        Arias-Duart et al.: Focus! Rating XAI Methods and Finding Biases. FUZZ-IEEE 2022, arXiv 2109.15035,
        equation 1.
    """
    return mass_accuracy(maps, masks)


def mosaics(
    first: Float[ArrayLike, "batch 2 height width channels"],
    second: Float[ArrayLike, "batch 2 height width channels"],
    *,
    key: jax.Array,
) -> tuple[
    Float[Array, "batch rows columns channels"],
    Bool[Array, "batch rows columns"],
    Bool[Array, "batch rows columns"],
]:
    """Put two images of one class and two of another into mosaics of 2 x 2 tiles, at random places.

    Args:
        first: Two images of one class per mosaic.
        second: Two images of another class, of the same size.
        key: Randomness of the places; a typed key. Each mosaic has its own random places.

    Returns:
        Mosaics [batch, 2 height, 2 width, channels], the masks of the first class's tiles and of the second
        class's.

    Raises:
        ValueError: If the shapes differ or are not [batch, 2, height, width, channels].
    """
    first, second = jnp.asarray(first), jnp.asarray(second)
    if first.ndim != 5 or first.shape[1] != 2 or first.shape != second.shape:
        raise ValueError(
            "`first` and `second` must be [batch, 2, height, width, channels], of one shape;"
            f" got {first.shape} and {second.shape}"
        )
    keys = jax.vmap(partial(jax.random.fold_in, checks.key(key)))(jnp.arange(len(first)))
    places = jax.vmap(lambda k: jax.random.permutation(k, 4))(keys)
    tiles = jnp.concatenate([first, second], axis=1)
    tiles = jax.vmap(lambda tile, place: tile[place])(tiles, places)
    batch, _, height, width, channels = tiles.shape
    tiles = tiles.reshape(batch, 2, 2, height, width, channels)
    whole = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels)
    of_first = jnp.repeat(jnp.repeat((places < 2).reshape(batch, 2, 2), height, axis=1), width, axis=2)
    return whole, of_first, ~of_first


def chance(metric: Callable[..., Any], masks: Any, **options: Any) -> Float[Array, " batch"]:
    """Return the expected score of a map of independent random values in a localization metric.

    Args:
        metric: `pointing_game`, `mass_accuracy`, `rank_accuracy`, `top_k_intersection`, `iou`, `auc` or
            `focus`.
        masks: As for the metric, [batch, height, width].
        options: Options of the metric: `tolerance` or `share`.

    Returns:
        float32 [batch]. For `iou` the expectation over all sets of pixels of that size.

    Raises:
        ValueError: If the metric is not one of these, or the masks do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.metrics.chance(jaxai.metrics.mass_accuracy, jnp.array([[[1, 0], [0, 0]]])).tolist()
        [0.25]
    """
    array = masks if isinstance(masks, jax.Array) else np.asarray(masks)
    if array.ndim != 3:
        raise ValueError(f"`masks` must be [batch, height, width]; got shape {array.shape}")
    marked = _maps.masks(array, jnp.zeros(array.shape))
    known = (pointing_game, mass_accuracy, rank_accuracy, top_k_intersection, iou, auc, focus)
    if metric not in known:
        name = getattr(metric, "__name__", metric)
        raise ValueError(f"`metric` must be one of {', '.join(m.__name__ for m in known)}; got {name}")
    if metric is auc:
        return jnp.full(len(marked), 0.5)
    if metric is pointing_game:
        return _near(marked, checks.number(options.get("tolerance", 15.0), "tolerance", "[0, inf]")).mean(
            (1, 2)
        )
    if metric is iou:
        return _chance_of_iou(marked, options.get("share"))
    return marked.mean((1, 2))


def _chance_of_iou(marked, share):
    """Return the mean of j / (size + number - j), where j common pixels are hypergeometric."""
    pixels = marked.shape[1] * marked.shape[2]
    # Factorials of 50,000 need double precision, which JAX does not use by default.
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, pixels + 1)))])

    def choose(total, part):
        return factorials[total] - factorials[part] - factorials[total - part]

    def one(size, number):
        both = np.arange(max(0, size + number - pixels), min(size, number) + 1)
        logs = choose(size, both) + choose(pixels - size, number - both) - choose(pixels, number)
        return (np.exp(logs) * both / (size + number - both)).sum()

    sizes = np.asarray(marked.sum((1, 2)))
    numbers = np.asarray(_number(share, sizes, marked))
    return jnp.asarray([one(int(a), int(b)) for a, b in zip(sizes, numbers, strict=True)], jnp.float32)
