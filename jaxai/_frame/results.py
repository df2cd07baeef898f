"""What results have in common: a figure, files, and a page."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _files
from . import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE, ARRAYS = "figure.png", "arrays.npz"


class Result:
    """Base of results; subclasses say what they draw (`plot`) and which arrays they hold (`_arrays`)."""

    def plot(self) -> "Figure":
        """Return a figure, which notebooks display; `jaxai.plots.png` turns it into a file's bytes."""
        raise NotImplementedError

    def _arrays(self) -> dict[str, Any]:
        """Return the arrays that `save` writes, by name; those that are not known are left out."""
        raise NotImplementedError

    def save(self, folder: str | os.PathLike) -> None:
        """Write `figure.png` and `arrays.npz`, which holds the attributes, into a folder, made if needed.

        Raises:
            OSError: If something cannot be written.
        """
        from .. import plots

        values = {name: shown.known(array) for name, array in self._arrays().items()}
        picture = plots.png(self.plot())
        with _files.folder(Path(folder)) as new:
            (new / FIGURE).write_bytes(picture)
            np.savez_compressed(new / ARRAYS, **{name: v for name, v in values.items() if v is not None})

    def to_html(self, path: str | os.PathLike | None = None) -> str:
        """Write a self-contained page with the figure and, where there is one, the table; return its text.

        Args:
            path: The file; None writes none.

        Raises:
            OSError: If it cannot be written.
        """
        from ..report import _page as page
        from ..report._shown import image

        title, table = repr(self), getattr(self, "_repr_html_", lambda: None)()
        head = f"<header><h1>{page.text(title)}</h1></header>"
        body = f"{head}<main>{image(self.plot(), title)}{table or ''}</main>"
        text = page.document(title, body, style=page.file("page.css"), script="")
        if path is not None:
            _files.write(Path(path), [text.encode()])
        return text
