"""From photos to maps, pictures, files and pages: what the command and `jaxai.explain` share."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._explanation import Explanation

__all__ = ["Explanation"]


def __getattr__(name: str) -> Any:
    # The parts are there without the pictures.
    if name == "Explanation":
        return importlib.import_module("._explanation", __name__).Explanation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
