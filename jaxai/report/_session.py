"""The circumstances of a computation: device, settings, versions, time, and the layer used."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from .. import layers
from . import _names as names

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scikit-image", "pillow")


def layer(
    net: Any, name: str | None, size: int | None = None, *, shape: tuple[int, int, int] | None = None
) -> str:
    """Return the name of a network's layer; None is the last that has positions.

    Args:
        net: As `load` returns it.
        name: What the user gave.
        size: Side of the images; the network's own if not given.
        shape: Of an image, instead.

    Raises:
        ValueError: If there is no such layer.
    """
    side = size or net.input_size
    images: Any = jax.ShapeDtypeStruct((1, *(shape or (side, side, 3))), np.float32)
    known = layers.layer_names(net.model, images)
    if name is not None and name not in (*known, layers.OUTPUT):
        raise ValueError(names.unknown("layer", name, known, f"jaxai layers {net.name}"))
    return layers.resolve(net.model, name, images)


def versions() -> dict[str, str]:
    """Return the versions of the packages on which results depend."""
    from .. import __version__

    found = {"jaxai": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe(precision: str) -> dict[str, Any]:
    """Return where and how a result was computed."""
    device = jax.devices()[0]
    return {
        "device": device.platform,
        "device_kind": device.device_kind,
        "precision": precision,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "platform": f"{platform.system()} {platform.machine()}",
    }


EXACT = "highest"
"""The setting of `jax_default_matmul_precision` in which products of float32 keep their digits."""


def exact() -> AbstractContextManager[Any]:
    """Return a context in which accelerators do not round the factors of float32 products, as they do."""
    # On CPUs it would only compile other programs with the same result.
    if jax.default_backend() == "cpu":
        return nullcontext()
    return jax.default_matmul_precision(EXACT)


@dataclass
class Clock:
    """Seconds spent in all, and by XLA's compiler among them."""

    seconds: float = 0.0
    compiling: float = 0.0


_clocks: list[Clock] = []


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        for clock in _clocks:
            clock.compiling += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextmanager
def timed() -> Iterator[Clock]:
    """Time the body; it must wait for its results."""
    clock = Clock()
    _clocks.append(clock)
    begin = time.perf_counter()
    try:
        yield clock
    finally:
        clock.seconds = time.perf_counter() - begin
        _clocks.remove(clock)
