"""ONNX files that are refused: operators that are not supported, and damage of every kind, in one line."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_files import residual, save

import jaxai


def replaced(op, **attributes):
    """The network with another operator in the place of the first ReLU."""
    made = residual()
    made.graph.node[1].CopyFrom(helper.make_node(op, ["c1"], ["r1"], name="odd", **attributes))
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (replaced("NonMaxSuppression"), "operator NonMaxSuppression of node 'odd' is not supported"),
        (replaced("Loop"), "operator Loop of node 'odd' is not supported: export .* without control flow"),
        (replaced("QuantizeLinear"), "operator QuantizeLinear of node 'odd' .* before quantization"),
        (replaced("Mine", domain="own.ops"), "operator own.ops.Mine of node 'odd' is not supported"),
        (replaced("Elu", alpha=[1.0]), r"node 'odd' \(Elu\): attribute alpha must be a number"),
        (replaced("Transpose", perm=[0, 1]), r"node 'odd' \(Transpose\): attribute perm must name each"),
        (replaced("AveragePool", kernel_shape=[0, 1]), r"node 'odd' \(AveragePool\): strides"),
        (residual(opset=7), "opset 7; expected 9 to 22"),
        (onnx.ModelProto(), "truncated, or not an ONNX file"),
    ],
)
def test_what_is_not_supported_is_named_in_one_line(made, message, tmp_path):
    with pytest.raises(ValueError, match=f"^x.onnx: {message}") as caught:
        jaxai.models.from_onnx(save(made, tmp_path / "x.onnx"))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        jaxai.models.from_onnx(tmp_path / "none.onnx")


def mutations(count, seed):
    """Small files that are damaged: bytes changed, cut, doubled; numbers and words of the graph changed."""
    rng = np.random.default_rng(seed)
    small = residual(side=8)
    whole = small.SerializeToString()
    for number in range(count):
        if number % 2:
            data = bytearray(whole)
            for _ in range(rng.integers(1, 6)):
                data[rng.integers(len(data))] = rng.integers(256)
            start, length = rng.integers(len(data)), rng.integers(40)
            match number % 10:
                case 3:
                    del data[start:]
                case 5:
                    del data[start : start + length]
                case 7:
                    data[start:start] = data[start : start + length]
            yield bytes(data)
            continue
        made = onnx.ModelProto()
        made.CopyFrom(small)
        for _ in range(rng.integers(1, 4)):
            node = made.graph.node[rng.integers(len(made.graph.node))]
            array = made.graph.initializer[rng.integers(len(made.graph.initializer))]
            numbers = [-1, 0, 2, 3, 7, 10**6, 2**31, 2**62]
            value = int(rng.choice(numbers))
            match rng.integers(8):
                case 0:
                    node.op_type = str(rng.choice(["Conv", "MaxPool", "Concat", "Resize", "Gather", "Relu"]))
                case 1:
                    node.input[rng.integers(len(node.input))] = str(rng.choice(["c1", "", "scores", "w2"]))
                case 2 if node.attribute:
                    chosen = node.attribute[rng.integers(len(node.attribute))]
                    if chosen.ints:
                        chosen.ints[rng.integers(len(chosen.ints))] = value
                    else:
                        chosen.i = value
                case 3 if node.attribute:
                    del node.attribute[rng.integers(len(node.attribute))]
                case 4:
                    array.dims[rng.integers(len(array.dims))] = value
                case 5:
                    array.data_type = int(rng.integers(25))
                case 6:
                    dims = made.graph.input[0].type.tensor_type.shape.dim
                    dims[rng.integers(4)].dim_value = value
                case 7:
                    del made.graph.node[rng.integers(len(made.graph.node))]
        yield made.SerializeToString()


def damaged(count, seed, path):
    """Read damaged files; return how many were refused, and those that failed otherwise."""
    refused, faults = 0, []
    for data in mutations(count, seed):
        path.write_bytes(data)
        try:
            jaxai.models.from_onnx(path)
        except (ValueError, OSError, MemoryError) as error:
            refused += 1
            if "\n" in str(error) or not str(error).startswith(path.name):
                faults.append((data, error))
        except Exception as error:
            faults.append((data, error))
    return refused, faults


def test_damaged_files_give_one_line(tmp_path):
    refused, faults = damaged(60, 0, tmp_path / "x.onnx")
    assert refused > 20 and not faults, [error for _, error in faults]


@pytest.mark.slow
def test_many_damaged_files_give_one_line(tmp_path):
    refused, faults = damaged(1000, 1, tmp_path / "x.onnx")
    assert refused > 500 and not faults, [error for _, error in faults]
