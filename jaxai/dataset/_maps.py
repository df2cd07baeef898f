"""Maps in the form in which a store keeps them: a layer's size, summed over channels, scaled to 16 bits."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..report import _methods as methods
from ..report._supplies import Run

# Superpixels along a side, where only their shape matters.
_CELLS = 3


def prepared(method: methods.Chosen) -> methods.Chosen:
    """Return a method whose maps keep the layer's own size, unless it was asked otherwise."""
    if "upsample" in method.description.options and "upsample" not in method.options:
        return replace(method, options={**method.options, "upsample": False})
    return method


def dtype_of(method: methods.Chosen) -> str:
    """Return the type in which maps are kept: of a layer in 32 bits, of pixels in 16."""
    coarse = method.description.result == "layer" or prepared(method).options.get("upsample") is False
    return "float32" if coarse else "float16"


def shape_of(
    method: methods.Chosen, net: Any, layer: str | None, count: int, batch: int
) -> tuple[tuple[int, ...], str]:
    """Return the shape of the maps of one image, and their type.

    Args:
        method: The method.
        net: The network, `Pretrained`.
        layer: The layer, for methods that look at one.
        count: Classes per image.
        batch: Images at a time.

    Raises:
        ValueError: If the method does not take the network, the layer or an option.
    """
    side = net.input_size
    targets = jnp.tile(jnp.arange(count), (batch, 1)) if count > 1 else jnp.zeros(batch, jnp.int32)
    about = methods.without_photos(net, targets, cell=-(-side // _CELLS), layer=layer)

    def explained(photos):
        return maps_of(method, replace(about, images=net.normalize(photos)))

    photos = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    try:
        found = jax.eval_shape(explained, photos)
    except jax.errors.JAXTypeError:  # It needs concrete numbers.
        found = explained(jnp.linspace(0, 1, batch * side * side * 3).reshape(photos.shape))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{method.name}: {error}") from error
    return tuple(found.shape[1:]), dtype_of(method)


def maps_of(method: methods.Chosen, about: Run) -> jax.Array:
    """Return the maps of a batch, [batch, (k,) height, width]."""
    found = methods.call(prepared(method), about)
    if method.result == "segments":
        return found.heatmap
    return found.sum(-1) if method.description.result in ("layer", "pixels") else found


def scaled(maps: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return maps scaled to fit a type, and the factor per image that restores them.

    Gradients may be smaller than 16 bits can tell from zero. In 32 bits nothing is changed.
    """
    if dtype == "float32":
        return maps.astype(np.float32), np.ones(len(maps), np.float32)
    largest = np.abs(maps).reshape(len(maps), -1).max(1)
    scale = np.where(np.isfinite(largest) & (largest > 0), largest, 1).astype(np.float32)
    return (maps / scale.reshape(-1, *[1] * (maps.ndim - 1))).astype(np.float16), scale
