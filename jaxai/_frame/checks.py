"""Checks of arguments, shared by every method: one clear line for a caller's mistake."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def images(x: Any, name: str = "images") -> jax.Array:
    """Return `x` as a floating array of shape [batch, height, width, channels].

    Raises:
        TypeError: If the values are not floating point (uint8 pixels were not preprocessed).
        ValueError: If the rank is not four, an axis is empty, or three channels come before large images.
    """
    x = jnp.asarray(x)
    if x.ndim != 4:
        raise ValueError(f"`{name}` must be [batch, height, width, channels]; got shape {x.shape}")
    if x.shape[1] == 3 and min(x.shape[2:]) >= 16:
        raise ValueError(
            f"`{name}` must be [batch, height, width, channels]; got shape {x.shape}, which looks like"
            " [batch, channels, height, width]: transpose them, and back within the model"
        )
    if 0 in x.shape:
        raise ValueError(f"`{name}` must have no empty axis; got shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"`{name}` must be floating point, as the model takes them; got {x.dtype}"
            " (preprocess the photo first)"
        )
    return x


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


def positive(value: Any, name: str) -> int:
    """Return `value` as a Python int of at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer; got {value!r}")
    return int(value)


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
