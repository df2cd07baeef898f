"""Fast settings of XLA on the CPU, which it reads only once, and of the C library's memory."""

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

# By jaxlib's (major, minor). A flag that XLA does not know ends the process, so a version that is not
# listed, being untried, gets none.
_FLAGS: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 10): (NO_YNN,),
    (0, 12): (ONEDNN, NO_YNN),
}
# The flags were measured on CPUs with it only.
_NEEDS = "avx512f"


@cache
def cpu_features() -> frozenset[str]:
    """Return the instruction sets of this CPU by Linux' names; empty where the system does not tell."""
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
        onednn: Whether oneDNN's kernels are wanted.
    """
    if machine.lower() not in ("x86_64", "amd64") or _NEEDS not in features:
        return ()
    major, minor = (int(part) for part in version.split(".")[:2])
    flags = _FLAGS.get((major, minor), ())
    return flags if onednn else tuple(flag for flag in flags if flag != ONEDNN)


def backend_started() -> bool:
    """Tell whether JAX has touched a device, after which XLA reads no more flags."""
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()


# glibc's numbers of the parameters M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX.
_KEEP = ((-4, 0), (-1, 2**31 - 1), (-8, 1))
_USERS = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_large_blocks() -> bool:
    """Have glibc keep the large blocks of memory that are freed, rather than return them to the system.

    Compiled programs take their working memory anew at each call, and Linux then faults once for every 4 KiB
    of it. XLA's client could keep the memory itself; delete this when it does.

    Returns:
        Whether the settings were made: not where the C library is another, nor where the environment sets
        malloc's parameters itself.
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
    """Set what makes networks on this CPU fastest; call it before anything is computed.

    That is XLA's flags, and that freed memory stays with the process. The flags depend on jaxlib's version
    and on the CPU; there are none for versions that were not tried. Flags that the environment's `XLA_FLAGS`
    sets already stay as they are. Results change by float rounding. The `jaxai` command does this by itself,
    and so does `jaxai.explain` for a network that is named by a text, if JAX has not started; no other
    function does.

    Args:
        onednn: Use oneDNN's convolutions: the fastest, and in bfloat16 several times so. But XLA cannot keep
            programs that call them in JAX's persistent compilation cache (jaxlib 0.12), and ends the process
            where a convolution of one image to one position is reshaped before a bias is added (by
            `jax.vmap` over one image, say; the library's own networks and rules prevent it).
        keep_memory: Have the C library keep freed memory (glibc on Linux; no effect elsewhere, nor where the
            environment sets its `MALLOC_` parameters). Calls get 5 to 25 percent faster; the process holds up
            to 2.5 times as much memory (docs/performance.md has both), and small blocks of all threads come
            from one pool.

    Returns:
        The flags that were added; none if it was too late.

    Warns:
        RuntimeWarning: If JAX has started already, so that the flags could not be set any more.

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
