"""Stability: the change of maps relative to the change of images, hidden layers or scores."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers
from .._frame import checks
from .._frame import model as _model
from .._frame import targets as _targets
from .._frame.contract import like
from .._frame.model import as_model
from .._frame.results import brief
from .._frame.targets import Target, Targets
from . import _methods
from ._methods import Method
from ._robustness import aligned, checked, kept, maps_around, max_sensitivity, norm


class Stability(NamedTuple):
    """The change of a map relative to another change.

    Attributes:
        median: Median over the draws that keep the top class, float32 [batch] ([batch, k] for k targets per
            image); lower is better. NaN if no draw keeps it.
        largest: The maximum over these draws, as in the paper.
        kept: The fraction of draws that keep the top class, float32 [batch].
    """

    median: Float[Array, "batch *k"]
    largest: Float[Array, "batch *k"]
    kept: Float[Array, " batch"]

    __repr__ = brief


@like(max_sensitivity)
def relative_input_stability(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
    epsilon: float = 1e-3,
    batch_size: int | None = None,
) -> Stability:
    """Return the relative change of the map per relative change of the image; lower is better.

    ||(R(x') - R(x)) / R(x)|| / max(||(x' - x) / x||, epsilon), element by element, over draws x' with the
      same top class. The quotient explodes where R or x is close to zero: magnitudes below epsilon times the
      largest are replaced by that value, and the median over draws is returned along with the paper's
      maximum.

    Args:
        epsilon: Smallest magnitude of a divisor, as a fraction of the largest in its image or map; with the
            papers' 1e-6 single pixels decide.

    Returns:
        `Stability` with `median`, `largest` and `kept`.

    References:
        Agarwal et al.: Rethinking Stability for Attribution-based Explanations. 2022, arXiv 2203.06877,
        equation 2.
    """

    def look(model, x):
        return x

    return _stability(look, method, model, images, targets, epsilon, key, radius, num_samples, batch_size)


@like(max_sensitivity)
def relative_output_stability(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
    epsilon: float = 1e-3,
    batch_size: int | None = None,
) -> Stability:
    """Return the relative change of the map per change of the scores; lower is better.

    ||(R(x') - R(x)) / R(x)|| / max(||h(x') - h(x)||, epsilon) with the logits h, over draws x' with the same
      top class; magnitudes of R below epsilon times the largest are replaced by that value.

    Args:
        epsilon: Smallest change of the scores, and smallest magnitude of a value as a fraction of the map's
            largest.

    Returns:
        `Stability` with `median`, `largest` and `kept`.

    References:
        Agarwal et al.: Rethinking Stability for Attribution-based Explanations. 2022, arXiv 2203.06877,
        equation 5.
    """
    return _stability(
        _model.call,
        method,
        model,
        images,
        targets,
        epsilon,
        key,
        radius,
        num_samples,
        batch_size,
        relative=False,
    )


@like(max_sensitivity)
def relative_representation_stability(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    layer: str | None = None,
    radius: float = 0.02,
    num_samples: int = 10,
    epsilon: float = 1e-3,
    batch_size: int | None = None,
) -> Stability:
    """Return the relative change of the map per relative change of a hidden layer; lower is better.

    ||(R(x') - R(x)) / R(x)|| / max(||(L(x') - L(x)) / L(x)||, epsilon) with the layer's activations L, over
      draws x' with the same top class; magnitudes of R and L below epsilon times the largest are replaced by
      that value.

    Args:
        model: As for `max_sensitivity`; a layered model (`jaxai.models`, `chain`, `layers.named`).
        layer: L; None: the last hidden layer with positions that is not a pool.
        epsilon: As for `relative_input_stability`.

    Returns:
        `Stability` with `median`, `largest` and `kept`.

    Raises:
        ValueError: If the model has no such layer.

    References:
        Agarwal et al.: Rethinking Stability for Attribution-based Explanations. 2022, arXiv 2203.06877,
        equation 3.
    """
    network, own = as_model(model), checks.images(images)
    hidden = layers.Body(network, layers.resolve(network, layer, own))

    def look(model, x):
        return _model.call(hidden, x)

    return _stability(look, method, model, images, targets, epsilon, key, radius, num_samples, batch_size)


def _relative(moved, own, epsilon, axes):
    size = jnp.abs(own)
    least = epsilon * size.max(tuple(range(-axes, 0)), keepdims=True)
    divisor = jnp.maximum(size, jnp.where(least > 0, least, jnp.nan))
    return norm((moved - own) / divisor, axes)


def _stability(look, method, model, images, targets, epsilon, *options, relative=True):
    """Compare changes of maps with changes of `look(model, images)`: images, scores or activations."""
    epsilon = checks.number(epsilon, "epsilon", "(0, inf]")
    network, images, target, chunk, key, radius, count = checked(model, images, targets, *options)

    def seen(x):
        parts = [look(network, x[i : i + chunk]) for i in range(0, len(x), chunk)]
        return jnp.concatenate(parts).astype(jnp.float32).reshape(len(x), -1)

    own, before = _methods.maps_of(method, model, images, target, chunk), seen(images)
    parts = []
    for moved, maps in maps_around(method, model, images, target, key, radius, count, chunk):
        after = seen(moved.reshape(-1, *images.shape[1:])).reshape(*moved.shape[:2], -1)
        change = _relative(after, before, epsilon, 1) if relative else norm(after - before, 1)
        parts.append(_relative(maps, own, epsilon, 2) / aligned(jnp.maximum(change, epsilon), own))
    top = _targets.frozen(network, images, Target(), chunk)
    stayed = kept(network, images, top, key, radius, count, chunk)
    values = jnp.where(aligned(stayed, own) > 0, jnp.concatenate(parts), jnp.nan)
    return Stability(jnp.nanmedian(values, axis=0), jnp.nanmax(values, axis=0), stayed.mean(0))
