"""A network's scores of two fixed photos, which distinguish programs with the same weights.

The text of a traced program would distinguish more, but changes with JAX's version and the kind of device, so
a store could not be continued on another machine. Programs whose scores agree but whose gradients differ (a
`custom_vjp`, a `stop_gradient`) are not distinguished.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._frame import model as _model
from ..report import _photos as photos_
from ..report import _session as session
from . import _devices

Scores = tuple[tuple[float | None, ...], ...]
# Of the largest score. Devices differ by less in 32 bits, and in 16 by what that has digits for.
_CLOSE, _CLOSE_16 = 1e-3, 3e-2


def scores(net: Any, *, fit: str, batch_size: int) -> Scores:
    """Return a network's scores of two fixed photos; None where they are not finite.

    Args:
        net: The network, `Pretrained`.
        fit: How photos are brought to its square.
        batch_size: Images at a time; that of the plan, whose program is then compiled once.
    """
    reading = photos_.reading(None, None, None, fit)
    squares = [photos_.Photo("test photo", "", photo).crop(net, reading) for photo in _photos(net.input_size)]
    size = max(batch_size, len(squares))
    blank = np.zeros((size - len(squares), *squares[0].shape), np.float32)
    with session.exact():
        images = net.normalize(_devices.spread(np.concatenate([np.stack(squares), blank])))
        found = np.asarray(_model.call(_model.as_model(net.model), images), np.float64)[: len(squares)]
    return tuple(tuple(_written(value) for value in row) for row in found.reshape(len(found), -1).tolist())


def apart(model: Any, one: Sequence[Sequence[float | None]], other: Scores) -> bool:
    """Return whether scores differ by more than devices do.

    Args:
        model: The network's model, whose leaves say how many bits it computes with.
        one: Scores.
        other: Scores.
    """
    first, second = (np.array(rows, np.float64) for rows in (one, other))
    if first.shape != second.shape:
        return True
    coarse = any(_bits(leaf) < 32 for leaf in jax.tree.leaves(model))
    largest = np.nanmax(np.abs(first), initial=0, where=np.isfinite(first))
    close = (_CLOSE_16 if coarse else _CLOSE) * largest
    return not np.allclose(first, second, rtol=0, atol=close, equal_nan=True)


def _bits(leaf: Any) -> int:
    kind = jnp.result_type(leaf)
    return jnp.finfo(kind).bits if jnp.issubdtype(kind, jnp.floating) else 32


def _written(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _photos(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return waves and noise, uint8 [height, width, 3], the same wherever they are made."""
    y, x, c = np.meshgrid(np.arange(side * 5 // 4), np.arange(side * 3 // 2), np.arange(3), indexing="ij")
    waves = 127.5 + 127.5 * np.sin(2 * np.pi * ((c + 1) * x + (4 - c) * y) / side)
    mixed = (x * 374761393 + y * 668265263 + c * 974634777).astype(np.uint64) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0xFFFFFFFF
    return np.round(waves).astype(np.uint8), ((mixed >> 16) & 255).astype(np.uint8)
