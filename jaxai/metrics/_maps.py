"""Checks of maps for metrics: of any library, with or without channels, one per target."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._frame import checks
from .._frame.targets import Target


def of_images(maps: Any, images: jax.Array, target: Target) -> jax.Array:
    """Return the maps of images and targets, float32 [batch, *k, height, width], summed over channels.

    Raises:
        ValueError: If the shape does not fit, or concrete values are NaN or infinite.
    """
    return with_channels(maps, images, target).sum(-1)


def with_channels(maps: Any, images: jax.Array, target: Target) -> jax.Array:
    """Return the maps like `of_images`, but with their channels; maps without channels get one."""
    values = _floats(maps)
    lead, size = (images.shape[0], *target.axes), images.shape[1:3]
    without = (*lead, *size)
    if values.shape != without:
        if values.shape[:-1] != without or values.shape[-1] == 0:
            words = "[batch, k, height, width]" if target.axes else "[batch, height, width]"
            raise ValueError(
                f"`maps` must be {words}, {without} for these images and targets, or have channels after it;"
                f" got shape {values.shape}{_advice(values.shape, without)}"
            )
        return _checked(values)
    return _checked(values)[..., None]


def _advice(shape, expected):
    small = len(shape) == len(expected) and shape[:-2] == expected[:-2]
    return " (jaxai.maps.upsample makes them larger)" if small and shape[-1] < expected[-1] else ""


def of_method(maps: Any, batch: int, target: Target) -> jax.Array:
    """Return a method's result as maps of any size, float32 [batch, *k, height, width].

    Raises:
        ValueError: If the leading axes do not fit, or concrete values are NaN or infinite.
    """
    values, lead = _floats(maps), (batch, *target.axes)
    if values.shape[: len(lead)] != lead or values.ndim - len(lead) not in (2, 3) or 0 in values.shape:
        words = "[batch, k, height, width]" if target.axes else "[batch, height, width]"
        raise ValueError(
            f"`method` must return maps {words}, {lead} first, with or without channels;"
            f" got shape {values.shape}"
        )
    return _checked(values if values.ndim == len(lead) + 2 else values.sum(-1), "the method's maps")


def alone(maps: Any, name: str = "maps") -> jax.Array:
    """Return maps given without images, float32 [batch, height, width], summed over channels.

    Raises:
        ValueError: If they are not [batch, height, width] or [batch, height, width, channels], are empty, or
            concrete values are NaN or infinite.
    """
    values = _floats(maps)
    if values.ndim == 4 and values.shape[3] > values.shape[1]:
        raise ValueError(
            f"`{name}` must be [batch, height, width] or [batch, height, width, channels]; got shape"
            f" {values.shape}, which looks like [batch, k, height, width]: reshape k maps of an image to"
            " maps of their own"
        )
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise ValueError(
            f"`{name}` must be [batch, height, width] or [batch, height, width, channels];"
            f" got shape {values.shape}"
        )
    return _checked(values if values.ndim == 3 else values.sum(-1), name)


def masks(values: Any, maps: jax.Array) -> jax.Array:
    """Return the masks of maps [batch, height, width] as bool arrays of their shape.

    Raises:
        TypeError: If they are neither bool nor numbers.
        ValueError: If the shape does not fit, values are not 0 and 1, or a mask marks no pixel.
    """
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"`masks` must be bool, or numbers 0 and 1; got {array.dtype}")
    if array.ndim == maps.ndim + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.shape not in (maps.shape, maps.shape[1:]):
        raise ValueError(
            f"`masks` must fit the maps, shape {maps.shape} or {maps.shape[1:]}; got shape {array.shape}"
        )
    if not isinstance(array, Tracer):
        host = np.asarray(array)
        if not np.isin(host, (0, 1)).all():
            raise ValueError(
                f"`masks` must be 0 and 1; got values from {host.min():g} to {host.max():g}"
                " (compare labels first, labels == 3)"
            )
        empty = ~host.reshape(-1, maps.shape[1] * maps.shape[2]).astype(bool).any(1)
        if empty.any():
            raise ValueError(f"`masks` must mark at least one pixel; that of image {empty.argmax()} is empty")
    return jnp.broadcast_to(jnp.asarray(array).astype(bool), maps.shape)


def constant(maps: jax.Array) -> jax.Array:
    """Return which maps [..., height, width] are constant, with a warning if any is."""
    flat = maps.max((-2, -1)) == maps.min((-2, -1))
    if not isinstance(flat, Tracer):
        where = np.argwhere(np.asarray(flat))
        if len(where):
            image, *target = where[0].tolist()
            which = f"image {image}" + (f", target {target[0]}" if target else "")
            more = f" (and {len(where) - 1} more)" if len(where) > 1 else ""
            checks.warn(f"the map of {which}{more} is constant: it orders nothing, and its score is NaN")
    return flat


def undefined(values: jax.Array, flat: jax.Array) -> jax.Array:
    """Return values [*maps, ...] with NaN for constant maps."""
    return jnp.where(flat.reshape(*flat.shape, *(1,) * (values.ndim - flat.ndim)), jnp.nan, values)


def _floats(maps):
    # Explanations on superpixels hold the map as an attribute.
    maps = getattr(maps, "heatmap", maps)
    array = maps if isinstance(maps, jax.Array) else np.asarray(maps)
    if array.dtype.kind not in "biuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"`maps` must be an array of real numbers; got {array.dtype}")
    return jnp.asarray(array).astype(jnp.float32)


def _checked(values, name="maps"):
    if not isinstance(values, Tracer):
        bad = ~np.isfinite(np.asarray(values)).reshape(len(values), -1).all(1)
        if bad.any():
            raise ValueError(
                f"{_quoted(name)} must be finite; that of image {bad.argmax()} has NaN or infinite values"
            )
    return values


def _quoted(name):
    return name if " " in name else f"`{name}`"
