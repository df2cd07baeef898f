"""Faithfulness over random subsets: correlation of the map's sum with the drop of the score."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Integer

from .._cpu import threefry
from .._frame import checks
from .._frame.contract import like
from .._frame.results import brief
from .._frame.targets import Targets
from ..perturbation import _segments
from ..perturbation._scoring import Perturbation
from . import _hidden, _statistics

_LAST = np.uint32(0xFFFFFFFF)


class Correlation(NamedTuple):
    """A correlation over random subsets.

    Attributes:
        correlation: float32 [batch] ([batch, k] for k targets per image), in [-1, 1].
        standard_error: Standard error by the jackknife over subsets, of the same shape.
    """

    correlation: Float[Array, "batch *k"]
    standard_error: Float[Array, "batch *k"]

    __repr__ = brief


def sensitivity_n(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    key: jax.Array,
    sizes: Sequence[int] | None = None,
    num_samples: int = 100,
    fill: Any = 0.0,
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    num_segments: int | None = None,
    probability: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch *k sizes"]:
    """Correlate the sum of the map over random subsets of n pixels with the drop of the score; 1 is best.

    For each n, the correlation over subsets S with |S| = n of sum_{i in S} R_i and f(x) - f(x without S).
    Averaged over images this is the paper's figure. It is 1 for every n if f is linear and R is input x
    gradient with the same baseline as `fill`.

    Args:
        model: Callable pytree, `model(images) -> scores`, or `jaxai.perturbation.black_box(predict)`.
        images: Model input, float [batch, height, width, channels].
        maps: Of any library: [batch, height, width], [batch, k, height, width] for k targets per image;
            channels after these are summed with their signs, as pixels are removed with all their channels.
        targets: What the maps explain (see `jaxai.targets`): the score of the class, as in the paper.
        key: Randomness of the subsets, which the images share; a typed key.
        sizes: The numbers n, each at least 1 and less than the number of pixels; None: ten from 1 to 80 % of
            them, evenly spaced on a logarithmic scale, as in the paper.
        num_samples: Number of subsets of each size.
        fill: Content of removed pixels: a value that broadcasts to the images, or a name, see
            `jaxai.metrics`.
        segments: Superpixels to remove as a whole; then n counts superpixels, and must be less than the
            number in each image.
        num_segments: Static number of superpixels, needed under `jit` and `vmap`.
        probability: True takes the probability of classes instead of the score.
        batch_size: At most this many changed images in flight; None chooses by size.

    Returns:
        float32 [batch, sizes], [batch, k, sizes] for k targets per image; NaN where nothing varies, as for a
        constant map.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, a class does not exist, a size is out of range, a map is NaN, or the
            model returns NaN.

    References:
        Ancona et al.: Towards Better Understanding of Gradient-Based Attribution Methods for Deep Neural
        Networks. ICLR 2018, arXiv 1711.06104, section 4.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> image = jnp.arange(6.0).reshape(1, 2, 3, 1)
        >>> r = jaxai.metrics.sensitivity_n(lambda x: x.sum((1, 2)), image, image, 0, key=jax.random.key(0),
        ...     sizes=(1, 3, 5))
        >>> r.round(4).tolist()
        [[1.0, 1.0, 1.0]]
    """
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        segments=segments,
        num_segments=num_segments,
        key=checks.key(key),
    )
    found = _sizes(asked, sizes)
    sums, drops = _sums_and_drops(asked, key, found, checks.at_least(num_samples, "num_samples", 2))
    return _statistics.pearson(sums, drops)


@like(sensitivity_n)
def faithfulness_correlation(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    key: jax.Array,
    subset_size: int | float = 224,
    num_samples: int = 100,
    fill: Any = 0.0,
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    num_segments: int | None = None,
    probability: bool = False,
    batch_size: int | None = None,
) -> Correlation:
    """Correlate the map's sum over random subsets of one size with the drop of the score; 1 is best.

    The paper's mu_F(f, g; x) = corr_S(sum_{i in S} g_i, f(x) - f(x without S)). Xplique's MuFidelity removes
    20 % of a grid of 9 x 9: `segments=` of `jaxai.segment(method="grid")`, `subset_size=0.2`.

    Args:
        key: Randomness of the subsets; a typed key.
        subset_size: Number of pixels or superpixels (Quantus: 224 of 224 x 224), or their fraction between 0
            and 1.
        num_samples: Number of subsets.

    Returns:
        `Correlation` with `correlation` and `standard_error`; NaN where nothing varies.

    References:
        Bhatt, Weller, Moura: Evaluating and Aggregating Feature-based Model Explanations. IJCAI 2020, arXiv
        2005.00631, definition 3.
    """
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        segments=segments,
        num_segments=num_segments,
        key=checks.key(key),
    )
    if isinstance(subset_size, float):
        share = checks.number(subset_size, "subset_size", "(0, 1)")
        subset_size = max(1, round(share * _hidden.unit_count(asked)))
    (size,) = _sizes(asked, (checks.positive(subset_size, "subset_size"),), "subset_size")
    samples = checks.at_least(num_samples, "num_samples", 4)
    sums, drops = _sums_and_drops(asked, key, (size,), samples)
    return Correlation(*_statistics.jackknife(sums[..., 0, :], drops[..., 0, :]))


def _sizes(asked, sizes, name="sizes"):
    units = _hidden.unit_count(asked)
    if asked.units is not None and asked.units.padded and not isinstance(asked.units.labels, Tracer):
        units = int(asked.units.present.sum(-1).min())
    if sizes is None:
        return tuple(np.unique(np.geomspace(1, max(1, 0.8 * units), 10).round().astype(int)).tolist())
    found = tuple(checks.positive(size, name) for size in sizes)
    if not found:
        raise ValueError(f"`{name}` must hold at least one number; got none")
    if max(found) >= units:
        raise ValueError(
            f"`{name}` must be less than the {units} pixels or superpixels of an image; got {max(found)}"
        )
    return found


def _sums_and_drops(asked, key, sizes, samples):
    """Return the map's sum and the drop of the score, float32 [batch, *k, sizes, samples] each."""
    present = None
    if asked.units is not None:
        present = asked.units.present if asked.units.padded else asked.units.present[:1]
    labels = None if asked.units is None else asked.units.labels
    units = _hidden.unit_count(asked)
    last = _thresholds(key, present, samples=samples, sizes=sizes, units=units)
    hidden = Perturbation(_painted, (asked.images.shape[1:3], units), (key, last, labels))
    values = _hidden.scores(asked, hidden, len(sizes) * samples)
    drops = _hidden.originals(asked)[..., None] - _hidden.classes_last(values)
    sums = _sums(_hidden.on_units(asked.maps, asked.units), key, last)
    return sums, drops.reshape(sums.shape)


def _numbers(key, sample, units):
    return threefry.bits(jax.random.fold_in(key, sample), (units,))


@partial(jax.jit, static_argnames=("samples", "sizes", "units"))
def _thresholds(key, present, *, samples, sizes, units):
    """Return the largest random number within each subset, uint32 [images or 1, sizes, samples].

    A subset holds the units with the n smallest random numbers, so that it can be drawn again wherever
    needed. Two of 50,000 32-bit numbers are equal at the threshold once in 100,000 draws.
    """

    def one(sample):
        numbers = _numbers(key, sample, units)[None]
        if present is not None:
            numbers = jnp.where(present > 0, numbers, _LAST)
        return jnp.sort(numbers, axis=-1)[:, np.array(sizes) - 1]

    return jnp.moveaxis(jax.lax.map(one, jnp.arange(samples)), 0, -1)


def _painted(size, units, key, last, labels, pairs):
    owners, rows = pairs
    samples = last.shape[2]
    numbers = jax.vmap(lambda row: _numbers(key, row, units))(rows % samples)
    inside = numbers <= last[owners % last.shape[0], rows // samples, rows % samples][:, None]
    if labels is None:
        return inside.reshape(-1, *size)
    return _segments.paint(inside, labels[owners])


@jax.jit
def _sums(values, key, last):
    """Return the sums of values [batch, *k, units] over the subsets: [batch, *k, sizes, samples]."""
    sizes, samples = last.shape[1:]
    batch, units = values.shape[0], values.shape[-1]
    flat = values.reshape(batch, -1, units)

    def one(row):
        inside = _numbers(key, row, units) <= jnp.take(last, row, axis=2)[..., None]
        inside = jnp.broadcast_to(inside.astype(jnp.float32), (batch, sizes, units))
        return jnp.einsum("nku,nsu->nks", flat, inside, precision="highest")

    found = jax.lax.map(one, jnp.arange(samples))
    return jnp.moveaxis(found, 0, -1).reshape(*values.shape[:-1], sizes, samples)
