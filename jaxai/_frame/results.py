"""What results have in common: a short text, and a figure, files and a page, which are made outside."""

import importlib
import os
from typing import Any

from .shown import known, readable

# Arrays of at most this many numbers are shown as numbers.
_FEW = 4


def brief(self: Any) -> str:
    """Return one line for a named tuple of arrays: small arrays with their numbers, others with their shapes.

    Example:
        >>> import numpy as np
        >>> from typing import NamedTuple
        >>> class Curve(NamedTuple):
        ...     area: np.ndarray
        ...     values: np.ndarray
        ...     __repr__ = brief
        >>> Curve(np.array([0.25, 0.5]), np.zeros((2, 225), np.float32))
        Curve(area [0.25, 0.5], values float32[2,225])
    """
    parts = [f"{name} {_brief(value)}" for name, value in self._asdict().items()]
    return f"{type(self).__name__}({', '.join(parts)})"


def plot(self: Any) -> Any:
    """Return a Matplotlib figure; notebooks display it, `jaxai.plots.png` turns it into a file's bytes.

    Raises:
        ValueError: If there are no values yet, as under `jit`.
    """
    return drawing().figure(self)


def picture(self: Any) -> bytes | None:
    """Return the figure as a PNG file, which notebooks display; None if there are no values yet."""
    module = drawing()
    try:
        return module.plots.png(module.figure(self))
    except ValueError:
        return None


def save(self: Any, folder: str | os.PathLike) -> None:
    """Write `figure.png` and `arrays.npz`, which holds the attributes, into a folder, made if needed.

    Raises:
        OSError: If something cannot be written.
        ValueError: If there are no values yet, as under `jit`.
    """
    drawing().save(self, folder)


def to_html(self: Any, path: str | os.PathLike | None = None) -> str:
    """Write a self-contained page with the figure and, where there is one, the table; return its text.

    Args:
        path: The file; None writes none.

    Raises:
        OSError: If it cannot be written.
        ValueError: If there are no values yet, as under `jit`.
    """
    return drawing().page(self, path)


class Result:
    """Base of results; `_arrays` says which arrays they hold."""

    plot, save, to_html = plot, save, to_html

    def _arrays(self) -> dict[str, Any]:
        return vars(self)


def drawing() -> Any:
    """Return the module that draws: the one door from the methods outwards, opened when it is needed."""
    return importlib.import_module("jaxai.report._results")


def _brief(value: Any) -> str:
    if hasattr(value, "_asdict"):
        return brief(value)
    if isinstance(value, tuple | list):
        inside = ", ".join(_brief(one) for one in value[:_FEW])
        return f"({inside}{', ...' if len(value) > _FEW else ''})"
    if not hasattr(value, "shape"):
        return readable(value, 60)
    numbers = known(value)
    if numbers is None or numbers.size > _FEW:
        return f"{value.dtype}{list(value.shape)}".replace(" ", "")
    return repr(_rounded(numbers.tolist()))


def _rounded(numbers: Any) -> Any:
    if isinstance(numbers, list):
        return [_rounded(one) for one in numbers]
    return float(f"{numbers:.3g}") if isinstance(numbers, float) else numbers
