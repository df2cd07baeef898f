"""Small networks of the zoo's layouts and files of their weights, byte by byte, for tests and the fuzzer."""

import io
import json
import pickle
import struct
import zipfile
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from jaxai.models import VGG, parameters, vgg, zoo

WIDTHS = (3, 2, 4, 2, 3)
HIDDEN = (5, 4)
CLASSES = 6
ONNX_HIDDEN = (5, 4, 3)
KINDS = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long",
    "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool",
    "complex64": "ComplexFloat",
}  # fmt: skip


@contextmanager
def small_zoo():
    """Make vgg11, vgg11_bn, vgg16_features and vgg16_brain_mri networks of some hundred weights."""
    makes = {
        **dict.fromkeys(("vgg11", "vgg11_bn"), partial(VGG, 11, classes=CLASSES, hidden=HIDDEN)),
        "vgg16_features": partial(VGG, 16, classes=None),
        "vgg16_brain_mri": partial(VGG, 16, classes=CLASSES, hidden=ONNX_HIDDEN),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "WIDTHS", WIDTHS)
        for name, make in makes.items():
            known = zoo.ZOO[name].__dict__
            patch.setitem(zoo.ZOO, name, zoo.Entry(**{**known, "make": make}))
        yield


def shapes(name):
    """The shapes of a model's parameters."""
    return parameters.shapes(parameters.abstract(zoo.entry(name).make))


def torchvision(*, norm, seed=0):
    """The state dict of the small vgg11 or vgg11_bn under torchvision's names."""
    rng = np.random.default_rng(seed)

    def some(*shape):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)

    state, position, channels = {}, 0, 3
    for count, width in zip(vgg.CONVOLUTIONS[11], WIDTHS, strict=True):
        for _ in range(count):
            state[f"features.{position}.weight"] = some(width, channels, 3, 3)
            state[f"features.{position}.bias"] = some(width)
            if norm:
                position += 1
                for key in ("weight", "bias", "running_mean", "running_var"):
                    state[f"features.{position}.{key}"] = some(width)
                state[f"features.{position}.num_batches_tracked"] = np.asarray(7, np.int64)
            channels, position = width, position + 2
        position += 1
    inputs = channels * 49
    for index, width in zip((0, 3, 6), (*HIDDEN, CLASSES), strict=True):
        state[f"classifier.{index}.weight"] = some(width, inputs)
        state[f"classifier.{index}.bias"] = some(width)
        inputs = width
    return state


def folded(state, *, norm):
    """What a state dict of `torchvision` becomes, by the definitions of the layers alone."""
    state = {key: value.astype(np.float64) for key, value in state.items() if "tracked" not in key}
    arrays, position = {}, 0
    for block, count in enumerate(vgg.CONVOLUTIONS[11], 1):
        for index in range(1, count + 1):
            kernel, bias = state[f"features.{position}.weight"], state[f"features.{position}.bias"]
            if norm:
                position += 1
                keys = ("weight", "bias", "running_mean", "running_var")
                scale, shift, mean, variance = (state[f"features.{position}.{key}"] for key in keys)
                scale = scale / np.sqrt(variance + 1e-5)
                kernel, bias = kernel * scale[:, None, None, None], (bias - mean) * scale + shift
            arrays[f"conv{block}_{index}.kernel"] = np.einsum("oihw->hwio", kernel)
            arrays[f"conv{block}_{index}.bias"] = bias
            position += 2
        position += 1
    for index, name in zip((0, 3, 6), ("fc6", "fc7", "logits"), strict=True):
        kernel = state[f"classifier.{index}.weight"]
        if index == 0:
            kernel = np.einsum("ochw->ohwc", kernel.reshape(len(kernel), -1, 7, 7))
        arrays[f"{name}.kernel"] = kernel.reshape(len(kernel), -1).T
        arrays[f"{name}.bias"] = state[f"classifier.{index}.bias"]
    return arrays


def onnx_model(*, seed=0):
    """The graph that tf2onnx wrote, with the weights of the small vgg16_brain_mri."""
    import onnx

    rng = np.random.default_rng(seed)
    model = onnx.load(zoo.ZOO["vgg16_brain_mri"].source.find())
    widths = [width for width, count in zip(WIDTHS, vgg.CONVOLUTIONS[16], strict=True) for _ in range(count)]
    convolutions = iter(zip(widths, [3, *widths], strict=False))
    dense = iter(zip((WIDTHS[-1] * 49, *ONNX_HIDDEN), (*ONNX_HIDDEN, CLASSES), strict=True))
    sizes, outputs = {}, 0
    for node in model.graph.node:
        match node.op_type:
            case "Conv":
                outputs, inputs = next(convolutions)
                sizes[node.input[1]], sizes[node.input[2]] = (outputs, inputs, 3, 3), (outputs,)
            case "MatMul":
                inputs, outputs = next(dense)
                sizes[node.input[1]] = (inputs, outputs)
            case "Add" | "Mul":
                sizes[node.input[1]] = (outputs,)
            case "Concat":
                flat = node.input[1]
    for tensor in model.graph.initializer:
        if tensor.name in sizes:
            values = rng.normal(size=sizes[tensor.name]).astype(np.float32) / 2
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        elif tensor.name == flat:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([WIDTHS[-1] * 49], np.int32), flat))
    return model


class Description:
    """A torch file's description of tensors, instruction by instruction, and its storages.

    Attributes:
        instructions: Each a piece of the pickle.
        storages: Bytes by key.
        counts: Numbers by key.
    """

    def __init__(self, state, *, wrapper=None):
        self.instructions, self.storages, self.counts = [b"\x80\x02"], {}, {}
        if wrapper:
            self._emit(b"}", b"(", *self._word("epoch"), b"K\x03", *self._word(wrapper))
        self._emit(*self._ordered(), b"(")
        for name, array in state.items():
            self._emit(*self._word(name), *self._tensor(np.asarray(array)))
        self._emit(b"u", b"}", *self._word("_metadata"), *self._ordered(), b"s", b"b")
        if wrapper:
            self._emit(b"u")
        self._emit(b".")

    def _emit(self, *instructions):
        self.instructions += instructions

    def _kept(self):
        # Every value is kept, as torch does.
        self._memo = getattr(self, "_memo", -1) + 1
        return b"r" + struct.pack("<I", self._memo)

    def _word(self, word):
        text = word.encode()
        return b"X" + struct.pack("<I", len(text)) + text, self._kept()

    def _whole(self, number):
        return b"K" + bytes([number]) if number < 256 else b"J" + struct.pack("<i", number)

    def _ordered(self):
        return b"ccollections\nOrderedDict\n", b")", b"R", self._kept()

    def _wholes(self, numbers):
        end = {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(numbers), b"t")
        start = [b"("] if end == b"t" else []
        return *start, *(self._whole(n) for n in numbers), end, self._kept()

    def laid(self, array):
        """Return the storage of an array, where in it the array starts, and its strides."""
        return array.ravel(), 0, [step // array.itemsize for step in array.strides]

    def _tensor(self, array):
        storage, offset, strides = self.laid(array)
        key = str(len(self.storages))
        self.storages[key], self.counts[key] = storage.tobytes(), storage.size
        kind = f"ctorch\n{KINDS[array.dtype.name]}Storage\n".encode()
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n", self._kept(), b"(",
            b"(", *self._word("storage"), kind, self._kept(), *self._word(key), *self._word("cpu"),
            self._whole(storage.size), b"t", self._kept(), b"Q",
            self._whole(offset), *self._wholes(array.shape), *self._wholes(strides),
            b"\x89", *self._ordered(), b"t", self._kept(), b"R", self._kept(),
        )  # fmt: skip


def zip_file(instructions, storages, *, byteorder=b"little", compressed=()):
    """The bytes of a torch file in the zip format."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        members = {"data.pkl": b"".join(instructions), "byteorder": byteorder}
        members |= {f"data/{key}": data for key, data in storages.items()}
        members |= {"version": b"3\n"}
        for name, data in members.items():
            method = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data, method)
    return buffer.getvalue()


def legacy_file(instructions, storages, counts, *, keys=None, system=None):
    """The bytes of a torch file in the legacy format."""
    start = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True} if system is None else system)
    parts = [pickle.dumps(part, protocol=2) for part in start]
    parts += [*instructions, pickle.dumps(list(storages) if keys is None else keys, protocol=2)]
    for key, data in storages.items():
        parts += [struct.pack("<q", counts[key]), data]
    return b"".join(parts)


CODES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int8": "I8", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
}  # fmt: skip


def safetensors_parts(state, metadata=None):
    """The header of a safetensors file, as a table, and what follows it."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, array in state.items():
        array = np.asarray(array)
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    return header, data


def safetensors_file(header, data):
    """The bytes of a safetensors file of a header, a table or what stands for it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def state_file(path, state, kind):
    """Write a state dict as a file of one of the kinds."""
    if kind == "safetensors":
        path.write_bytes(safetensors_file(*safetensors_parts(state)))
        return path
    description = Description(state)
    parts = (description.instructions, description.storages)
    data = zip_file(*parts) if kind == "zip" else legacy_file(*parts, description.counts)
    path.write_bytes(data)
    return path
