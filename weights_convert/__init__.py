"""Converts weights of other frameworks to jaxai's safetensors, without those frameworks.

`convert(source, name)` reads torch `.pth` (legacy and zip), safetensors and ONNX files, and writes
one file with flat keys `<layer>.<parameter>`. The same as a command:
`python -m jaxai.weights_convert SRC --model NAME`.
"""

from .conversion import convert

__all__ = ["convert"]
