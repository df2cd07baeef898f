"""Activations of data sets larger than memory, stored in a file that is read batch by batch."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _files, layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed

POSITIONS = ("each", "mean")
_HEADER = 128


@completed
def save_activations(
    model: Callable[..., Any],
    batches: Iterable[Any],
    path: str | os.PathLike,
    *,
    layer: str | None = None,
    positions: str = "each",
    batch_size: int | None = None,
) -> np.memmap:
    """Write a layer's activations of many images to a `.npy` file, and return it as a memory map.

    Only one batch is in memory at a time. `sae` trains on the memory map like on an array in memory.

    Args:
        batches: Batches of images, model input, each float [batch, height, width, channels].
        path: The file; it appears when it is complete.
        positions: `"each"`: one row per position; `"mean"`: one row per image.

    Returns:
        The rows, float32 [rows, channels], read-only.

    Raises:
        ValueError: If there are no images, or the layer has no positions.

    Example:
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = (jnp.full((2, 4, 4, 3), float(i)) for i in range(3))
        ...     path = pathlib.Path(folder, "acts.npy")
        ...     jaxai.concepts.save_activations(net, made, path, layer="features").shape
        (96, 3)
    """
    model, path = _targets.as_model(model), Path(path)
    checks.choice(positions, "positions", POSITIONS)
    rows, channels = 0, None

    @jax.jit
    def see(model, x):
        def chunk(some):
            acts = layers.split_positions(model, layer, some, dense=True)[0].astype(jnp.float32)
            acts = acts.mean((1, 2)) if acts.ndim == 4 and positions == "mean" else acts
            return acts.reshape(len(acts), -1, acts.shape[-1])

        size = batching.chunk_size(batch_size, model, x)
        return batching.map_chunks(chunk, x, batch_size=size)

    with _files.file(path) as new, open(new, "wb") as out:
        out.write(bytes(_HEADER))
        for batch in batches:
            acts = np.asarray(see(model, checks.images(batch, "batches")))
            channels = acts.shape[-1]
            rows += acts.shape[0] * acts.shape[1]
            out.write(np.ascontiguousarray(acts, "<f4").tobytes())
        if channels is None:
            raise ValueError("`batches` must have images; got none")
        out.seek(0)
        out.write(_header((rows, channels)))
    found = np.load(path, mmap_mode="r")
    assert isinstance(found, np.memmap)
    return found


def _header(shape: tuple[int, int]) -> bytes:
    """Return the header of a `.npy` file of float32 rows, padded to the start of the rows."""
    facts = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    start = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    return start + facts.encode().ljust(_HEADER - 11) + b"\n"
