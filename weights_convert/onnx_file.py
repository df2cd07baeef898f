"""Reads the VGG16 with a dense head that tf2onnx wrote, following its graph instead of trusting names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_BLOCKS = (2, 2, 3, 3, 3)
# The operations that compute a flat shape at run time; they carry no weights.
_SHAPES = {"Shape", "Gather", "Cast", "Slice", "Concat"}
_DENSE = ["MatMul", "Add"]
_NORM = ["Mul", "Add"]
_CHAIN = [
    "Transpose",
    *(op for count in _BLOCKS for op in [*["Conv", "Relu"] * count, "MaxPool"]),
    *["Transpose", "Reshape", *_DENSE, "Relu", *_NORM, *_DENSE, "Relu", *_NORM],
    *[*_DENSE, "Relu", *_DENSE, "Softmax"],
]
_CONVOLUTIONS = [f"conv{i}_{j}" for i, count in enumerate(_BLOCKS, 1) for j in range(1, count + 1)]
_DENSE_LAYERS = ["fc6", "fc7", "fc8", "logits"]


def read_onnx_vgg16(path: Path) -> dict[str, np.ndarray]:
    """Read VGG16's convolutions and its head of four dense layers.

    A batch norm stands after the ReLU of the first two dense layers, reduced to `x * scale + shift`.

    Args:
        path: The ONNX file.

    Returns:
        `conv1_1.weight` (OIHW) and `.bias`, ..., `fc6.kernel` ([in, out]) and `.bias`, `fc7.norm.scale`,
        `fc7.norm.shift` (what stands before fc7), ..., `logits.bias`.

    Raises:
        ValueError: If the file is damaged or holds another network.
        ImportError: If the `onnx` package is missing.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError(
            'reading ONNX files needs the onnx package: pip install "jaxai-explain[convert]"'
        ) from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
        arrays = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT
        }
    except (DecodeError, ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: truncated, or not an ONNX file ({error})") from None
    return _follow(path.name, graph.node, arrays)


def _follow(file: str, nodes: Iterable[Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Check that the operations are the expected chain, and name their arrays."""
    chain = [node for node in nodes if node.op_type not in _SHAPES]
    found = [node.op_type for node in chain]
    if found != _CHAIN:
        raise ValueError(
            f"{file}: expected VGG16 with four dense layers ({len(_CHAIN)} operations); got another"
            f" network ({len(found)} operations: {', '.join(found[:6])}, ...)"
        )
    for before, after in zip(chain, chain[1:], strict=False):
        if after.input[0] != before.output[0]:
            raise ValueError(f"{file}: expected a chain; {after.op_type} does not follow {before.op_type}")

    layers: dict[str, np.ndarray] = {}
    used = set()

    def name(key: str, source: str) -> None:
        if source not in arrays:
            raise ValueError(f"{file}: the array of {key} is missing")
        layers[key] = arrays[source]
        used.add(source)

    convolutions, dense = iter(_CONVOLUTIONS), iter(_DENSE_LAYERS)
    layer, following = "", _DENSE_LAYERS[0]
    for node in chain:
        match node.op_type:
            case "Conv":
                layer = next(convolutions)
                name(f"{layer}.weight", node.input[1])
                name(f"{layer}.bias", node.input[2])
            case "MatMul":
                layer = next(dense)
                following = _DENSE_LAYERS[min(_DENSE_LAYERS.index(layer) + 1, len(_DENSE_LAYERS) - 1)]
                name(f"{layer}.kernel", node.input[1])
            case "Mul":
                layer = f"{following}.norm"
                name(f"{layer}.scale", node.input[1])
            case "Add":
                name(f"{layer}.shift" if layer.endswith(".norm") else f"{layer}.bias", node.input[1])
    if unused := set(arrays) - used:
        raise ValueError(f"{file}: no layer uses {', '.join(sorted(unused)[:4])}")
    return layers
