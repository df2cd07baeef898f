"""How JAX runs under the command: device, precision, flags, the cache of compiled programs, versions."""

import hashlib
import math
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

import jax
import numpy as np
import typer

from .. import layers
from .._cpu import configure
from . import names, networks


def finite(value: float | None) -> float | None:
    """Return an option's number.

    Raises:
        typer.BadParameter: If it is NaN or infinite.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


Device = Literal["auto", "cpu", "gpu", "tpu"]
Precision = Literal["float32", "bfloat16"]

DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto is what JAX finds.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Type of the network's numbers.")]
# Numbers of steps and images are 32-bit integers in compiled programs.
MOST = 2**31 - 1
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, max=MOST, help="Images in flight at most; bounds the memory.")
]
# JAX takes 32 bits of a seed, so that larger ones would repeat.
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything drawn at random.")]

PageOption = Annotated[
    int | None,
    typer.Option(min=1, max=MOST, help="Page of files that hold several.", show_default="1"),
]
WhiteOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=finite,
        help="Level that is white, as 4095 for 12 bits.",
        show_default="the type's largest",
    ),
]
AlphaOption = Annotated[
    bool | None,
    typer.Option(help="Whether a fourth channel is opacity.", show_default="yes, with a note"),
]

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scikit-image", "pillow")


def start(device: Device, precision: Precision) -> None:
    """Prepare JAX: called before anything is computed.

    Raises:
        ValueError: If there is no such device.
    """
    if not configure.backend_started():
        # Read when JAX starts; a program that calls `main` after that keeps its own settings.
        if device != "auto":
            jax.config.update("jax_platforms", device)
        # Where oneDNN gains little, a program that is compiled once for all runs of the command gains more.
        configure.configure_cpu(onednn=precision == "bfloat16" or "amx_tile" in configure.cpu_features())
        _cache_programs()
    try:
        kind = jax.default_backend()
    except RuntimeError:
        raise ValueError(f"there is no {device} that JAX can use on this machine") from None
    if device not in ("auto", kind):
        raise ValueError(f"there is no {device} that JAX can use; it runs on the {kind}")
    # A GPU rounds float32 factors to 10 bits unless it is asked not to.
    if kind == "gpu" and precision == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")


def _cache_programs() -> None:
    """Keep compiled programs on disk, for each kind of CPU on its own: they use its instructions."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    from ..weights_convert.files import cache_folder

    machine = platform.machine() + " ".join(sorted(configure.cpu_features()))
    folder = cache_folder() / "programs" / hashlib.sha256(machine.encode()).hexdigest()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # A cache that cannot be written only costs time.
    # Programs that call oneDNN cannot be stored; a damaged entry is compiled again.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_compilation_cache_max_size", 2 << 30)


def load(name: str, precision: Precision, around: networks.Around | None = None) -> Any:
    """Load a network.

    Args:
        name: As `networks.load` takes it.
        precision: Type of its numbers.
        around: What the user said of a file or a function.

    Raises:
        ValueError: If there is none of this name.
    """
    return networks.load(name, dtype=None if precision == "float32" else precision, around=around)


def layer(net: Any, name: str | None, size: int | None = None) -> str:
    """Return the name of a network's layer; None is the last that has positions.

    Args:
        net: As `load` returns it.
        name: What the user gave.
        size: Side of the images; the network's own if not given.

    Raises:
        ValueError: If there is no such layer.
    """
    side = size or net.input_size
    images: Any = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    known = layers.layer_names(net.model, images)
    if name is not None and name not in (*known, layers.OUTPUT):
        raise ValueError(names.unknown("layer", name, known, f"jaxai layers {net.name}"))
    return layers.resolve(net.model, name, images)


def versions() -> dict[str, str]:
    """Return the versions of what results depend on."""
    from .. import __version__

    found = {"jaxai": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe(precision: Precision) -> dict[str, Any]:
    """Return where and how a result was computed."""
    device = jax.devices()[0]
    return {
        "device": device.platform,
        "device_kind": device.device_kind,
        "precision": precision,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "platform": f"{platform.system()} {platform.machine()}",
    }


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
