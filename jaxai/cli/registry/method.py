"""What the command line knows of a method."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

_ACRONYMS = {word: word.upper() for word in ("cam", "hsic", "lime", "lrp", "rise", "shap")}


@dataclass(frozen=True)
class Method:
    """A method that `jaxai explain` can run.

    Attributes:
        name: As in `jaxai.<name>`.
        run: The function; called as run(model, images, targets, **keywords).
        result: What it returns: `"heatmap"` [N, H, W]; `"pixels"` signed values [N, H, W, C]; `"segments"` an
            object with `weights` or `values` [N, S] of the superpixels.
        summary: One line.
        cost: In forward passes, as text: "1", "50", "1 + k heads".
        paper: Authors, year and arXiv number.
        needs: Which of the keywords key, layer, segments, batch_size, normalize `run` takes.
        options: Further keywords passed on as they are.
        signed: Whether negative values mean evidence against.
        title: Name in figures; empty means `name` with spaces for underscores.
        unit: What the values are, beside colour bars: "change of probability".
    """

    name: str
    run: Callable[..., Any]
    result: Literal["heatmap", "pixels", "segments"]
    summary: str
    cost: str
    paper: str
    needs: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)
    signed: bool = False
    title: str = ""
    unit: str = ""

    @property
    def heading(self) -> str:
        """The method's name in figures."""
        return self.title or " ".join(_ACRONYMS.get(word, word) for word in self.name.split("_"))
