"""What a table was measured on: processor, cores, versions, and the peak of the matrix product there."""

import importlib.metadata
import json
import os
import platform
import re
import resource
import sys
from pathlib import Path


def processor() -> str:
    """Return the processor's name and number of cores that this process may use."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    sets = [s for s in ("avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{s}\b", text)]
    cores = len(os.sched_getaffinity(0))
    return (
        f"{name[1] if name else platform.machine()}, {cores} virtual cores, {', '.join(sets) or 'no AVX-512'}"
    )


def versions(*packages: str) -> dict[str, str]:
    """Return Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def write(folder: Path, name: str, record: dict, text: str) -> None:
    """Write a record as JSON, and as the text that is printed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)
    print(text)
