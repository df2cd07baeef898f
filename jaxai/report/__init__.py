"""From photos to maps, pictures, files and pages: shared by the command and `jaxai.explain`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._explanation import Explanation

__all__ = ["Explanation"]


def __getattr__(name: str) -> Any:
    # The other parts work without Matplotlib.
    if name == "Explanation":
        return importlib.import_module("._explanation", __name__).Explanation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
