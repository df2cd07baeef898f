"""What results have in common: a figure, files and a page, which are made outside, when somebody asks."""

import importlib
import os
from typing import Any


class Result:
    """Base of results; `_arrays` says which arrays they hold."""

    def plot(self) -> Any:
        """Return a Matplotlib figure; notebooks display it, `jaxai.plots.png` turns it into a file's bytes.

        Raises:
            ValueError: If there are no values yet, as under `jit`.
        """
        return drawing().figure(self)

    def save(self, folder: str | os.PathLike) -> None:
        """Write `figure.png` and `arrays.npz`, which holds the attributes, into a folder, made if needed.

        Raises:
            OSError: If something cannot be written.
            ValueError: If there are no values yet, as under `jit`.
        """
        drawing().save(self, folder)

    def to_html(self, path: str | os.PathLike | None = None) -> str:
        """Write a self-contained page with the figure and, where there is one, the table; return its text.

        Args:
            path: The file; None writes none.

        Raises:
            OSError: If it cannot be written.
            ValueError: If there are no values yet, as under `jit`.
        """
        return drawing().page(self, path)

    def _arrays(self) -> dict[str, Any]:
        return vars(self)


def drawing() -> Any:
    """Return the module that draws: the one door from the methods outwards, opened when it is needed."""
    return importlib.import_module("jaxai.report._results")
