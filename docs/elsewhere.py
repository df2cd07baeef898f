"""Where other libraries describe what this one takes and returns: inventories for Sphinx, without network.

A library's own inventory would have to be fetched from its site, which a build without internet cannot do.
What these pages name of others is little: it stands here, and each name that is written in code on a page
made from docstrings gets a link.
"""

import zlib
from pathlib import Path

# For each site its address, and the names with their kinds; `$` in a page stands for the name.
SITES = {
    "jax": (
        "https://docs.jax.dev/en/latest/",
        {
            "jax.Array": ("class", "_autosummary/$.html"),
            "jax.ShapeDtypeStruct": ("class", "_autosummary/$.html"),
            "jax.jit": ("function", "_autosummary/$.html"),
            "jax.grad": ("function", "_autosummary/$.html"),
            "jax.vmap": ("function", "_autosummary/$.html"),
            "jax.named_scope": ("function", "_autosummary/$.html"),
            "jax.random.key": ("function", "_autosummary/$.html"),
            "jax.tree_util.Partial": ("class", "_autosummary/$.html"),
            "jax.custom_vjp": ("class", "_autosummary/$.html"),
            "jax.nn.relu": ("function", "_autosummary/$.html"),
            "jax.nn.sigmoid": ("function", "_autosummary/$.html"),
            "jax.random.bits": ("function", "_autosummary/$.html"),
            "jax.random.normal": ("function", "_autosummary/$.html"),
            "jax.random.permutation": ("function", "_autosummary/$.html"),
            "jax.random.uniform": ("function", "_autosummary/$.html"),
        },
    ),
    "matplotlib": (
        "https://matplotlib.org/stable/",
        {"matplotlib.figure.Figure": ("class", "api/figure_api.html")},
    ),
    "pyarrow": (
        "https://arrow.apache.org/docs/",
        {"pyarrow.Table": ("class", "python/generated/$.html")},
    ),
}


def inventory(project: str, names: dict[str, tuple[str, str]]) -> bytes:
    """Return an inventory as Sphinx reads it."""
    lines = []
    for name, (kind, page) in sorted(names.items()):
        lines.append(f"{name} py:{kind} 1 {page.replace('$', name)}#$ -\n")
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(lines).encode())


def mapping(folder: Path) -> dict[str, tuple[str, str]]:
    """Write the inventories and return what `intersphinx_mapping` is to be."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for project, (address, names) in SITES.items():
        path = folder / f"{project}.inv"
        path.write_bytes(inventory(project, names))
        found[project] = (address, str(path))
    return found


def names() -> set[str]:
    """Return all names that can be linked."""
    return {name for _, known in SITES.values() for name in known}
