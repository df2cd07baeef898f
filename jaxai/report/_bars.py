"""Progress bars in a terminal or a notebook."""

import html
import importlib
import importlib.util
import sys
from typing import Any, Protocol


class Bar(Protocol):
    """The interface of a progress bar."""

    def show(self, name: str, done: float, left: str, *, known: bool) -> None:
        """Draw the running step, the fraction done, whether it is known, and the remaining time in words."""

    def stop(self) -> None:
        """Remove the bar."""


def place() -> type | None:
    """Return the bar for this process's output; None where a bar would be noise."""
    if _in_notebook():
        return _Tqdm if _has_tqdm() else _Displayed
    if sys.stderr is not None and sys.stderr.isatty():
        return _Terminal
    return None


def _in_notebook() -> bool:
    """Return whether this is a notebook (Jupyter, Colab, VS Code), recognised by its kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def _has_tqdm() -> bool:
    """Return whether tqdm is installed with the packages that its graphical bar needs."""
    return all(importlib.util.find_spec(name) is not None for name in ("tqdm", "ipywidgets"))


class _Terminal:
    """A line at the end of a terminal."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[left]}", markup=False),
            progress.TimeElapsedColumn(),
        )
        # Print lines above the bar, unless they go elsewhere.
        self._bar = progress.Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
        )
        self._task = self._bar.add_task("", total=1.0, left="")
        self._bar.start()

    def show(self, name: str, done: float, left: str, *, known: bool) -> None:
        # Without an estimate the bar moves without an end.
        total = 1.0 if known else None
        self._bar.update(self._task, description=name, completed=done, total=total, left=left)

    def stop(self) -> None:
        self._bar.stop()


class _Tqdm:
    """The notebook's own bar."""

    def __init__(self) -> None:
        from tqdm.auto import tqdm

        self._bar: Any = tqdm(total=1.0, bar_format="{desc} {bar} {postfix}", leave=False)

    def show(self, name: str, done: float, left: str, *, known: bool) -> None:
        self._bar.n = done
        self._bar.set_description_str(name, refresh=False)
        self._bar.set_postfix_str(left, refresh=False)
        self._bar.refresh()

    def stop(self) -> None:
        self._bar.close()


class _Displayed:
    """A bar of HTML, for notebooks without widgets."""

    def __init__(self) -> None:
        shown: Any = importlib.import_module("IPython.display")
        self._html = shown.HTML
        self._handle = shown.display(shown.HTML(""), display_id=True)

    def show(self, name: str, done: float, left: str, *, known: bool) -> None:
        value = f' value="{done:.3f}"' if known else ""
        text = f"{html.escape(name)} <progress max='1'{value}></progress> {html.escape(left)}"
        self._handle.update(self._html(text))

    def stop(self) -> None:
        self._handle.update(self._html(""))
