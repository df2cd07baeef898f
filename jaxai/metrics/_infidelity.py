"""Infidelity: the difference between a map's prediction for perturbations and the model's response."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._frame import checks
from .._frame.targets import Targets
from ..perturbation import _scoring
from ..perturbation._scoring import Perturbation
from . import _hidden, _maps


def infidelity(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    key: jax.Array,
    fill: Any = 0.0,
    normalize: bool = False,
    num_samples: int = 50,
    window: int | tuple[int, int] | None = None,
    perturb: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    probability: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the mean squared error of the map's prediction of the effect of perturbations; 0 is best.

    The paper's E_I[(I'R - (f(x) - f(x - I)))^2]. By default I removes a random rectangle, I = x - fill inside
    it, and the map gives each pixel's contribution to f(x) - f(fill), like input x gradient, integrated
    gradients or Shapley values: I'R is its sum over the rectangle, and the infidelity is 0 for exact additive
    maps. With `perturb` the map is a rate of change, like gradients, and I'R a scalar product.

    Args:
        model: Callable pytree, `model(images) -> scores`, or `jaxai.perturbation.black_box(predict)`.
        images: Model input, float [batch, height, width, channels].
        maps: Of any library: [batch, height, width], [batch, k, height, width] for k targets per image; with
            channels after these, I'R is also summed over channels.
        targets: What the maps explain (see `jaxai.targets`): the score of the class, as in the paper.
        key: Randomness of the perturbations; a typed key.
        fill: Content of removed rectangles: a value that broadcasts to the images, or a name, see
            `jaxai.metrics`. Use the map's own baseline.
        normalize: Scale each map by the best-fitting factor b = E[I'R (f(x) - f(x - I))] / E[(I'R)^2], as in
            Captum, so that maps of any scale can be compared.
        num_samples: Number of perturbations, shared by the images.
        window: Rows and columns of the rectangle; None draws each side at random, from 1 to half of the
            image.
        perturb: `perturb(key, image) -> I` for one image [height, width, channels], traceable.
        probability: True uses the probability of classes instead of the score.
        batch_size: At most this many changed images in flight; None chooses by size.

    Returns:
        float32 [batch], or [batch, k] for k targets per image; with `normalize`, at most E[(f(x) - f(x -
        I))^2].

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, a class does not exist, a map is NaN, or the model returns NaN.

    References:
        Yeh et al.: On the (In)fidelity and Sensitivity of Explanations. NeurIPS 2019, arXiv 1901.09392,
        definition 2.1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> image = jnp.arange(6.0).reshape(1, 2, 3, 1)
        >>> f = lambda x: 2 * x.sum((1, 2))
        >>> jaxai.metrics.infidelity(f, image, 2 * image, 0, key=jax.random.key(0)).tolist()
        [0.0]
    """
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        key=checks.key(key),
    )
    samples = checks.positive(num_samples, "num_samples")
    size = asked.images.shape[1:3]
    if perturb is None:
        window = None if window is None else checks.pair(window, "window")
        if window is not None and (window[0] > size[0] or window[1] > size[1]):
            raise ValueError(f"`window` must fit into the image, {size}; got {window}")
        regions = Perturbation(_rectangles, (size, window), (key,))
        values = _hidden.scores(asked, regions, samples)
        said = _region_sums(asked.maps, regions, samples=samples)
    else:
        changed = Perturbation(_perturbed, (samples, perturb), (asked.images, key))
        _check(perturb, asked.images, key)
        values = _scoring.scores(
            asked.model,
            changed,
            asked.target,
            count=len(asked.images) * samples,
            batch_size=min(asked.batch_size, len(asked.images) * samples),
            probability=probability,
        )
        _scoring.check_finite(values)
        values = values.reshape(len(asked.images), samples, *values.shape[1:])
        rates = _maps.with_channels(maps, asked.images, asked.target)
        said = _products(rates, asked.images, key, perturb=perturb, samples=samples)
    fall = _hidden.originals(asked)[..., None] - _hidden.classes_last(values)
    if normalize:
        square = (said * said).mean(-1, keepdims=True)
        said = said * (said * fall).mean(-1, keepdims=True) / jnp.where(square > 0, square, 1)
    return jnp.square(said - fall).mean(-1)


def _rectangles(size, window, key, pairs):
    height, width = size

    def one(row):
        noise = jax.random.uniform(jax.random.fold_in(key, row), (4,), jnp.float32)

        def span(length, given, side, start):
            side = given or 1 + jnp.floor(side * max(1, length // 2)).astype(jnp.int32)
            first = jnp.floor(start * (length - side + 1)).astype(jnp.int32)
            return (jnp.arange(length) >= first) & (jnp.arange(length) < first + side)

        down = span(height, window and window[0], noise[0], noise[1])
        return down[:, None] & span(width, window and window[1], noise[2], noise[3])

    return jax.vmap(one)(pairs[1])


@partial(jax.jit, static_argnames="samples")
def _region_sums(maps, regions, *, samples):
    def one(row):
        inside = regions((jnp.zeros(1, jnp.int32), row[None]))[0]
        return jnp.where(inside, maps, 0).sum((-2, -1))

    return jnp.moveaxis(jax.lax.map(one, jnp.arange(samples)), 0, -1)


def _check(perturb, images, key):
    found = jax.eval_shape(perturb, key, images[0])
    if getattr(found, "shape", None) != images.shape[1:]:
        raise ValueError(
            f"`perturb` must return an array of the image's shape {images.shape[1:]};"
            f" got {getattr(found, 'shape', type(found).__name__)}"
        )


def _perturbed(samples, perturb, images, key, indices):
    owners, rows = indices // samples, indices % samples

    def one(image, row):
        return image - perturb(jax.random.fold_in(key, row), image).astype(image.dtype)

    return jax.vmap(one)(images[owners], rows), owners


@partial(jax.jit, static_argnames=("perturb", "samples"))
def _products(rates, images, key, *, perturb, samples):
    def one(row):
        moved = jax.vmap(lambda image: perturb(jax.random.fold_in(key, row), image))(images)
        moved = moved.astype(jnp.float32).reshape(len(images), *(1,) * (rates.ndim - 4), *images.shape[1:])
        return (rates * moved).sum((-3, -2, -1))

    return jnp.moveaxis(jax.lax.map(one, jnp.arange(samples)), 0, -1)
