"""How long a pass of a network takes, for the time that is left of a run that draws images."""

import time
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp

from .._frame import batching
from .._frame import model as _model
from ._progress import Progress
from ._waiting import patiently

# Forward passes of one step of an optimised image, measured; with a backward pass alone, 3.
A_STEP = 3.5
# Fewer passes than this end before their time is known.
_WORTH = 300


def calibrate(progress: Progress, net: Any, size: int, *, passes: float) -> None:
    """Time a forward pass of a network, twice since the first one compiles, if there are many to come.

    Args:
        progress: Gets the time.
        net: `Pretrained`.
        size: Side of the images.
        passes: How many forward passes of one image are to come.
    """
    if passes < _WORTH:
        return
    model = _model.as_model(net.model)
    photo = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    images = jnp.zeros((batching.chunk_size(None, model, photo), *photo.shape[1:]))

    def run() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(_model.call(model, net.normalize(images)))
        return time.perf_counter() - begin

    # What a network of one size says of another comes with the run itself.
    with suppress(TypeError, ValueError):
        patiently(run, tick=progress.tick)
        progress.calibrate(len(images), patiently(run, tick=progress.tick))
