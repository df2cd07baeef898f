"""Networks from ONNX files: axes, sizes that a file fixes or leaves open, files for one image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_files import model, normal, reference, residual, save

import jaxai

SIDE = 16


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(normal(3, SIDE, SIDE, 3, seed=30))


def test_a_file_with_channels_last(images, tmp_path):
    made = residual()
    turn = helper.make_node("Transpose", ["photos"], ["images"], perm=[0, 3, 1, 2], name="turn")
    made.graph.node.insert(0, turn)
    made.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("photos", TensorProto.FLOAT, ["N", SIDE, SIDE, 3])
    )
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    np.testing.assert_allclose(net(images), reference(residual(), images), rtol=1e-4, atol=1e-4)
    program = str(jax.make_jaxpr(net.model)(images))
    assert "transpose" not in program


def test_sizes_that_the_file_leaves_open_are_free(images, tmp_path):
    made = residual()
    for place in (2, 3):
        made.graph.input[0].type.tensor_type.shape.dim[place].dim_param = f"size{place}"
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx"), input_size=32)
    assert net.input_size == 32 and net.model(jnp.ones((1, 20, 24, 3))).shape == (1, 7)
    assert jaxai.models.from_onnx(tmp_path / "x.onnx").input_size == 224


def test_a_size_that_the_file_fixes_is_another_where_no_node_states_one(tmp_path):
    made, side = residual(), 28
    path = save(made, tmp_path / "x.onnx")
    net = jaxai.models.from_onnx(path, input_size=side)
    photos = jnp.asarray(normal(2, side, side, 3, seed=31))
    assert net.input_size == side and net.crop(np.zeros((30, 40, 3), np.uint8)).shape == (1, side, side, 3)
    del made.graph.input[0].type.tensor_type.shape.dim[2:]
    for _ in range(2):
        made.graph.input[0].type.tensor_type.shape.dim.add().dim_value = side
    wanted = reference(made, photos)
    np.testing.assert_allclose(net.model(photos), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert jaxai.layers.tree(net.model, photos).shapes["stem/pool"].shape == (2, 14, 14, 8)


def stating(*nodes):
    """A convolution and a sum over all positions, and between them nodes that state sizes."""
    arrays = {
        "w": normal(4, 3, 3, 3),
        "sizes": np.asarray([1, 4, 16, 16]),
        "none": np.zeros(0, np.float32),
        "map": normal(1, 1, 14, 14),
        "zero": np.asarray([0, 0]),
        "ten": np.asarray([10, 10]),
        "plane": np.asarray([2, 3]),
        "rows": np.asarray([-1, 196]),
        "flat": normal(196, 5),
    }
    node = helper.make_node
    first = node("Conv", ["x", "w"], ["c"], name="conv")
    made = [node(op, inputs, ["r"], name="odd") for op, *inputs in nodes]
    last = node("ReduceSum", ["r", "plane"], ["y"], name="sum", keepdims=0)
    return model([first, *made, last], arrays, {"x": [1, 3, SIDE, SIDE]}, {"y": [1, 4]})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (("Resize", "c", "", "none", "sizes"), r"node 'odd' \(Resize\) states its result's size"),
        (("Slice", "c", "zero", "ten", "plane"), r"node 'odd' \(Slice\) states its result's size"),
        (("Add", "c", "map"), r"node 'odd' \(Add\): .*18.*14"),
        (("Relu", "c"), None),
    ],
)
def test_a_node_that_fixes_the_size_is_named(node, message, tmp_path):
    path = save(stating(node), tmp_path / "x.onnx")
    assert jaxai.models.from_onnx(path).input_size == SIDE
    if message is None:
        assert jaxai.models.from_onnx(path, input_size=20).input_size == 20
        return
    first = "`input_size` must be what the file fixes, 16 x 16; got 20, and"
    with pytest.raises(ValueError, match=f"^x.onnx: {first} {message}") as caught:
        jaxai.models.from_onnx(path, input_size=20)
    assert "\n" not in str(caught.value)


def test_positions_that_are_counted_as_images_are_refused(tmp_path):
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "shape"], ["r"], name="reshape"),
        node("MatMul", ["r", "w"], ["y"], name="fc"),
    ]
    arrays = {"shape": np.asarray([-1, 3 * SIDE * SIDE]), "w": normal(3 * SIDE * SIDE, 5)}
    path = save(model(nodes, arrays, {"x": [1, 3, SIDE, SIDE]}, {"y": [1, 5]}), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="got 32, and result 'y' counts positions as images"):
        jaxai.models.from_onnx(path, input_size=2 * SIDE)


def reshaped_for_one():
    """A network exported for one image: its reshapes and its token say so."""
    arrays = {
        "w": normal(4, 3, 4, 4, seed=1),
        "shape": np.asarray([1, 4, 16]),
        "flat": np.asarray([1, -1]),
        "token": normal(1, 4, 1, seed=2),
        "head": normal(68, 5, seed=3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="patches", strides=[4, 4]),
        helper.make_node("Reshape", ["c", "shape"], ["r"], name="reshape"),
        helper.make_node("Concat", ["token", "r"], ["t"], name="tokens", axis=2),
        helper.make_node("Reshape", ["t", "flat"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "head"], ["y"], name="head"),
    ]
    return model(nodes, arrays, {"x": [1, 3, SIDE, SIDE]}, {"y": [1, 5]})


def test_a_file_for_one_image_takes_more(images, tmp_path):
    made = reshaped_for_one()
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    wanted = np.concatenate([reference(made, image[None]) for image in images])
    np.testing.assert_allclose(net(images), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(net(images[:1]), wanted[:1], rtol=1e-4, atol=1e-4)


def test_arithmetic_on_shapes_is_done_while_tracing(images, tmp_path):
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Unsqueeze", ["batch", "axes"], ["b"]),
        node("Concat", ["b", "rest"], ["wanted"], axis=0),
        node("Reshape", ["x", "wanted"], ["flat"], name="flat"),
        node("MatMul", ["flat", "w"], ["y"], name="fc"),
    ]
    arrays = {
        "zero": np.asarray(0),
        "axes": np.asarray([0]),
        "rest": np.asarray([-1]),
        "w": normal(3 * SIDE * SIDE, 4),
    }
    made = model(nodes, arrays, {"x": ["N", 3, SIDE, SIDE]}, {"y": ["N", 4]})
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    np.testing.assert_allclose(net(images), reference(made, images), rtol=1e-4, atol=1e-4)
    assert net.layer_names == ("flat", "fc", "logits")
