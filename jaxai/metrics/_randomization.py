"""Randomisation tests: whether maps depend on the learned parameters and on the class."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import checks, noisy
from .._frame import model as _model
from .._frame import targets as _targets
from .._frame.contract import like
from .._frame.results import brief, picture, plot, save, to_html
from .._frame.targets import Targets
from . import _methods, _parameters, _statistics
from ._methods import Method

ORDERS = ("top_down", "bottom_up", "independent")


class Randomization(NamedTuple):
    """Similarity of maps to the original as layers are randomised.

    Attributes:
        similarity: Similarity after each layer, float32 [batch, layers] ([batch, k, layers] for k targets per
            image).
        score: Its mean over layers, float32 [batch] or [batch, k]; lower is better.
        layers: The names of the layers, in the order of randomisation.
    """

    similarity: Float[Array, "batch *k layers"]
    score: Float[Array, "batch *k"]
    layers: tuple[str, ...]

    __repr__ = brief
    plot, save, to_html, _repr_png_ = plot, save, to_html, picture


def mprt(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    order: str = "top_down",
    similarity: str = "spearman",
    absolute: bool = True,
    redraw: Any = "permute",
    layers: Sequence[str] | None = None,
    batch_size: int | None = None,
) -> Randomization:
    """Return how similar a method's maps stay as the model's layers are randomised; lower is better.

    The model parameter randomisation test. Rank correlation penalises noisy maps more than smooth ones, and a
    network with random top layers keeps the activations of the lower ones: prefer `emprt` to compare methods.

    Args:
        method: `method(model, images, targets) -> maps`, of any library that takes JAX models.
        model: A callable pytree with its parameters as leaves; layers are found in the program.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain (see `jaxai.targets`); None: the top class of the trained model.
        key: Randomness of the parameters; a typed key.
        order: `"top_down"` randomises the last layer, then the last two, ...; `"bottom_up"` starts with the
            first; `"independent"` randomises one layer at a time and keeps the others.
        similarity: `"spearman"`, `"pearson"`, `"cosine"` or `"ssim"`, see `jaxai.metrics.similarity`.
        absolute: Compare magnitudes, as in Quantus; False compares signed maps.
        redraw: `"permute"` shuffles the values of each array; `"normal"` draws Gaussian values with the
            array's mean and deviation for arrays of at least two axes; or `redraw(key, array) -> array`.
        layers: Names of the layers to randomise; None: all that have parameters.
        batch_size: At most this many images explained at once; None chooses by size.

    Returns:
        `Randomization` with `similarity`, `score` and `layers`; NaN for constant maps.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the model has no parameters, a layer or an option does not exist, shapes do not fit, or
            a map is NaN.

    References:
        Adebayo et al.: Sanity Checks for Saliency Maps. NeurIPS 2018, arXiv 1810.03292, section 3.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> model = jax.tree_util.Partial(lambda w, x: x.sum(3).reshape(1, -1) @ w, jnp.arange(16.0)[:, None])
        >>> image, blind = jnp.ones((1, 4, 4, 1)), lambda model, x, t: x[..., 0] * jnp.arange(4)
        >>> jaxai.metrics.mprt(blind, model, image, 0, key=jax.random.key(0)).score.tolist()
        [1.0]
    """
    checks.choice(order, "order", ORDERS)
    _similarity(similarity)
    model, images, target, chunk = _methods.prepare(model, images, targets, batch_size)
    key, known = checks.key(key), _parameters.layers(model, images)
    drawn = _parameters.chosen(known, layers)
    drawn = drawn[::-1] if order == "top_down" else drawn
    compare = _against(similarity, _read(_methods.maps_of(method, model, images, target, chunk), absolute))
    found, fresh = [], model
    for layer in drawn:
        # Randomised leaves stay the same: a leaf depends only on its index.
        fresh = _parameters.redrawn(model if order == "independent" else fresh, layer.leaves, key, redraw)
        found.append(compare(_read(_methods.maps_of(method, fresh, images, target, chunk), absolute)))
    values = jnp.stack(found, axis=-1)
    return Randomization(values, values.mean(-1), tuple(layer.name for layer in drawn))


def _read(maps, absolute):
    return jnp.abs(maps) if absolute else maps


@like(mprt)
def smooth_mprt(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    num_samples: int = 50,
    noise: float = 0.1,
    order: str = "bottom_up",
    similarity: str = "spearman",
    absolute: bool = True,
    redraw: Any = "permute",
    layers: Sequence[str] | None = None,
    batch_size: int | None = None,
) -> Randomization:
    """Return `mprt` of maps averaged over noisy images, which reduces the effect of noise in the maps.

    Args:
        key: Randomness of the noise, shared by all models, and of the parameters.
        num_samples: Noisy images to average over.
        noise: Standard deviation, as a fraction of each image's range.
        order: As for `mprt`; the authors start with the first layer.
        absolute: As for `mprt`, applied to the averages.

    Returns:
        `Randomization`.

    References:
        Hedstroem et al.: Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation
        Test. 2023, arXiv 2401.06465, section 3.1.
    """
    count, noise = checks.positive(num_samples, "num_samples"), checks.number(noise, "noise", "[0, inf]")
    drawn = jax.random.fold_in(checks.key(key), 0x6E6F6973)

    def averaged(model, x, targets):
        total: Any = 0
        for i in range(count):
            total += _map(method, model, _noisy_copy(x, drawn, noise, i), targets)
        return total / count

    return mprt(
        averaged,
        model,
        images,
        targets,
        key=key,
        order=order,
        similarity=similarity,
        absolute=absolute,
        redraw=redraw,
        layers=layers,
        batch_size=batch_size,
    )


def _map(method, model, x, targets):
    found = method(model, x, targets)
    return jnp.asarray(getattr(found, "heatmap", found))


@jax.jit
def _noisy_copy(images, key, noise, index):
    deviation = noise * (images.max((1, 2, 3), keepdims=True) - images.min((1, 2, 3), keepdims=True))
    return noisy.copies(images, deviation, key, index[None])[0]


@like(mprt)
def emprt(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    bins: int = 100,
    redraw: Any = "permute",
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return how much more complex the map becomes when all parameters are randomised; higher is better.

    The efficient randomisation test, (H(R') - H(R)) / H(R), with R' the map of the random model and H the
    entropy of the histogram of a map's values over its own range.

    Args:
        key: Randomness of the parameters; a typed key.
        bins: Number of equally wide bins of the histogram; 100 in Quantus.

    Returns:
        float32 [batch], or [batch, k] for k targets per image; NaN if the map is constant.

    References:
        Hedstroem et al.: Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation
        Test. 2023, arXiv 2401.06465, section 3.2.
    """
    bins = checks.at_least(bins, "bins", 2)
    model, images, target, chunk = _methods.prepare(model, images, targets, batch_size)
    known = _parameters.layers(model, images)
    numbers = [number for layer in known for number in layer.leaves]
    fresh = _parameters.redrawn(model, numbers, checks.key(key), redraw)
    before, after = (
        _histogram_entropy(_methods.maps_of(method, network, images, target, chunk), bins=bins)
        for network in (model, fresh)
    )
    return _statistics.ratio(after - before, before)


def _histogram_entropy(maps, *, bins):
    """Return the entropy in nats of the histogram of each map's values, [...]."""
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1])
    return _entropies(flat, bins=bins).reshape(maps.shape[:-2])


@jax.jit
def _spread(flat):
    low = flat.min(-1, keepdims=True)
    return low, flat.max(-1, keepdims=True) - low


def _entropies(flat, *, bins):
    low, size = _spread(flat)
    place = (flat - low) / jnp.where(size > 0, size, 1)
    index = jnp.clip((place * bins).astype(jnp.int32), 0, bins - 1)
    count = jax.vmap(lambda i: jnp.zeros(bins).at[i].add(1.0))(index)
    share = count / flat.shape[-1]
    return -jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0).sum(-1)


@like(mprt)
def random_logit(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    similarity: str = "ssim",
    absolute: bool = False,
    batch_size: int | None = None,
) -> Float[Array, " batch"]:
    """Return how similar the target's map is to that of another, randomly drawn class; lower is better.

    Args:
        targets: One class per image, or None: each image's top class.
        key: Randomness of the other classes; a typed key.
        similarity: As for `mprt`; by default the paper's structural similarity.

    Returns:
        float32 [batch]; NaN for constant maps.

    Raises:
        TypeError: If the target is a callable.
        ValueError: If there is only one class.

    References:
        Sixt, Granz, Landgraf: When Explanations Lie: Why Many Modified BP Attributions Fail. ICML 2020, arXiv
        1912.09818, section 5.
    """
    model, images, target, chunk = _methods.prepare(model, images, targets, batch_size)
    if target.function is not None or target.axes:
        raise TypeError("`targets` must be a class for each image, int[batch]; another class is drawn")
    count = _targets.class_count(_model.scores_shape(model, images))
    if count < 2:
        raise ValueError("`model` must have at least two classes; it has one")
    compare = _similarity(similarity)
    other = target.of_classes(_others(checks.key(key), target.classes, count=count))
    maps = [
        _read(_methods.maps_of(method, model, images, which, chunk), absolute) for which in (target, other)
    ]
    return compare(*maps)


def _others(key, classes, *, count):
    """Return a class other than each image's own; for image i it depends on (key, i)."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(classes)))
    moved = jax.vmap(lambda k: jax.random.randint(k, (), 1, count))(keys)
    return ((classes + moved) % count).astype(jnp.int32)


def similarity(
    first: Float[Array, "*batch height width"],
    second: Float[Array, "*batch height width"],
    *,
    name: str = "spearman",
) -> Float[Array, "*batch"]:
    """Return the similarity of maps: 1 for equal ones.

    Args:
        first: Maps, any leading axes.
        second: Equally many maps.
        name: `"spearman"`: correlation of ranks, with equal ranks for equal values; `"pearson"`; `"cosine"`;
            `"ssim"`: mean structural similarity in windows of 7 x 7 pixels, of maps divided by their largest
            magnitude, with a range of 2.

    Returns:
        float32, in [-1, 1]; NaN where a map is constant (zero for `"cosine"`), except for `"ssim"`.

    Raises:
        ValueError: If the name is unknown or the shapes differ.
    """
    first, second = jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32)
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"maps must have the same shape; got {first.shape} and {second.shape}")
    return _similarity(name)(first, second)


def _similarity(name):
    return _SIMILARITIES[checks.choice(name, "similarity", tuple(_SIMILARITIES))]


def _against(name, own):
    """Return a function that computes the similarity of maps to these, which are ranked only once."""
    compare = _similarity(name)
    if name != "spearman":
        return lambda new: compare(own, new)
    ranked = _ranked(own)
    return lambda new: _of_ranks(ranked, _ranked(new))


@jax.jit
def _ranked(maps):
    return _statistics.ranks(maps.reshape(*maps.shape[:-2], -1))


_of_ranks = jax.jit(_statistics.pearson)


def _flat(measure):
    @jax.jit
    def compare(a, b):
        return measure(a.reshape(*a.shape[:-2], -1), b.reshape(*b.shape[:-2], -1))

    return compare


@jax.jit
def _ssim(a, b):
    """Return Wang et al.'s mean structural similarity with uniform windows, as in scikit-image."""
    window = min(7, *a.shape[-2:])

    def scaled(x):
        size = jnp.abs(x).max((-2, -1), keepdims=True)
        return x / jnp.where(size > 0, size, 1)

    def mean(x):
        sides = (1,) * (x.ndim - 2) + (window, window)
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, sides, (1,) * x.ndim, "VALID")
        return total / window**2

    a, b = scaled(a), scaled(b)
    unbiased = window**2 / max(window**2 - 1, 1)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = unbiased * (mean(a * a) - mean_a**2), unbiased * (mean(b * b) - mean_b**2)
    both = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((-2, -1))


_SIMILARITIES: dict[str, Any] = {
    "spearman": _flat(_statistics.spearman),
    "pearson": _flat(_statistics.pearson),
    "cosine": _flat(_statistics.cosine),
    "ssim": _ssim,
}
