"""A model's layers as text."""

from dataclasses import dataclass
from typing import Any

from .layouts import Tokens


@dataclass(frozen=True)
class Tree:
    """A model's layers with their shapes, as text: `print` it.

    Attributes:
        shapes: The shape and type of each layer, by name, in forward order.
        layouts: "NHWC", "NCHW", `Tokens`, None for layers that do not lie on the image, "unknown".
        default: The layer that methods explain by default, if there is one.
    """

    shapes: dict[str, Any]
    layouts: dict[str, Any]
    default: str | None

    def __str__(self) -> str:
        width = max(map(len, self.shapes))
        sizes = {name: f"{s.dtype}{list(s.shape)}".replace(" ", "") for name, s in self.shapes.items()}
        most = max(map(len, sizes.values()))
        lines = []
        for name, size in sizes.items():
            found = self.layouts[name]
            if isinstance(found, Tokens):
                second = "" if found.axis else ", batch second"
                found = f"tokens {found.grid[0]}x{found.grid[1]} after {found.prefix}{second}"
            note = "  <- default" if name == self.default else ""
            lines.append(f"{name:{width}}  {size:{most}}  {found or ''}{note}".rstrip())
        return "\n".join(lines)

    __repr__ = __str__
