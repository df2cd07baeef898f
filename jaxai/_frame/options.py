"""Splits a method's keywords for compiled code: arrays and functions are arguments, the rest is static."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from .model import as_model


def split(options: Mapping[str, Any]) -> tuple[tuple[tuple[str, Any], ...], dict[str, Any]]:
    """Return the static options as sorted pairs, and the options that hold arrays or are functions.

    Raises:
        TypeError: If an option is neither an array (or a pytree of them) nor hashable.
    """
    static, arrays = {}, {}
    for name, value in options.items():
        if callable(value):
            arrays[name] = as_model(value)
            continue
        leaves = jax.tree.leaves(value)
        if leaves and all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves):
            arrays[name] = value
            continue
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"`{name}` must be an array or hashable (a tuple, not a list); got {type(value).__name__}"
            ) from None
        static[name] = value
    return tuple(sorted(static.items())), arrays
