"""ONNX files: the graph is VGG16 in every operation and attribute, or it is refused."""

import sys

import numpy as np
import onnx
import pytest
import tiny_weights

from jaxai.models import parameters, zoo
from jaxai.weights_convert import convert, files
from jaxai.weights_convert.onnx_file import read_onnx_vgg16
from jaxai.weights_convert.stored import Refused

NAME = "vgg16_brain_mri"
COUNT = 50  # operations that carry the images to the scores


def read(path):
    with path.open("rb") as file:
        return read_onnx_vgg16(file)


@pytest.fixture(autouse=True, scope="module")
def tiny():
    """The zoo with networks of some hundred weights."""
    with tiny_weights.small_zoo():
        yield


@pytest.fixture(scope="module")
def whole(tiny):
    return tiny_weights.onnx_model()


@pytest.fixture
def model(whole):
    return copy(whole)


def copy(model):
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def arrays(model, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    return files.read(
        convert(path, NAME, tmp_path / "y"), model=NAME, shapes=tiny_weights.shapes(NAME)
    ).arrays


def nodes(model, kind):
    return [node for node in model.graph.node if node.op_type == kind]


def refused(model, tmp_path, message):
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="x.onnx.*" + message) as caught:
        convert(path, "vgg16_brain_mri", tmp_path / "y")
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()
    assert not (tmp_path / "y").exists()


@pytest.mark.slow
def test_the_network_gives_the_numbers_of_onnx(model, tmp_path):
    """Its own evaluator, in float32: 1e-4 of the largest score leaves room for another order of sums."""
    from onnx.reference import ReferenceEvaluator

    network = parameters.build(zoo.entry(NAME).make, arrays(model, tmp_path))
    x = np.random.default_rng(1).random((1, 224, 224, 3), np.float32)
    for node in model.graph.node:
        if node.op_type == "Softmax":
            model.graph.output[0].name = node.input[0]
    (expected,) = ReferenceEvaluator(model).run(None, {"input": x})
    scores = np.asarray(network(x))
    np.testing.assert_allclose(scores, expected, atol=1e-4 * np.abs(expected).max())


def test_a_truncated_onnx_file(tmp_path):
    whole = zoo.ZOO["vgg16_features"].source.find().read_bytes()
    source = tmp_path / "x.onnx"
    source.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(Refused, match="truncated, or not an ONNX file"):
        read(source)


def test_an_onnx_network_that_is_not_vgg16(tmp_path):
    onnx_path = tmp_path / "x.onnx"
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), onnx_path)
    with pytest.raises(Refused, match=r"expected VGG16 .*; got another network \(1 operations: Relu"):
        read(onnx_path)


def test_onnx_without_the_onnx_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "x.onnx").touch()
    with pytest.raises(ImportError, match=r"pip install \"jaxai-explain\[convert\]\""):
        read(tmp_path / "x.onnx")


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        ("Conv", "strides", [2, 2], r"has other strides than VGG16; expected \[1, 1\]"),
        ("Conv", "strides", [1, 2], "has other strides"),
        ("Conv", "strides", [1], "has other strides"),
        ("Conv", "strides", [], "has other strides"),
        ("Conv", "strides", 1, "has other strides"),
        ("Conv", "dilations", [3, 3], r"has other dilations than VGG16; expected \[1, 1\]"),
        ("Conv", "group", 2, "has other group than VGG16; expected 1"),
        ("Conv", "pads", [0, 0, 0, 0], r"has other pads than VGG16; expected \[1, 1, 1, 1\]"),
        ("Conv", "pads", [1, 1, 1, 1, 0], "has other pads"),
        ("Conv", "pads", None, "has other pads"),
        ("Conv", "kernel_shape", [5, 5], "has other kernel_shape"),
        ("Conv", "auto_pad", b"VALID", "has other auto_pad than VGG16; expected NOTSET"),
        ("Conv", "new", 1, "has the attribute new; expected none"),
        ("Conv", "\x1b[31m", 1, r"has the attribute \?\[31m; expected none"),
        ("MaxPool", "strides", [1, 1], "has other strides"),
        ("MaxPool", "strides", None, "has other strides"),
        ("MaxPool", "kernel_shape", [3, 3], "has other kernel_shape"),
        ("MaxPool", "kernel_shape", None, "does not state its kernel_shape"),
        ("MaxPool", "pads", [0, 0, 1, 1], "has other pads"),
        ("MaxPool", "ceil_mode", 1, "has other ceil_mode"),
        ("MaxPool", "dilations", [2, 2], "has other dilations"),
        ("MaxPool", "auto_pad", b"SAME_UPPER", "has other auto_pad"),
        ("Transpose", "perm", [0, 3, 2, 1], "has other perm"),
        ("Transpose", "perm", None, "does not state its perm"),
        ("Reshape", "allowzero", 1, "has other allowzero"),
        ("Softmax", "axis", 0, "has other axis"),
        ("Relu", "alpha", 0.5, "has the attribute alpha"),
        ("MatMul", "alpha", 0.5, "has the attribute alpha"),
        ("Add", "axis", 1, "has the attribute axis"),
    ],
)
def test_every_attribute_is_that_of_the_network(model, tmp_path, kind, name, value, message):
    """Of the first, the last and one operation between."""
    for index in {0, len(nodes(model, kind)) // 2, len(nodes(model, kind)) - 1}:
        changed = copy(model)
        node = nodes(changed, kind)[index]
        others = [attribute for attribute in node.attribute if attribute.name != name]
        if value is not None:
            ints = onnx.AttributeProto(name=name, type=onnx.AttributeProto.INTS)
            others.append(ints if value == [] else onnx.helper.make_attribute(name, value))
        node.ClearField("attribute")
        node.attribute.extend(others)
        refused(changed, tmp_path, rf"operation \d+ of {COUNT}, .*{message}")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Conv", {"pads": None, "auto_pad": b"SAME_UPPER"}),
        ("Conv", {"pads": None, "auto_pad": b"SAME_LOWER"}),
        ("Conv", {"strides": None, "dilations": None, "group": None, "kernel_shape": None}),
        ("MaxPool", {"pads": [0, 0, 0, 0], "ceil_mode": 0, "storage_order": 0, "auto_pad": b"NOTSET"}),
        ("Softmax", {"axis": 1}),
        ("Softmax", {"axis": -1}),
    ],
)
def test_other_spellings_of_the_same_network(model, tmp_path, kind, changes):
    expected = arrays(model, tmp_path)
    for node in nodes(model, kind):
        others = [attribute for attribute in node.attribute if attribute.name not in changes]
        others += [onnx.helper.make_attribute(name, v) for name, v in changes.items() if v is not None]
        node.ClearField("attribute")
        node.attribute.extend(others)
    for key, array in arrays(model, tmp_path).items():
        np.testing.assert_array_equal(array, expected[key])


@pytest.mark.parametrize(
    "kind", ["Conv", "Relu", "MaxPool", "Transpose", "Reshape", "MatMul", "Add", "Mul", "Softmax"]
)
def test_operations_without_their_inputs_or_outputs(model, tmp_path, kind):
    for field in ("input", "output"):
        changed = copy(model)
        nodes(changed, kind)[-1].ClearField(field)
        refused(changed, tmp_path, f"{kind}, has 0 inputs|{kind}, has . inputs and 0 outputs")
        nodes(changed, kind)[-1].CopyFrom(nodes(model, kind)[-1])
        getattr(nodes(changed, kind)[-1], field).append("more")
        refused(changed, tmp_path, f"{kind}, has")


def test_graphs_that_are_put_together_in_another_way(model, tmp_path):
    other = copy(model)
    other.graph.output[0].name = nodes(other, "Relu")[-1].output[0]
    refused(other, tmp_path, "expected the softmax to be the only output")
    other = copy(model)
    other.graph.output.append(other.graph.output[0])
    refused(other, tmp_path, "expected the softmax to be the only output")
    other = copy(model)
    nodes(other, "Relu")[3].input[0] = nodes(other, "Conv")[0].output[0]
    refused(other, tmp_path, f"expected a chain; operation 10 of {COUNT}, Relu, does not follow")
    other = copy(model)
    other.graph.input[0].name = "another"
    refused(other, tmp_path, f"expected a chain; operation 1 of {COUNT}, Transpose, does not follow")
    other = copy(model)
    nodes(other, "Conv")[0].domain = "com.evil"
    refused(other, tmp_path, f"operation 2 of {COUNT}, Conv, is not ONNX's own")
    other = copy(model)
    other.functions.append(onnx.FunctionProto(name="Relu"))
    refused(other, tmp_path, "got another network")
    other = copy(model)
    nodes(other, "Relu")[0].op_type = "Sigmoid\x1b"
    refused(other, tmp_path, rf"got another network \({COUNT} operations: Transpose, Conv, Sigmoid\?")


def test_arrays_that_are_not_whole(model, tmp_path):
    def changed():
        made = copy(model)
        return made, made.graph.initializer[0]

    other, tensor = changed()
    tensor.raw_data = tensor.raw_data[:-4]
    refused(other, tmp_path, "has another size than its shape")
    other, tensor = changed()
    tensor.dims[0] = -1
    refused(other, tmp_path, "has no shape")
    other, tensor = changed()
    tensor.dims[0] = 1 << 62
    refused(other, tmp_path, "has another size than its shape")
    other, tensor = changed()
    tensor.dims[:] = tensor.dims[::-1]
    refused(other, tmp_path, r"logits.kernel is \(6, 3\), expected \(3, 6\)")
    other, tensor = changed()
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="/etc/passwd"))
    refused(other, tmp_path, "lie in another file, which is not read")
    other, tensor = changed()
    other.graph.initializer.append(tensor)
    refused(other, tmp_path, "appears twice in it")
    other, tensor = changed()
    tensor.data_type = onnx.TensorProto.INT32
    refused(other, tmp_path, "the array of logits.kernel is missing")
    other, tensor = changed()
    more = other.graph.initializer.add()
    more.CopyFrom(tensor)
    more.name = "more\x1b"
    refused(other, tmp_path, r"no layer uses more\?$")


def test_numbers_in_their_own_field(model, tmp_path):
    expected = arrays(model, tmp_path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.float_data.extend(onnx.numpy_helper.to_array(tensor).ravel().tolist())
            tensor.ClearField("raw_data")
    for key, array in arrays(model, tmp_path).items():
        np.testing.assert_array_equal(array, expected[key])
