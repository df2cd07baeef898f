"""How much more maps change than images, hidden layers or scores do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers
from .._frame import checks
from .._frame import model as _model
from .._frame import targets as _targets
from .._frame.model import as_model
from .._frame.targets import Target, Targets
from . import _methods
from ._methods import Method
from ._robustness import aligned, checked, kept, maps_around, norm


class Stability(NamedTuple):
    """How much more a map changes than something else does.

    Attributes:
        median: Over the draws that keep the top class, float32 [batch] ([batch, k] for k targets per image);
            lower is better. NaN where no draw keeps it.
        largest: The largest, as the paper has it.
        kept: The share of draws that keep the top class, float32 [batch].
    """

    median: Float[Array, "batch *k"]
    largest: Float[Array, "batch *k"]
    kept: Float[Array, " batch"]


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

    ||(R(x') - R(x)) / R(x)|| / max(||(x' - x) / x||, epsilon), element by element, over draws x' of the same
    top class. Where R or x is close to zero the quotient explodes: magnitudes below epsilon times the largest
    count as that much, and the median over draws is given beside the paper's maximum.

    Args:
        method: As for `max_sensitivity`.
        model: As for `max_sensitivity`.
        images: As for `max_sensitivity`.
        targets: As for `max_sensitivity`.
        key: As for `max_sensitivity`.
        radius: As for `max_sensitivity`.
        num_samples: As for `max_sensitivity`.
        epsilon: Least magnitude of a divisor, as a share of the largest of its image or map; the papers' 1e-6
            lets single pixels decide.
        batch_size: As for `max_sensitivity`.

    Returns:
        `Stability` with `median`, `largest` and `kept`.

    Raises:
        TypeError: As `max_sensitivity` does.
        ValueError: As `max_sensitivity` does.

    References:
        Agarwal et al.: Rethinking Stability for Attribution-based Explanations. 2022, arXiv 2203.06877,
        equation 2.
    """

    def change(moved, images, model, chunk):
        return _relative(moved.astype(jnp.float32), images.astype(jnp.float32), epsilon, 3)

    return _stability(change, method, model, images, targets, epsilon, key, radius, num_samples, batch_size)


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

    ||(R(x') - R(x)) / R(x)|| / max(||h(x') - h(x)||, epsilon) with the logits h, over draws x' of the same
    top class; magnitudes of R below epsilon times the largest count as that much.

    Args:
        method: As for `max_sensitivity`.
        model: As for `max_sensitivity`.
        images: As for `max_sensitivity`.
        targets: As for `max_sensitivity`.
        key: As for `max_sensitivity`.
        radius: As for `max_sensitivity`.
        num_samples: As for `max_sensitivity`.
        epsilon: Least change of the scores, and least magnitude of a value as a share of the map's largest.
        batch_size: As for `max_sensitivity`.

    Returns:
        `Stability` with `median`, `largest` and `kept`.

    Raises:
        TypeError: As `max_sensitivity` does.
        ValueError: As `max_sensitivity` does.

    References:
        Agarwal et al.: Rethinking Stability for Attribution-based Explanations. 2022, arXiv 2203.06877,
        equation 5.
    """

    def change(moved, images, model, chunk):
        flat = moved.reshape(-1, *images.shape[1:])
        scores = [_model.call(model, flat[i : i + chunk]) for i in range(0, len(flat), chunk)]
        scores = jnp.concatenate(scores).reshape(*moved.shape[:2], -1)
        return norm((scores - _model.call(model, images)).astype(jnp.float32), 1)

    return _stability(change, method, model, images, targets, epsilon, key, radius, num_samples, batch_size)


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
    draws x' of the same top class; magnitudes of R and L below epsilon times the largest count as that much.

    Args:
        method: As for `max_sensitivity`.
        model: As for `max_sensitivity`; a layered model (`jaxai.models`, `chain`, `layers.named`).
        images: As for `max_sensitivity`.
        targets: As for `max_sensitivity`.
        key: As for `max_sensitivity`.
        layer: L; None: the last hidden layer with positions that is not a pool.
        radius: As for `max_sensitivity`.
        num_samples: As for `max_sensitivity`.
        epsilon: As for `relative_input_stability`.
        batch_size: As for `max_sensitivity`.

    Returns:
        `Stability` with `median`, `largest` and `kept`.

    Raises:
        TypeError: As `max_sensitivity` does.
        ValueError: As `max_sensitivity` does, or if the model has no such layer.

    References:
        Agarwal et al.: Rethinking Stability for Attribution-based Explanations. 2022, arXiv 2203.06877,
        equation 3.
    """
    network, own = as_model(model), checks.images(images)
    hidden = layers.Body(network, layers.resolve(network, layer, own))

    def change(moved, images, model, chunk):
        flat = moved.reshape(-1, *images.shape[1:])
        acts = [_activations(hidden, flat[i : i + chunk]) for i in range(0, len(flat), chunk)]
        acts = jnp.concatenate(acts).reshape(*moved.shape[:2], -1)
        return _relative(acts, _activations(hidden, images), epsilon, 1)

    return _stability(change, method, model, images, targets, epsilon, key, radius, num_samples, batch_size)


def _activations(hidden, images):
    return _model.call(hidden, images).astype(jnp.float32).reshape(len(images), -1)


def _relative(moved, own, epsilon, axes):
    size = jnp.abs(own)
    least = epsilon * size.max(tuple(range(-axes, 0)), keepdims=True)
    divisor = jnp.maximum(size, jnp.where(least > 0, least, jnp.nan))
    return norm((moved - own) / divisor, axes)


def _stability(change, method, model, images, targets, epsilon, *options):
    epsilon = checks.number(epsilon, "epsilon", "(0, inf]")
    network, images, target, chunk, key, radius, count = checked(model, images, targets, *options)
    own = _methods.maps_of(method, model, images, target, chunk)
    parts = []
    for moved, maps in maps_around(method, model, images, target, key, radius, count, chunk):
        below = jnp.maximum(change(moved, images, network, chunk), epsilon)
        parts.append(_relative(maps, own, epsilon, 2) / aligned(below, own))
    top = _targets.frozen(network, images, Target(), chunk)
    stayed = kept(network, images, top, key, radius, count, chunk)
    values = jnp.where(aligned(stayed, own) > 0, jnp.concatenate(parts), jnp.nan)
    return Stability(jnp.nanmedian(values, axis=0), jnp.nanmax(values, axis=0), stayed.mean(0))
