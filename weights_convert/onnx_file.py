"""Reads the VGG16 with a dense head that tf2onnx wrote, following its graph instead of trusting names."""

import math
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from .._files import shown
from .stored import FLOATS, Refused, Stored, as_shape

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

_INPUTS = {"Conv": 3, "Reshape": 2, "MatMul": 2, "Add": 2, "Mul": 2}  # the others take one
# Default values of attributes in ONNX's specification.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Conv": {"auto_pad": b"NOTSET", "dilations": [1, 1], "group": 1, "kernel_shape": [3, 3],
             "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "MaxPool": {"auto_pad": b"NOTSET", "ceil_mode": 0, "dilations": [1, 1], "pads": [0, 0, 0, 0],
                "storage_order": 0, "strides": [1, 1]},
    "Reshape": {"allowzero": 0},
    "Softmax": {"axis": -1},
}  # fmt: skip
# Values that VGG16 needs where they differ from the default.
_NEEDED: dict[str, dict[str, Any]] = {
    "Conv": {"pads": [1, 1, 1, 1]},
    "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
}
_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
# The field that holds the numbers of each type, unless they are in `raw_data`.
_FIELDS = {"FLOAT": ("float32", "float_data"), "DOUBLE": ("float64", "double_data")}
_TYPES = {1: "FLOAT", 11: "DOUBLE"}
_NO_ONNX = "truncated, or not an ONNX file"


def read_onnx_vgg16(file: BinaryIO) -> dict[str, Stored]:
    """Read VGG16's convolutions and its head of four dense layers.

    A batch norm stands after the ReLU of the first two dense layers, reduced to `x * scale + shift`.

    Args:
        file: The ONNX file.

    Returns:
        `conv1_1.weight` (OIHW) and `.bias`, ..., `fc6.kernel` ([in, out]) and `.bias`, `fc7.norm.scale`,
        `fc7.norm.shift` (what stands before fc7), ..., `logits.bias`.

    Raises:
        Refused: If the file is damaged or holds another network.
        ImportError: If the `onnx` package is missing.
    """
    file.seek(0)
    model = parsed(file.read())
    try:
        arrays = arrays_of(model.graph.initializer)
        chain = _chain(model)
        return _named(chain, arrays)
    except Refused:
        raise
    except ValueError:
        raise Refused(_NO_ONNX) from None


def parsed(data: bytes) -> Any:
    """Return the ONNX model, a `ModelProto`, of a file's bytes.

    Raises:
        Refused: If they are something else.
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
        return onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError):
        # The second where strings are not UTF-8.
        raise Refused(_NO_ONNX) from None


def arrays_of(tensors: Sequence[Any]) -> dict[str, Stored]:
    """Return the arrays of floats; the others belong to the computation of a shape."""
    arrays = {}
    for tensor in tensors:
        if tensor.name in arrays:
            raise Refused(f"damaged: the array {shown(tensor.name)} appears twice in it")
        if tensor.data_type in _TYPES:
            arrays[tensor.name] = _stored(tensor)
    return arrays


def _stored(tensor: Any) -> Stored:
    name, shape = shown(tensor.name), as_shape(tuple(tensor.dims))
    dtype, field = _FIELDS[_TYPES[tensor.data_type]]
    if tensor.data_location or tensor.external_data:
        raise Refused(f"the numbers of {name} lie in another file, which is not read")
    if shape is None:
        raise Refused(f"damaged: the array {name} has no shape")
    numbers = getattr(tensor, field)
    count = len(numbers) if numbers else len(tensor.raw_data) / FLOATS[dtype].itemsize
    if count != math.prod(shape) or (numbers and tensor.raw_data):
        raise Refused(f"truncated or damaged: the array {name} has another size than its shape")

    def read() -> np.ndarray:
        held = np.array(numbers, FLOATS[dtype]) if numbers else np.frombuffer(tensor.raw_data, FLOATS[dtype])
        return held.reshape(shape)

    return Stored(dtype, shape, read)


def _chain(model: Any) -> list[Any]:
    """Return the operations that carry the images to the scores, checked to be VGG16's."""
    graph = model.graph
    chain = [node for node in graph.node if node.op_type not in _SHAPES]
    found = [node.op_type for node in chain]
    if found != _CHAIN or model.functions:
        raise Refused(
            f"expected VGG16 with four dense layers ({len(_CHAIN)} operations); got another network"
            f" ({len(found)} operations: {', '.join(shown(word) for word in found[:6])}, ...)"
        )
    previous = [value.name for value in graph.input]
    for index, node in enumerate(chain, 1):
        which = f"operation {index} of {len(chain)}, {node.op_type},"
        if node.domain not in ("", "ai.onnx"):
            raise Refused(f"{which} is not ONNX's own")
        if len(node.input) != _INPUTS.get(node.op_type, 1) or len(node.output) != 1:
            raise Refused(f"{which} has {len(node.input)} inputs and {len(node.output)} outputs")
        if node.input[0] not in previous:
            raise Refused(f"expected a chain; {which} does not follow the one before")
        _check_attributes(node, which, _TO_CHANNELS_FIRST if index == 1 else _TO_CHANNELS_LAST)
        previous = [node.output[0]]
    if [value.name for value in graph.output] != previous:
        raise Refused("expected the softmax to be the only output")
    return chain


def _check_attributes(node: Any, which: str, permutation: list[int]) -> None:
    """Check that a node is the operation that the network has in its place."""
    stated = {attribute.name: _value(attribute) for attribute in node.attribute}
    if len(stated) != len(node.attribute):
        raise Refused(f"damaged: {which} states something twice")
    kind = node.op_type
    if kind == "Conv" and stated.get("auto_pad") in (b"SAME_UPPER", b"SAME_LOWER"):
        # One pixel on each side, for windows of three without strides.
        stated = {**stated, "auto_pad": b"NOTSET", "pads": [1, 1, 1, 1]}
    defaults = _DEFAULTS.get(kind, {})
    needed = {**defaults, **_NEEDED.get(kind, {})}
    if kind == "Transpose":
        needed["perm"] = permutation
    if kind == "Softmax" and stated.get("axis") == 1:
        stated["axis"] = -1  # The scores have two axes.
    for name, value in {**defaults, **stated}.items():
        if name not in needed:
            raise Refused(f"{which} has the attribute {shown(name)}; expected none of this name")
        if type(value) is not type(needed[name]) or value != needed[name]:
            expected = needed[name]
            expected = expected.decode() if isinstance(expected, bytes) else expected
            raise Refused(f"{which} has other {name} than VGG16; expected {expected}")
    if missing := needed.keys() - {**defaults, **stated}.keys():
        raise Refused(f"{which} does not state its {min(missing)}")


def _value(attribute: Any) -> Any:
    """Return an integer, integers or a string; None for another kind."""
    if attribute.ref_attr_name:
        return None
    kinds = {2: "i", 7: "ints", 3: "s"}
    value = getattr(attribute, kinds[attribute.type]) if attribute.type in kinds else None
    return list(value) if attribute.type == 7 else value


def _named(chain: Sequence[Any], arrays: dict[str, Stored]) -> dict[str, Stored]:
    """Return the arrays by the layers that use them."""
    layers: dict[str, Stored] = {}
    used = set()

    def name(key: str, source: str) -> None:
        if source not in arrays:
            raise Refused(f"the array of {key} is missing")
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
        raise Refused(f"no layer uses {', '.join(shown(word) for word in sorted(unused)[:4])}")
    return layers
