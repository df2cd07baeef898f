"""Makes safetensors, ONNX and converted files of a small network that are right, or nearly."""

import functools
import json
import struct

import numpy as np
import tiny_weights
from torch_mutations import NUMBERS, WORDS, changed_bytes, torch_state

from jaxai.weights_convert import files


def safetensors_input(rng):
    harmless, changed = rng.random() < 0.1, rng.random() < 0.2
    name, state, _ = torch_state(rng, changed=changed and not harmless)
    header, data = tiny_weights.safetensors_parts(state, rng.choice((None, {"format": "pt"})))
    if harmless or changed:
        items = list(header.items())
        rng.shuffle(items)
        text = json.dumps(dict(items)).encode() + b" " * rng.randrange(9)
        return name, tiny_weights.safetensors_file(text, data), harmless
    keys = [key for key in header if key != "__metadata__"]
    key, other = rng.sample(keys, 2)
    entry = header[key]
    match rng.randrange(14):
        case 0:
            entry["dtype"] = rng.choice(
                (*tiny_weights.CODES.values(), "F8_E4M3", "U16", "f32", "", 3, None, ["F32"])
            )
        case 1:
            shape = entry["shape"]
            others = ([*shape, 1], shape[:-1], [0, *shape], [1] * 50, [True], [1.0], [[1]], "3", {}, None)
            entry["shape"] = rng.choice((shape[::-1], [rng.choice(NUMBERS)], *others))
        case 2:
            entry["data_offsets"][rng.randrange(2)] += rng.choice((-4, 4, 1, -1, 2**40, 2**64, -(2**40)))
        case 3:
            entry["data_offsets"] = rng.choice(
                ([], [0], entry["data_offsets"][::-1], [1, 2, 3], None, {}, "01", [0.0, 4.0])
            )
        case 4:
            header[key], header[other] = header[other], header[key]
        case 5:
            entry["data_offsets"], header[other]["data_offsets"] = (
                header[other]["data_offsets"],
                entry["data_offsets"],
            )
        case 6:
            header[rng.choice(WORDS)] = header.pop(key)
        case 7:
            header[rng.choice(WORDS)] = rng.choice(
                (dict(entry), {}, [], None, 3, "x", {"shape": [0], "dtype": "F32", "data_offsets": [0, 0]})
            )
        case 8:
            del header[key]
        case 9:
            header["__metadata__"] = rng.choice(
                ({"a": 1}, [], None, {"a": {}}, {"a": "b" * 9999}, {"\ud800": "x"})
            )
        case 10:
            data = (
                data[: rng.randrange(len(data))] if rng.random() < 0.5 else data + bytes(rng.randrange(1, 99))
            )
        case 11:
            text = json.dumps(header).encode()
            return name, tiny_weights.safetensors_file(changed_bytes(text, rng), data), False
        case 12:
            text = json.dumps(header)
            deep = rng.choice(("[", '{"a":')) * rng.choice((9, 2000, 300_000))
            return (
                name,
                tiny_weights.safetensors_file(
                    text.replace(f'"{key}"', f'"{key}":{deep},"{other}"').encode(), data
                ),
                False,
            )
        case 13:
            whole = tiny_weights.safetensors_file(header, data)
            if rng.random() < 0.3:
                whole = struct.pack("<Q", rng.choice((0, 9, 2**22, 2**63, 2**64 - 1))) + whole[8:]
            return name, changed_bytes(whole, rng), False
    return name, tiny_weights.safetensors_file(header, data), False


@functools.cache
def onnx_bytes(seed):
    return tiny_weights.onnx_model(seed=seed).SerializeToString()


def onnx_input(rng):
    import onnx

    name = rng.choice(("vgg16_brain_mri", "vgg16_features"))
    model = onnx.ModelProto.FromString(onnx_bytes(rng.randrange(3)))
    graph = model.graph
    if rng.random() < 0.1:
        tensors = list(graph.initializer)
        rng.shuffle(tensors)
        graph.ClearField("initializer")
        graph.initializer.extend(tensors)
        return name, model.SerializeToString(), True
    if rng.random() < 0.25:
        return name, changed_bytes(model.SerializeToString(), rng), False
    for _ in range(rng.choice((1, 1, 2, 3))):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        attribute = rng.choice(node.attribute) if node.attribute else None
        match rng.randrange(27):
            case 0 if attribute is not None:
                node.attribute.remove(attribute)
            case 1 if attribute is not None:
                attribute.name = rng.choice(("strides", "pads", "axis", "\x1b", "auto_pad", ""))
            case 2 if attribute is not None and attribute.ints:
                attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice((0, 1, 2, 3, -1, 2**62))
            case 3 if attribute is not None and attribute.ints:
                attribute.ints.append(1)
            case 4 if attribute is not None:
                attribute.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8))
            case 5:
                value = rng.choice((1, [2, 2], [1, 1], b"SAME_UPPER", b"VALID", 0.5, "x", [1.5]))
                key = rng.choice(
                    ("strides", "dilations", "group", "pads", "auto_pad", "ceil_mode", "axis", "kernel_shape")
                )
                node.attribute.append(onnx.helper.make_attribute(key, value))
            case 6 if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(
                    (
                        "",
                        "input",
                        tensor.name,
                        rng.choice(graph.node).output[0] if graph.node[0].output else "",
                    )
                )
            case 7 if node.input:
                del node.input[rng.randrange(len(node.input))]
            case 8 if node.output:
                node.output[0] = rng.choice(("", "dense_3", "x"))
            case 9:
                node.ClearField(rng.choice(("input", "output", "attribute")))
            case 10:
                node.op_type = rng.choice(
                    ("Relu", "Conv", "Add", "Cast", "Sigmoid", "\x1b", "Identity", "Gather")
                )
            case 11:
                node.domain = rng.choice(("ai.onnx", "com.evil"))
            case 12:
                graph.node.remove(node)
            case 13:
                graph.node.append(node)
            case 14:
                tensor.data_type = rng.choice((0, 1, 2, 6, 7, 10, 11, 16, 99))
            case 15 if tensor.dims:
                tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, 1, 3, -1, 2**62, 2**63 - 1))
            case 16:
                tensor.raw_data = rng.choice((b"", tensor.raw_data[:-1], tensor.raw_data + bytes(4)))
            case 17 if tensor.raw_data:
                data = bytearray(tensor.raw_data)
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                tensor.raw_data = bytes(data)
            case 18:
                tensor.name = rng.choice(("", "x", rng.choice(graph.initializer).name))
            case 19:
                tensor.data_location = 1
                tensor.external_data.add(key="location", value="../../etc/passwd")
            case 20:
                graph.initializer.append(tensor)
            case 21:
                graph.initializer.remove(tensor)
            case 22:
                graph.ClearField(rng.choice(("input", "output", "node", "initializer")))
            case 23:
                model.functions.append(onnx.FunctionProto(name="Relu"))
            case 24:
                node.doc_string = model.producer_name = "\x1b[31m" * 999
            case 25:
                tensor.float_data.append(1.0)
            case 26:
                inner = onnx.GraphProto(name="g")
                for _ in range(rng.choice((3, 90))):
                    outer = onnx.GraphProto(name="g")
                    outer.node.add(op_type="If").attribute.add(name="then", type=5).g.CopyFrom(inner)
                    inner = outer
                node.attribute.add(name="then", type=5).g.CopyFrom(inner)
        if not graph.node or not graph.initializer:
            break
    return name, model.SerializeToString(), False


def cache_weights(rng):
    name = rng.choice(("vgg11", "vgg16_features"))
    shapes, numbers = tiny_weights.shapes(name), np.random.default_rng(rng.randrange(3))
    arrays = {key: numbers.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    return name, files.Weights(arrays, name, "x.pth", "0" * 64)


def cache_input(rng):
    name, weights = cache_weights(rng)
    data = b"".join(weights.chunks())
    if rng.random() < 0.1:
        return name, data, True
    if rng.random() < 0.5:
        return name, changed_bytes(data, rng), False
    length = int.from_bytes(data[:8], "little")
    header, data = json.loads(data[8 : 8 + length]), data[8 + length :]
    key, other = rng.sample([key for key in header if key != "__metadata__"], 2)
    match rng.randrange(8):
        case 0:
            header[key]["dtype"] = rng.choice(("I32", "U32", "F64", "BF16"))
        case 1:
            header[key]["shape"].reverse()
        case 2:
            header[key], header[other] = header[other], header[key]
        case 3:
            header["__metadata__"][rng.choice(list(header["__metadata__"]))] = rng.choice(WORDS)
        case 4:
            header["__metadata__"]["more"] = "x"
        case 5:
            del header[rng.choice((key, "__metadata__"))]
        case 6:
            header = dict(sorted(header.items(), reverse=True))
        case 7:
            offsets = header[key]["data_offsets"]
            data = (
                data[: offsets[0]]
                + (-np.frombuffer(data, np.float32)[offsets[0] // 4 : offsets[1] // 4]).tobytes()
                + data[offsets[1] :]
            )
    return (
        name,
        tiny_weights.safetensors_file(json.dumps(header, separators=(",", ":")).encode(), data),
        False,
    )
