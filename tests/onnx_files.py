"""ONNX files that tests build, one node or a small network, and what ONNX itself makes of them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def model(nodes, arrays, inputs, outputs, *, opset=17):
    """A model of nodes; `inputs` and `outputs` are shapes by name, float32."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save(made, path):
    path.write_bytes(made.SerializeToString())
    return path


def normal(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def residual(*, opset=17, side=16, classes=7):
    """A residual network: convolutions, norms, a pool with overlap, a depthwise block, a dense layer."""
    arrays = {
        "w1": normal(8, 3, 3, 3, seed=1, scale=0.3),
        "b1": normal(8, seed=2),
        "w2": normal(8, 8, 3, 3, seed=3, scale=0.2),
        "scale": 1 + normal(8, seed=4, scale=0.1),
        "shift": normal(8, seed=5, scale=0.1),
        "mean": normal(8, seed=6, scale=0.1),
        "variance": 1 + np.abs(normal(8, seed=7, scale=0.1)),
        "w3": normal(8, 1, 3, 3, seed=8, scale=0.3),
        "w4": normal(classes, 8, seed=9),
        "b4": normal(classes, seed=10),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "w1", "b1"], ["c1"], name="stem/conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="stem/relu"),
        node("MaxPool", ["r1"], ["p1"], name="stem/pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Conv", ["p1", "w2"], ["c2"], name="block/conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c2", "scale", "shift", "mean", "variance"], ["n2"], name="block/norm"),
        node("Add", ["n2", "p1"], ["a2"], name="block/add"),
        node("Relu", ["a2"], ["r2"], name="block/relu"),
        node("Conv", ["r2", "w3"], ["c3"], name="depthwise", group=8, pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c3"], ["r3"], name="last"),
        node("GlobalAveragePool", ["r3"], ["g"], name="pool"),
        node("Flatten", ["g"], ["f"], name="flatten"),
        node("Gemm", ["f", "w4", "b4"], ["scores"], name="fc", transB=1),
    ]
    return model(nodes, arrays, {"images": ["N", 3, side, side]}, {"scores": ["N", classes]}, opset=opset)


def reference(made, images):
    """Return the first output of a model for images [batch, height, width, channels], by ONNX's evaluator."""
    name = made.graph.input[0].name
    return ReferenceEvaluator(made).run(None, {name: np.moveaxis(np.asarray(images), -1, 1)})[0]
