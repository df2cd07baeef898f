"""Fast CPU settings of XLA, which it reads only once, and of the C library's memory."""

import ctypes
import os
import platform
import re
import warnings
from functools import cache
from pathlib import Path

import jaxlib.version

ONEDNN = "--xla_cpu_experimental_onednn_custom_call=true"
NO_YNN = "--xla_cpu_experimental_ynn_fusion_type="

# By jaxlib's (major, minor). A flag that XLA does not know ends the process, so versions that were not tried
# are not listed and get none.
_FLAGS: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 10): (NO_YNN,),
    (0, 12): (ONEDNN, NO_YNN),
}
# The flags were measured only on CPUs with this instruction set.
_NEEDS = "avx512f"


@cache
def cpu_features() -> frozenset[str]:
    """Return the instruction sets of this CPU by Linux's names; empty if the system does not report them."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def fast_flags(
    version: str, features: frozenset[str], machine: str, *, onednn: bool = True
) -> tuple[str, ...]:
    """Return the XLA flags that make convolutions fast on a CPU.

    Args:
        version: jaxlib's version.
        features: The CPU's instruction sets, as `cpu_features` returns them.
        machine: The architecture, as `platform.machine` returns it.
        onednn: Whether to use oneDNN's kernels.
    """
    if machine.lower() not in ("x86_64", "amd64") or _NEEDS not in features:
        return ()
    major, minor = (int(part) for part in version.split(".")[:2])
    flags = _FLAGS.get((major, minor), ())
    return flags if onednn else tuple(flag for flag in flags if flag != ONEDNN)


def backend_started() -> bool:
    """Return whether JAX has initialised a device, after which XLA reads no more flags."""
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()


# glibc's numbers for the parameters M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX.
_KEEP = ((-4, 0), (-1, 2**31 - 1), (-8, 1))
_USERS = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_large_blocks() -> bool:
    """Make glibc keep large freed blocks of memory rather than return them to the system.

    Compiled programs allocate their working memory at each call, and Linux then page-faults once per 4 KiB of
    it. XLA's client could keep the memory itself; delete this when it does.

    Returns:
        Whether the settings were made: not with another C library, nor if the environment sets malloc's
        parameters.
    """
    set_by_user = any(name in os.environ for name in _USERS) or "malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if set_by_user or platform.system() != "Linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return False
    return all([library.mallopt(parameter, value) == 1 for parameter, value in _KEEP])


def configure_cpu(*, onednn: bool = True, keep_memory: bool = True) -> tuple[str, ...]:
    """Apply the settings that make networks on this CPU fastest; call it before anything is computed.

    It sets XLA's flags and keeps freed memory in the process. The flags depend on jaxlib's version and on the
    CPU; there are none for untested versions. Flags that `XLA_FLAGS` sets already are unchanged. Results
    change by float rounding. The `jaxai` command calls this itself, and so does `jaxai.explain` for a network
    given as a string if JAX has not started; no other function does.

    Args:
        onednn: Use oneDNN's convolutions, which are the fastest, in bfloat16 by several times. However,
            programs that call them cannot be stored in JAX's persistent compilation cache (jaxlib 0.12), and
            XLA ends the process where a convolution of one image to one position is reshaped before a bias is
            added (for example by `jax.vmap` over one image; the library's own networks and rules prevent it).
        keep_memory: Make the C library keep freed memory (glibc on Linux; no effect elsewhere, nor where the
            environment sets its `MALLOC_` parameters). Calls get 5 to 25 percent faster; the process holds up
            to 2.5 times as much memory (measurements of both are in docs/performance.md), and small blocks of
            all threads come from one pool.

    Returns:
        The flags that were added; none if JAX had already started.

    Warns:
        RuntimeWarning: If JAX has already started, so that flags can no longer be set.

    Example:
        >>> import jaxai
        >>> flags = jaxai.configure_cpu()  # doctest: +SKIP
    """
    if keep_memory:
        keep_large_blocks()
    present = os.environ.get("XLA_FLAGS", "").split()
    names = {flag.split("=")[0] for flag in present}
    version, features = jaxlib.version.__version__, cpu_features()
    wanted = fast_flags(version, features, platform.machine(), onednn=onednn)
    missing = tuple(flag for flag in wanted if flag.split("=")[0] not in names)
    if not missing:
        return ()
    if backend_started():
        warnings.warn(
            "JAX has already started and reads no more flags: call jaxai.configure_cpu() before the first"
            f" computation, or set XLA_FLAGS to {' '.join(missing)!r}",
            RuntimeWarning,
            stacklevel=2,
        )
        return ()
    os.environ["XLA_FLAGS"] = " ".join([*present, *missing])
    return missing
