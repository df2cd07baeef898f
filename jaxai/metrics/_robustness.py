"""Robustness: the change of maps under small changes of the image."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._cpu import threefry
from .._frame import checks
from .._frame import targets as _targets
from .._frame.contract import like
from .._frame.targets import Target, Targets
from . import _methods, _statistics
from ._methods import Method


def _draws(
    images: jax.Array, key: jax.Array, radius: Any, count: int, batch_size: int
) -> Iterator[tuple[int, jax.Array]]:
    """Yield groups of images moved within the ball |d_i| <= radius, [group, batch, ...], and their size.

    Draw i depends only on (key, i) and is shared by the images.
    """
    together = max(1, batch_size // len(images))
    for start in range(0, count, together):
        size = min(together, count - start)
        yield size, _moved(images, key, radius, jnp.arange(start, start + size))


@jax.jit
def _moved(images, key, radius, indices):
    def one(index):
        return radius * threefry.uniform(jax.random.fold_in(key, index), images.shape[1:], -1.0, 1.0)

    return images[None] + jax.vmap(one)(indices).astype(images.dtype)[:, None]


def maps_around(method, model, images, target, key, radius, count, batch_size):
    """Yield the moved images [group, batch, ...] and their maps [group, batch, *k, height, width]."""
    for size, moved in _draws(images, key, radius, count, batch_size):
        flat = moved.reshape(-1, *images.shape[1:])
        found = _methods.maps_of(method, model, flat, target.tile(size), batch_size)
        yield moved, found.reshape(size, len(images), *found.shape[1:])


def norm(values: jax.Array, axes: int) -> jax.Array:
    """Return the Euclidean norm over the last `axes` axes."""
    return jnp.sqrt(jnp.square(values).sum(tuple(range(-axes, 0))))


def checked(model, images, targets, key, radius, num_samples, batch_size):
    found = _methods.prepare(model, images, targets, batch_size)
    radius = checks.number(radius, "radius", "(0, inf]")
    return *found, checks.key(key), jnp.float32(radius), _methods.samples(num_samples)


def max_sensitivity(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the largest relative change of the map in a small ball around the image; lower is better.

    max_{|d|_inf <= r} ||R(x + d) - R(x)|| / ||R(x)|| over random d. A method whose maps never change is
    perfect by this measure; `prediction_flips` returns how often the model's prediction changes.

    Args:
        method: `method(model, images, targets) -> maps`, of any library.
        model: The model to explain; a callable pytree.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain (see `jaxai.targets`); None: each unchanged image's top class.
        key: Randomness of the draws; a typed key. Draws are shared by the images.
        radius: r, in the units of the input: 0.02 in Captum, 0.2 in Quantus.
        num_samples: Number of draws.
        batch_size: At most this many images explained at once; None chooses by size.

    Returns:
        float32 [batch], or [batch, k] for k targets per image; NaN for a map of zeros.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, a class does not exist, numbers are out of range, or a map is NaN.

    References:
        Yeh et al.: On the (In)fidelity and Sensitivity of Explanations. NeurIPS 2019, arXiv 1901.09392,
        definition 2.2, relative as in the authors' program.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> f, image = lambda x: x.sum((1, 2)), jnp.ones((1, 4, 4, 1))
        >>> jaxai.metrics.max_sensitivity(jaxai.saliency, f, image, 0, key=jax.random.key(0)).tolist()
        [0.0]
    """
    return _changes(method, model, images, targets, key, radius, num_samples, batch_size).max(0)


@like(max_sensitivity)
def average_sensitivity(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the mean relative change of the map in a small ball around the image; lower is better.

    Returns:
        float32 [batch], or [batch, k] for k targets per image; NaN for a map of zeros.

    References:
        Bhatt, Weller, Moura: Evaluating and Aggregating Feature-based Model Explanations. IJCAI 2020, arXiv
        2005.00631, section 3.1.
    """
    return _changes(method, model, images, targets, key, radius, num_samples, batch_size).mean(0)


def _changes(method, model, images, targets, *options):
    """Return ||R(x + d) - R(x)|| / ||R(x)|| of all draws, [draws, batch, *k]."""
    _, images, target, chunk, key, radius, count = checked(model, images, targets, *options)
    own = _methods.maps_of(method, model, images, target, chunk)
    parts = [
        norm(maps - own, 2)
        for _, maps in maps_around(method, model, images, target, key, radius, count, chunk)
    ]
    return _statistics.ratio(jnp.concatenate(parts), norm(own, 2))


@like(max_sensitivity)
def prediction_flips(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
    batch_size: int | None = None,
) -> Float[Array, " batch"]:
    """Return the fraction of `max_sensitivity`'s draws in which the top class changes.

    Args:
        key: As for `max_sensitivity`: the same key draws the same images.

    Returns:
        float32 [batch], in [0, 1].
    """
    model, images, target, chunk, key, bound, count = checked(
        model, images, None, key, radius, num_samples, batch_size
    )
    return 1 - kept(model, images, target, key, bound, count, chunk).mean(0)


def kept(model, images, target, key, radius, count, chunk):
    """Return which draws keep the top class, float32 [draws, batch]."""
    parts = []
    for size, moved in _draws(images, key, radius, count, chunk):
        flat = moved.reshape(-1, *images.shape[1:])
        found = _targets.frozen(model, flat, Target(), chunk).classes
        assert found is not None
        parts.append((found.reshape(size, -1) == target.classes).astype(jnp.float32))
    return jnp.concatenate(parts)


@like(max_sensitivity)
def local_lipschitz(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the largest change of the map per change of the image in a small ball; lower is better.

    max ||R(x + d) - R(x)|| / ||d|| over random d with |d|_inf <= r. It has the map's unit: compare methods
    whose maps are of one scale.

    Returns:
        float32 [batch], or [batch, k] for k targets per image.

    References:
        Alvarez-Melis, Jaakkola: On the Robustness of Interpretability Methods. 2018, arXiv 1806.08049,
        equation 2.
    """
    _, images, target, chunk, key, bound, count = checked(
        model, images, targets, key, radius, num_samples, batch_size
    )
    own = _methods.maps_of(method, model, images, target, chunk)
    parts = []
    for moved, maps in maps_around(method, model, images, target, key, bound, count, chunk):
        distance = norm((moved - images).astype(jnp.float32), 3)
        parts.append(norm(maps - own, 2) / aligned(distance, own))
    return jnp.concatenate(parts).max(0)


def aligned(values, maps):
    """Return values [draws, batch] in a shape that broadcasts to [draws, batch, *k]."""
    return values.reshape(*values.shape, *(1,) * (maps.ndim - 3))


@like(max_sensitivity)
def continuity(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    steps: int = 8,
    shift: int = 1,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the largest change of the map per change of the image as the image moves; lower is better.

    max_s ||R(x^(s)) - R(x^(s - 1))||_1 / ||x^(s) - x^(s - 1)||_2, where x^(s) is the image shifted by s times
    `shift` pixels to the right; its left column fills the gap. It has the map's unit: compare methods whose
    maps are of one scale. Quantus compares every shifted image with the first one.

    Args:
        steps: Number of shifts.
        shift: Pixels per step; `steps` times `shift` must be less than the image's width.

    Returns:
        float32 [batch], or [batch, k] for k targets per image; NaN for an image with equal columns.

    Raises:
        ValueError: If the image would be shifted by its whole width.

    References:
        Montavon, Samek, Mueller: Methods for Interpreting and Understanding Deep Neural Networks. DSP
        2018, arXiv 1706.07979, section 6.1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> f, image = lambda x: x.sum((1, 2)), jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> jaxai.metrics.continuity(jaxai.saliency, f, image, 0, steps=2).tolist()
        [0.0]
    """
    model, images, target, chunk = _methods.prepare(model, images, targets, batch_size)
    steps, shift = checks.positive(steps, "steps"), checks.positive(shift, "shift")
    if steps * shift >= images.shape[2]:
        raise ValueError(
            f"`steps` times `shift` must be less than the image's width {images.shape[2]};"
            f" got {steps} times {shift}"
        )
    before, own = images, _methods.maps_of(method, model, images, target, chunk)
    found = []
    for step in range(1, steps + 1):
        after = _moved_right(images, step * shift)
        maps = _methods.maps_of(method, model, after, target, chunk)
        apart = aligned(norm((after - before).astype(jnp.float32), 3)[None], own)[0]
        found.append(_statistics.ratio(jnp.abs(maps - own).sum((-2, -1)), apart))
        before, own = after, maps
    return jnp.nanmax(jnp.stack(found), axis=0)


@jax.jit
def _moved_right(images, pixels):
    return images[:, :, jnp.maximum(jnp.arange(images.shape[2]) - pixels, 0)]
