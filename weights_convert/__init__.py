"""Converts weights of other frameworks to jaxai's safetensors, without those frameworks.

`convert(source, name)` reads torch `.pth` (legacy and zip), safetensors and ONNX files, and writes
one file with flat keys `<layer>.<parameter>`. The same as a command:
`python -m jaxai.weights_convert SRC --model NAME`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversion import convert

__all__ = ["convert"]


def __getattr__(name: str) -> Any:
    # `jaxai models` looks into the cache without JAX.
    if name == "convert":
        from .conversion import convert

        return convert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
