"""How JAX runs under the command: device, precision, flags, the cache of compiled programs, versions."""

import hashlib
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
import typer

from .._cpu import configure

Device = Literal["auto", "cpu", "gpu", "tpu"]
Precision = Literal["float32", "bfloat16"]

DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto is what JAX finds.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Type of the network's numbers.")]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="At most so many images in flight; bounds the memory.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")]

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
    try:
        folder = cache_folder() / "programs" / hashlib.sha256(machine.encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # A cache that cannot be written only costs time.
    # Programs that call oneDNN cannot be stored; a damaged entry is compiled again.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_compilation_cache_max_size", 2 << 30)


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


def _listen(event: str, duration: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        for clock in _clocks:
            clock.compiling += duration


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


def say(text: str) -> None:
    """Print a line of the command's answer."""
    print(text, flush=True)
