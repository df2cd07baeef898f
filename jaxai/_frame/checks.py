"""Checks of arguments, shared by every method: one clear line for a caller's mistake."""

import math
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_PACKAGE = str(Path(__file__).parents[1])


def images(x: Any, name: str = "images", *, plane: bool = True) -> jax.Array:
    """Return `x` as a floating array of shape [batch, height, width, channels].

    Without `plane` it may also be signals [batch, time, channels] or volumes [batch, depth, height, width,
    channels].

    Concrete values are checked (0.1 ms for 16 images of 224 x 224), because XLA may compile a ReLU so that
    NaN becomes zero: a damaged image would get a map that looks like an explanation. Traced values cannot be
    checked.

    Raises:
        TypeError: If the values are not floating point (uint8 pixels were not preprocessed).
        ValueError: If the rank is not four, an axis is empty, three channels come before large images, or
            concrete values are NaN or infinite.
    """
    array = jnp.asarray(x)
    if array.ndim not in ((4,) if plane else (3, 4, 5)):
        raise ValueError(of_rank(name, array.shape, plane))
    if array.ndim == 4 and array.shape[1] == 3 and min(array.shape[2:]) >= 16:
        raise ValueError(
            f"`{name}` must be [batch, height, width, channels]; got shape {array.shape}, which looks like"
            " [batch, channels, height, width]: transpose them, and back within the model"
        )
    if 0 in array.shape:
        raise ValueError(f"`{name}` must have no empty axis; got shape {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"`{name}` must be floating point, as the model takes them; got {array.dtype}"
            " (preprocess the photo first)"
        )
    if not _finite(array):
        bad = np.flatnonzero(~np.asarray(jnp.isfinite(array).all(tuple(range(1, array.ndim)))))
        raise ValueError(f"`{name}` must be finite; got NaN or infinite values in image {bad[0]}")
    return array


def of_rank(name: str, shape: tuple[int, ...], plane: bool) -> str:
    """Return a line about images of another rank than methods take."""
    line = f"`{name}` must be [batch, height, width, channels]; got shape {shape}"
    if not plane:
        return f"{line}; signals are [batch, time, channels], volumes [batch, depth, height, width, channels]"
    if len(shape) not in (3, 5):
        return line
    return (
        f"{line}. Signals and volumes have no plane to draw on; gradients, rules and paths explain them,"
        " occlusion, and LIME and Shapley values of given segments"
    )


def _finite(x: jax.Array) -> bool:
    if isinstance(x, Tracer) or not x.is_fully_addressable:
        return True
    if len(x.devices()) > 1 or next(iter(x.devices())).platform != "cpu":
        return bool(jnp.isfinite(x).all())
    values = np.asarray(x).reshape(-1)
    if values.dtype.itemsize == 2:
        # NumPy converts half precision slowly; NaN and infinity have all bits of the exponent.
        exponent = np.uint16(0x7F80 if x.dtype == jnp.bfloat16 else 0x7C00)
        return bool((values.view(np.uint16) & exponent).max() < exponent)
    # One pass without a temporary array. Finite values may overflow in the product; then each is checked.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values @ values) or np.isfinite(values).all())


def key(value: Any) -> jax.Array:
    """Return `value` if it is one typed PRNG key.

    Raises:
        TypeError: If it is a legacy uint32 key, an integer or anything else.
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        if value.ndim == 0:
            return value
        raise TypeError(f"`key` must be one key; got an array of keys of shape {value.shape}")
    kind = getattr(value, "dtype", type(value).__name__)
    raise TypeError(f"`key` must be a typed key, jax.random.key(seed); got {kind}")


def at_least(value: Any, name: str, least: int) -> int:
    """Return `value` as a Python int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"`{name}` must be {wanted}; got {value!r}")
    return int(value)


def positive(value: Any, name: str) -> int:
    """Return `value` as a Python int of at least one."""
    return at_least(value, name, 1)


def number(value: Any, name: str, interval: str) -> Any:
    """Return `value`, a Python float if concrete, checked to lie in an interval such as `"(0, 1]"`.

    Traced numbers are returned as they are.

    Raises:
        ValueError: If it is not a number, is NaN, or lies outside.
    """
    if isinstance(value, Tracer):
        return value
    low, high = (float(end) for end in interval[1:-1].split(","))
    try:
        found = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    inside = low <= found <= high
    if not inside or (found == low and interval[0] == "(") or (found == high and interval[-1] == ")"):
        raise ValueError(f"`{name}` must be a number in {interval}; got {value!r}")
    return found


def batch_size(value: Any) -> int | None:
    """Return a chunk size: None or a positive int."""
    return None if value is None else positive(value, "batch_size")


def choice(value: Any, name: str, options: tuple[str, ...]) -> str:
    """Return `value` if it is one of `options`."""
    if value not in options:
        raise ValueError(f"`{name}` must be one of {', '.join(options)}; got {value!r}")
    return value


def pair(value: Any, name: str) -> tuple[int, int]:
    """Return an int or a pair of ints as a pair of positive ints (rows, columns)."""
    values = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(values) != 2:
        raise ValueError(f"`{name}` must be an integer or a pair (rows, columns); got {value!r}")
    return positive(values[0], name), positive(values[1], name)


def lengths(value: Any, name: str, count: int) -> tuple[int, ...]:
    """Return an int or several as `count` positive ints: (rows, columns) for images."""
    if count == 2:
        return pair(value, name)
    values = (value,) * count if isinstance(value, (int, np.integer)) else tuple(value)
    if len(values) != count:
        what = "(depth, rows, columns)" if count == 3 else "one in brackets"
        raise ValueError(f"`{name}` must be an integer or {what}; got {value!r}")
    return tuple(positive(each, name) for each in values)


def like_images(value: Any, images: jax.Array, name: str, *, one: bool = False) -> jax.Array:
    """Return a value that broadcasts to the images, such as a baseline, as an array of their shape and type.

    Args:
        value: A number or an array.
        images: The images.
        name: The value's name in errors.
        one: Return the value for a single image, shared by all.

    Raises:
        ValueError: If it does not broadcast.
    """
    array = jnp.asarray(value, images.dtype)
    try:
        return jnp.broadcast_to(array, (1, *images.shape[1:]) if one else images.shape)
    except ValueError:
        raise ValueError(
            f"`{name}` must broadcast to the images' shape {images.shape}; got {array.shape}"
        ) from None


def warn(message: str) -> None:
    """Warn with the line outside this package that called it."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
