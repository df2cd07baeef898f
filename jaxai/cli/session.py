"""JAX settings of the command: device, precision, flags, the cache of compiled programs."""

import gc
import hashlib
import os
import platform
import warnings
from typing import Any

import jax

from .._cpu import configure
from ..report import _networks as networks
from ..report import _session
from .arguments import Device, Precision


def start(device: Device, precision: Precision) -> None:
    """Prepare JAX: called before anything is computed.

    Raises:
        ValueError: If there is no such device.
    """
    if not gc.isenabled():
        # The modules stay; tracing makes many objects and few cycles.
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        gc.enable()
    if not configure.backend_started():
        # Read when JAX starts; a program that calls `main` after that keeps its own settings.
        if device != "auto":
            jax.config.update("jax_platforms", device)
        # Where oneDNN gains little, programs compiled once for all runs of the command gain more.
        configure.configure_cpu(onednn=precision == "bfloat16" or "amx_tile" in configure.cpu_features())
        _cache_programs()
    try:
        kind = jax.default_backend()
    except RuntimeError:
        raise ValueError(f"there is no {device} that JAX can use on this machine") from None
    if device not in ("auto", kind):
        raise ValueError(f"there is no {device} that JAX can use; it runs on the {kind}")
    # GPUs round float32 factors to 10 bits by default.
    if kind == "gpu" and precision == "float32":
        jax.config.update("jax_default_matmul_precision", _session.EXACT)


def _cache_programs() -> None:
    """Cache compiled programs on disk, separately per kind of CPU, whose instructions they use."""
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
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
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
