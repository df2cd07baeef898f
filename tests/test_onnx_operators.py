"""Each operator of an ONNX file against ONNX's own reference implementation."""

import jax
import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_files import model, normal, save

import jaxai

A = (2, 6, 5, 4)  # batch, channels, rows, columns
POSITIVE = np.abs(normal(*A)) + 0.1


def ints(*numbers):
    return np.asarray(numbers, np.int64)


def floats(*numbers):
    return np.asarray(numbers, np.float32)


def case(op, *arrays, opset=17, images=None, outputs=1, **attributes):
    return pytest.param(op, arrays, images, opset, outputs, attributes)


UNARY = (
    "Relu LeakyRelu Sigmoid HardSigmoid HardSwish Elu Celu Selu Erf Tanh Softplus Softsign Mish Neg Abs Exp"
    " Floor Ceil Round Sign Sin Cos Atan Sinh Cosh Asinh Identity GlobalAveragePool GlobalMaxPool Softmax"
    " LogSoftmax Shrink ThresholdedRelu Dropout Transpose Flatten Reciprocal Not"
).split()

CASES = [
    *(case(op, opset=18) for op in UNARY if op not in ("Not", "Celu")),
    *(case(op, images=POSITIVE) for op in ("Log", "Sqrt")),
    *(case(op, images=np.clip(normal(*A), -0.9, 0.9)) for op in ("Asin", "Acos", "Atanh", "Tan")),
    case("Acosh", images=POSITIVE + 1),
    case("Gelu", opset=20),
    case("Gelu", opset=20, approximate="tanh"),
    case("LeakyRelu", alpha=0.3),
    case("HardSigmoid", alpha=0.3, beta=0.4),
    case("Elu", alpha=0.5),
    case("PRelu", normal(6, 1, 1)),
    case("PRelu", normal(1)),
    case("Clip", floats(0).reshape(()), floats(6).reshape(())),
    case("Clip", floats(-0.5).reshape(()), floats(0.5).reshape(())),
    case("Clip", floats(0).reshape(())),
    case("Clip", opset=9, min=-0.5, max=0.7),
    case("Softmax", opset=13, axis=1),
    case("Softmax", opset=11, axis=-1),
    case("Hardmax", opset=13, axis=1),
    # Convolutions.
    case("Conv", normal(8, 6, 3, 3), normal(8), pads=[1, 1, 1, 1]),
    case("Conv", normal(8, 6, 3, 2), pads=[2, 0, 1, 1], strides=[2, 1]),
    case("Conv", normal(8, 6, 2, 2), dilations=[2, 2]),
    case("Conv", normal(8, 3, 2, 2), group=2),
    case("Conv", normal(6, 1, 3, 3), normal(6), group=6, pads=[1, 1, 1, 1], strides=[2, 2]),
    case("Conv", normal(12, 1, 3, 3), group=6, pads=[1, 1, 1, 1]),
    case("Conv", normal(8, 6, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", normal(8, 6, 2, 2), auto_pad="SAME_LOWER"),
    case("Conv", normal(8, 6, 2, 2), auto_pad="VALID"),
    case("Conv", normal(4, 6, 3), pads=[1, 1], strides=[2], images=normal(2, 6, 9)),
    case("ConvTranspose", normal(6, 4, 3, 3), normal(4), strides=[2, 2]),
    case("ConvTranspose", normal(6, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    case("ConvTranspose", normal(6, 4, 2, 2), dilations=[2, 2]),
    # Pools.
    case("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
    case("MaxPool", kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    case("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, opset=19),
    # Norms.
    case("BatchNormalization", normal(6), normal(6), normal(6), np.abs(normal(6)) + 1, epsilon=1e-3),
    case("InstanceNormalization", normal(6), normal(6)),
    case("LayerNormalization", normal(4), normal(4)),
    case("LayerNormalization", normal(6, 5, 4), normal(6, 5, 4), axis=1),
    case("GroupNormalization", normal(6), normal(6), opset=21, num_groups=3),
    case("LpNormalization", axis=1, p=2),
    case("MeanVarianceNormalization"),
    # Products.
    case("MatMul", normal(4, 7)),
    case("MatMul", normal(6, 4, 3)),
    case("Gemm", normal(5, 7), normal(7), images=normal(3, 5), alpha=0.5, beta=2.0),
    case("Gemm", normal(7, 5), images=normal(3, 5), transB=1),
    case("Gemm", normal(3, 7), images=normal(3, 5), transA=1),
    case("Einsum", normal(4, 3), equation="nchw,wk->nchk"),
    # Arithmetic.
    *(case(op, normal(6, 1, 1, seed=1)) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum")),
    case("Add", normal(4, seed=1)),
    case("Add", normal(*A, seed=1)),
    case("Pow", floats(2).reshape(())),
    case("Pow", floats(0.5).reshape(()), images=POSITIVE),
    case("Pow", floats(1.7).reshape(()), images=POSITIVE),
    case("Mod", floats(0.7).reshape(()), fmod=1),
    case("CumSum", ints(1).reshape(())),
    # Places.
    case("Reshape", ints(2, -1)),
    case("Reshape", ints(0, 0, -1)),
    case("Reshape", ints(2, 3, 2, 20)),
    case("Flatten", axis=2),
    case("Flatten", axis=0),
    case("Transpose", perm=[0, 2, 3, 1]),
    case("Transpose", perm=[0, 3, 1, 2]),
    case("Transpose", perm=[1, 0, 3, 2]),
    case("Squeeze", ints(1), images=normal(2, 1, 5, 4)),
    case("Squeeze", images=normal(2, 1, 5, 4), opset=11, axes=[1]),
    case("Unsqueeze", ints(1, -1)),
    case("Concat", normal(*A, seed=1), axis=1),
    case("Concat", normal(*A, seed=1), axis=-1),
    case("Split", ints(2, 4), axis=1, outputs=2),
    case("Split", axis=1, outputs=3, opset=11),
    case("Split", axis=2, outputs=3, opset=18, num_outputs=3),
    case("Slice", ints(1, 0), ints(9, -1), ints(1, 2)),
    case("Slice", ints(-1), ints(-(2**62)), ints(3), ints(-2)),
    case("Slice", opset=9, starts=[1], ends=[3], axes=[1]),
    case("Pad", ints(0, 1, 2, 0, 0, 0, 1, 3)),
    case("Pad", ints(0, 0, 1, 1, 0, 0, 1, 2), floats(1.5).reshape(())),
    case("Pad", ints(0, 0, 1, 1, 0, 0, 1, 2), mode="reflect"),
    case("Pad", ints(0, 0, 1, 1, 0, 0, 1, 2), mode="edge"),
    case("Gather", ints(0).reshape(()), axis=1),
    case("Gather", ints(2, -1), axis=1),
    case("Gather", ints(2, 1, 0, 1).reshape(2, 2), axis=3),
    case("GatherElements", np.zeros((2, 6, 5, 2), np.int64) + 1, axis=3),
    case("Expand", ints(2, 6, 5, 3), images=normal(2, 6, 5, 1)),
    case("Tile", ints(1, 2, 1, 3)),
    case("DepthToSpace", images=normal(2, 8, 3, 2), blocksize=2),
    case("DepthToSpace", images=normal(2, 8, 3, 2), blocksize=2, mode="CRD"),
    case("SpaceToDepth", images=normal(2, 3, 4, 6), blocksize=2),
    case("Trilu", upper=0),
    # Reductions.
    *(case(op, opset=17, axes=[2, 3]) for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")),
    *(case(op, axes=[1], keepdims=0) for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare")),
    case("ReduceLogSumExp", axes=[1], keepdims=0),
    case("ReduceSum", ints(1, -1), keepdims=0),
    case("ReduceSum", keepdims=0),
    case("ReduceMean", ints(2, 3), opset=18, keepdims=0),
    case("ReduceLogSum", images=POSITIVE, axes=[3]),
    # Sizes.
    *(
        case("Resize", floats(), floats(1, 1, *scale), mode=mode, coordinate_transformation_mode=way)
        for mode in ("nearest", "linear", "cubic")
        for way in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
        for scale in ((2, 3), (0.6, 1.5))
    ),
    case("Resize", floats(), floats(), ints(2, 6, 7, 9), mode="linear"),
    case("Resize", floats(), floats(1, 1, 2, 2), mode="nearest", nearest_mode="floor"),
    case("Resize", floats(), floats(1, 1, 1.5, 1.5), mode="nearest", nearest_mode="round_prefer_ceil"),
]  # fmt: skip


def assert_equal(made, images, path, wanted=None):
    """Compare a file with the reference, for images in the file's order."""
    name = made.graph.input[0].name
    wanted = ReferenceEvaluator(made).run(None, {name: images}) if wanted is None else wanted
    net = jaxai.models.from_onnx(save(made, path)).model
    given = images if net.model.plan.axes == tuple(range(images.ndim)) else np.moveaxis(images, 1, -1)
    found = jax.jit(lambda net, x: net(x))(net, given)
    if not isinstance(found, dict):
        found = {made.graph.output[0].name: found}
    for result, other in zip(made.graph.output, wanted, strict=True):
        one = found[result.name]
        assert one.shape == other.shape, result.name
        atol = 1e-4 * max(1e-3, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=result.name)


def graph_of(op, arrays, opset, outputs, attributes, images):
    """One node on images; what is not laid out like images is reshaped before."""
    names, results = [f"a{i}" for i in range(len(arrays))], [f"y{i}" for i in range(outputs)]
    arrays, given, first = dict(zip(names, arrays, strict=True)), images, "x"
    nodes = [helper.make_node(op, ["x", *names], results, name="node", **attributes)]
    if images.ndim < 4:
        given, arrays["shape"] = images.reshape(*images.shape, *[1] * (4 - images.ndim)), ints(*images.shape)
        nodes[0].input[0] = "flat"
        nodes.insert(0, helper.make_node("Reshape", [first, "shape"], ["flat"]))
    return model(nodes, arrays, {"x": list(given.shape)}, dict.fromkeys(results), opset=opset), given


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    ("op", "arrays", "images", "opset", "outputs", "attributes"),
    [c for c in CASES if c.values[2] is not None],
)
def test_operator_of_images_of_its_own(op, arrays, images, opset, outputs, attributes, tmp_path):
    made, given = graph_of(op, arrays, opset, outputs, attributes, images)
    assert_equal(made, given, tmp_path / "x.onnx")


# Functions that jump are compared on their own inputs alone.
JUMPS = {"Mod", "Floor", "Ceil", "Round", "Sign", "Hardmax"}
SHARED = [c.values for c in CASES if c.values[2] is None]


@pytest.mark.sampled
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("opset", sorted({values[3] for values in SHARED}))
def test_operators_are_those_of_onnx(opset, last, tmp_path):
    """All operators of one opset in one file, on images, or on a convolution's result (channels last)."""
    arrays, results = {"first": normal(6, 3, 1, 1, seed=30)}, {}
    nodes = [helper.make_node("Conv", ["x", "first"], ["images"])] if last else []
    for place, (op, weights, _, version, outputs, attributes) in enumerate(SHARED):
        if version != opset or (last and op in JUMPS):
            continue
        names = [f"{op}{place}a{i}" for i in range(len(weights))]
        arrays.update(zip(names, weights, strict=True))
        made = [f"{op}{place}y{i}" for i in range(outputs)]
        results.update(dict.fromkeys(made))
        node = helper.make_node(op, ["images" if last else "x", *names], made, name=op, **attributes)
        nodes.append(node)
    shape = [2, 3, 5, 4] if last else list(A)
    made = model(nodes, arrays, {"x": shape}, results, opset=opset)
    assert_equal(made, normal(*shape, seed=21), tmp_path / "x.onnx")


def softmax(x, axes):
    exponential = np.exp(x - x.max(axes, keepdims=True))
    return exponential / exponential.sum(axes, keepdims=True)


def local_response(x, size, alpha, bias):
    around = np.pad(x * x, ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)))
    total = sum(around[:, i : i + x.shape[1]] for i in range(size))
    return x / (bias + alpha / size * total) ** 0.75


def spread(x, weights):
    """A transposed convolution with 2 x 2 windows that do not overlap, in two groups."""
    parts = [
        np.einsum("nchw,cfij->nfhiwj", part, kernel)
        for part, kernel in zip(np.split(x, 2, 1), np.split(weights, 2), strict=True)
    ]
    return np.concatenate(parts, 1).reshape(x.shape[0], -1, 2 * x.shape[2], 2 * x.shape[3])


IMAGES = normal(*A, seed=20)
# ONNX's reference does not do these as the specification says, which ONNX Runtime does.
STATED = [
    (case("Softmax", opset=11, axis=1), softmax(IMAGES, (1, 2, 3))),
    (case("LogSoftmax", opset=11, axis=2), np.log(softmax(IMAGES, (2, 3)))),
    (case("LpNormalization", axis=1, p=1), IMAGES / np.abs(IMAGES).sum(1, keepdims=True)),
    (case("LRN", size=3, alpha=0.2), local_response(IMAGES, 3, 0.2, 1)),
    (case("LRN", size=4, alpha=0.2, bias=2.0), local_response(IMAGES, 4, 0.2, 2)),
    (case("Pad", ints(0, 0, -1, 0, 0, 0, 0, -2)), IMAGES[:, :, 1:, :-2]),
    (case("Upsample", floats(1, 1, 2, 3), opset=9, mode="nearest"), IMAGES.repeat(2, 2).repeat(3, 3)),
    (case("Resize", floats(1, 1, 2, 3), opset=10, mode="nearest"), IMAGES.repeat(2, 2).repeat(3, 3)),
    (
        case("ConvTranspose", normal(6, 2, 2, 2), group=2, strides=[2, 2]),
        spread(IMAGES, normal(6, 2, 2, 2)),
    ),
]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("place", range(len(STATED)))
def test_operator_is_what_the_specification_says(place, tmp_path):
    (op, arrays, _, opset, _, attributes), wanted = STATED[place][0].values, STATED[place][1]
    names = [f"a{i}" for i in range(len(arrays))]
    node = helper.make_node(op, ["x", *names], ["y"], name="node", **attributes)
    arrays = dict(zip(names, arrays, strict=True))
    made = model([node], arrays, {"x": list(A)}, {"y": None}, opset=opset)
    assert_equal(made, IMAGES, tmp_path / "x.onnx", [wanted])
