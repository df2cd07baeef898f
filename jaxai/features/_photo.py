"""Visualizations from photographs: accentuating a feature, inversion and caricature of a layer."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers
from .._frame import checks
from .._frame import targets as _targets
from .._frame.contract import completed
from . import _engine, directions, objectives, priors
from ._dream import identity
from ._visualize import Visualization, listed, single, small_is_meant, visualize
from .objectives import Objective


def _targets_at(model, normalize, photos, layer):
    """Return the activations of photos at a layer, [batch, ...]."""
    model, normalize = _targets.as_model(model), _targets.as_model(normalize or identity)
    layer = layers.resolve(model, layer, photos)
    return jax.jit(lambda m, x: _engine.see(m, normalize, (layer,), x)[layer])(model, photos).astype(
        jnp.float32
    )


@completed
def accentuate(
    model: Callable[..., Any],
    photos: Float[Array, "batch height width channels"],
    objective: str | Objective | Sequence[Any],
    *,
    layer: str,
    key: jax.Array,
    strength: float = 1.0,
    steps: int = 100,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    **options: Any,
) -> Visualization:
    """Change photos so that a feature's activation grows, while an early layer still sees the photo.

    The objective climbed is `objective - strength * (mean absolute change of the layer) / (mean absolute
    activation of the layer)`.

    Args:
        objective: What to accentuate: one objective for all photos, or one per photo.
        layer: The layer that keeps the photo similar: the earlier, the closer in pixels.
        strength: Weight of the similarity term, in units of the objective.
        **options: Further keywords of `visualize`. There are no random transforms unless asked for, because
            the bond compares positions.

    Returns:
        A `Visualization` of one image for each photo.

    Raises:
        ValueError: If the numbers of photos and objectives differ.

    References:
        Hamblin et al.: Feature Accentuation: Revealing 'What' Features Respond to in Natural Images. 2024,
        arXiv 2402.10039 (whose regularization and augmentation differ).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"blue": lambda x: jax.nn.relu(x[..., 2:])})
        >>> key, photos = jax.random.key(0), jnp.full((1, 16, 16, 3), 0.5)
        >>> seen = jaxai.accentuate(net, photos, "blue:0", layer="blue", key=key, steps=4)
        >>> bool(seen.images[..., 2].mean() > 0.5)
        True
    """
    photos = checks.images(photos, "photos")
    given = listed(objective) * (photos.shape[0] if single(objective) else 1)
    if len(given) != photos.shape[0]:
        raise ValueError(
            f"there must be one objective, or one for each of {photos.shape[0]} photos; got {len(given)}"
        )
    targets = _targets_at(model, normalize, photos, layer)
    bound = [
        objectives.parse(one)
        - directions.activation_difference(layer, target) * (strength / (jnp.abs(target).mean() + 1e-6))
        for one, target in zip(given, targets, strict=True)
    ]
    return _visualize(
        model, bound, photos, key=key, steps=steps, normalize=normalize, start=photos, **options
    )


@completed
def invert(
    model: Callable[..., Any],
    photos: Float[Array, "batch height width channels"],
    *,
    layer: str,
    key: jax.Array,
    smoothness: float = 0.05,
    steps: int = 256,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    **options: Any,
) -> Visualization:
    """Reconstruct photos from their activations at a layer, from noise: the information that it keeps.

    The objective is minus the squared distance of the activations over the photo's mean squared activation,
    minus `smoothness` times the total variation per pixel and channel.

    Args:
        smoothness: Weight of the total variation.
        **options: Further keywords of `visualize`; there are no random transforms unless asked for.

    Returns:
        A `Visualization` of one image for each photo.

    References:
        Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them. CVPR 2015, arXiv
        1412.0035.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"blue": lambda x: jax.nn.relu(x[..., 2:])})
        >>> key, photos = jax.random.key(0), jnp.full((1, 16, 16, 3), 0.5)
        >>> seen = jaxai.invert(net, photos, layer="blue", key=key, steps=4)
        >>> seen.images.shape, seen.history.shape
        ((1, 16, 16, 3), (1, 4))
    """
    photos = checks.images(photos, "photos")
    targets = _targets_at(model, normalize, photos, layer)
    weight = smoothness / photos[0].size
    wanted = [
        -directions.activation_difference(layer, target, kind="l2") / (jnp.square(target).mean() + 1e-6)
        - weight * priors.total_variation()
        for target in targets
    ]
    return _visualize(model, wanted, photos, key=key, steps=steps, normalize=normalize, **options)


@completed
def caricature(
    model: Callable[..., Any],
    photos: Float[Array, "batch height width channels"],
    *,
    layer: str,
    key: jax.Array,
    cosine_power: float = 1.0,
    steps: int = 256,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    **options: Any,
) -> Visualization:
    """Exaggerate a layer's activations for photos: ascend the dot product with them, from noise.

    Args:
        layer: The layer whose activations to exaggerate.
        cosine_power: Exponent of max(0.1, cosine), as in `directions.direction`.
        **options: Further keywords of `visualize`; there are no random transforms unless asked for.

    Returns:
        A `Visualization` of one image for each photo.

    References:
        Mahendran, Vedaldi: Visualizing Deep Convolutional Neural Networks Using Natural Pre-Images. 2016
        (caricaturization); the objective here is that of Lucid's notebooks.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"blue": lambda x: jax.nn.relu(x[..., 2:])})
        >>> key, photos = jax.random.key(0), jnp.full((1, 16, 16, 3), 0.5)
        >>> seen = jaxai.caricature(net, photos, layer="blue", key=key, steps=4)
        >>> seen.images.shape, bool(seen.history[0, -1] > seen.history[0, 0])
        ((1, 16, 16, 3), True)
    """
    photos = checks.images(photos, "photos")
    targets = _targets_at(model, normalize, photos, layer)
    wanted = [
        directions.tensor_direction(
            layer, target / (jnp.linalg.norm(target) + 1e-6), cosine_power=cosine_power
        )
        for target in targets
    ]
    return _visualize(model, wanted, photos, key=key, steps=steps, normalize=normalize, **options)


def _visualize(model, wanted, photos, **options):
    """Visualize one objective for each photo at the photo's size; by default without random transforms."""
    defaults = {"transforms": None, "redirect": 0}
    with small_is_meant():
        return visualize(
            model,
            wanted,
            size=(photos.shape[1], photos.shape[2]),
            channels=photos.shape[3],
            **{**defaults, **options},
        )
