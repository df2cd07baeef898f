"""Axioms for maps: completeness, zero for irrelevant regions, invariance to shifts of the input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, ArrayLike, Float, Integer

from .._frame import checks
from .._frame.contract import like
from .._frame.model import as_model
from .._frame.targets import Targets
from ..perturbation._scoring import Perturbation
from . import _hidden, _methods, _order, _regions, _statistics
from ._methods import Method
from ._removal import deletion
from ._robustness import max_sensitivity, norm


@like(deletion)
def completeness(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    fill: Any = 0.0,
    key: jax.Array | None = None,
    probability: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the relative error of the map's sum as the score's difference from a baseline; 0 is complete.

    |sum R - (f(x) - f(x'))| / |f(x) - f(x')|, where x' is `fill` everywhere, which should be the map's own
      baseline.

    Args:
        maps: As for `deletion`, in the unit of the score.
        targets: As for `deletion`: the score of the class.
        fill: x', as for `deletion`.
        probability: True uses the probability of classes instead of the score.

    Returns:
        float32 [batch], or [batch, k] for k targets per image; NaN where the scores are equal.
        `jaxai.completeness_gap` returns the signed gap in units of the score.

    References:
        Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks. ICML 2017, arXiv 1703.01365,
        proposition 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> image, f = jnp.arange(1.0, 5.0).reshape(1, 2, 2, 1), lambda x: x.sum((1, 2))
        >>> jaxai.metrics.completeness(f, image, image, 0).tolist()
        [0.0]
        >>> jaxai.metrics.completeness(f, image, 3 * image, 0).tolist()
        [2.0]
    """
    asked = _hidden.ask(
        model, images, maps, targets, fill=fill, batch_size=batch_size, probability=probability, key=key
    )
    size = asked.images.shape[1:3]
    without = _hidden.scores(asked, Perturbation(_everything, (size,), ()), 1)[:, 0]
    difference = _hidden.originals(asked) - without
    gap = jnp.abs(asked.maps.sum((-2, -1)) - difference)
    return _statistics.ratio(gap, jnp.abs(difference))


def _everything(size, pairs):
    return jnp.ones((len(pairs[0]), *size), bool)


@like(deletion)
def non_sensitivity(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    key: jax.Array,
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    share: float = 1e-3,
    num_samples: int = 10,
    num_segments: int | None = None,
    probability: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return the fraction of regions relevant only to the map or only to the model; lower is better.

    |A_0 xor X_0| over the number of regions: A_0 are those where the map is zero, X_0 those whose replacement
      by noise changes nothing. Zero means at most `share` times the largest value over regions, of the mean
      of |R| and of E[(f(x) - f(x'))^2]^(1/2).

    Args:
        key: Randomness of the noise; a typed key.
        segments: The regions, int [batch, height, width], equally many in every image; None: a grid of 8 x 8
            rectangles. The paper uses single pixels.
        share: Fraction of the largest value that counts as zero, in [0, 1).
        num_samples: Number of noise draws per region.
        probability: False uses the raw scores of classes.

    Returns:
        float32 [batch], or [batch, k] for k targets per image, in [0, 1]. Quantus 0.6 treats negative values
        of a map as zero.

    Raises:
        ValueError: If images have different numbers of regions.

    References:
        Nguyen, Martinez: On Quantitative Aspects of Model Interpretability. 2020, arXiv 2007.07584, section
        3.1.
    """
    share = checks.number(share, "share", "[0, 1)")
    asked, square = _regions.effects(
        model,
        images,
        maps,
        targets,
        key=key,
        segments=segments,
        num_samples=num_samples,
        num_segments=num_segments,
        probability=probability,
        batch_size=batch_size,
    )
    ones = jnp.ones((len(asked.images), *asked.images.shape[1:3]))
    area = _order.for_each(_hidden.on_units(ones, asked.units), square)
    size = _hidden.on_units(jnp.abs(asked.maps), asked.units) / jnp.maximum(area, 1)
    quiet = [x <= share * x.max(-1, keepdims=True) for x in (size, jnp.sqrt(square))]
    return (quiet[0] != quiet[1]).astype(jnp.float32).mean(-1)


@register_dataclass
@dataclass(frozen=True)
class Shifted:
    """The model for images to which `shift` was added, with the same scores and layers."""

    model: Any
    shift: jax.Array

    def __call__(self, x: jax.Array, **parts: Any) -> Any:
        """Return the model's output for x - shift; activations (`start=`) are passed on unchanged."""
        return self.model(x if parts.get("start") is not None else x - self.shift, **parts)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The model's layers."""
        return self.model.layer_names

    @property
    def split(self) -> Any:
        """The model's own `split`, if it has one."""
        own = self.model.split
        return lambda layer, images: own(layer, images - self.shift)


@like(max_sensitivity)
def input_invariance(
    method: Method,
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    shift: Any = 1.0,
    batch_size: int | None = None,
) -> Float[Array, "batch *k"]:
    """Return how much the map changes if images are shifted and the model shifts them back; 0 is best.

    ||R'(x + s) - R(x)|| / ||R(x)||, where R' explains f'(x) = f(x - s), so that f'(x + s) = f(x). Methods
      with a fixed baseline, or that multiply by the image, are not invariant.

    Args:
        shift: s, in the units of the input: a number, a colour, or anything that broadcasts to one image.

    Returns:
        float32 [batch], or [batch, k] for k targets per image; NaN for a map of zeros. Rounding of x + s
        contributes about 1e-6.

    Raises:
        ValueError: If `shift` does not broadcast.

    References:
        Kindermans et al.: The (Un)reliability of Saliency Methods. 2017, arXiv 1711.00867, section 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> image, f = jnp.arange(1.0, 5.0).reshape(1, 2, 2, 1), lambda x: x.sum((1, 2))
        >>> jaxai.metrics.input_invariance(jaxai.saliency, f, image, 0).tolist()
        [0.0]
    """
    _, images, target, chunk = _methods.prepare(model, images, targets, batch_size)
    moved = checks.like_images(shift, images[:1], "shift")
    own = _methods.maps_of(method, model, images, target, chunk)
    network = Shifted(as_model(model), moved)
    found = _methods.maps_of(method, network, images + moved, target, chunk)
    return _statistics.ratio(norm(found - own, 2), norm(own, 2))
