"""Networks that PyTorch exported to ONNX: what they compute beside ONNX Runtime, and how they are explained.

Needs torch, timm, onnxruntime and onnxscript: the `reference` group.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
exported = pytest.importorskip("exported", exc_type=ImportError)
every_method = pytest.importorskip("every_method")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def agrees(path, images):
    net = jaxai.models.from_onnx(path)
    wanted = exported.by_runtime(path, images)
    found = np.asarray(jax.jit(lambda model, x: model(x))(net.model, images))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    return net


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("dynamo", [False, True], ids=["old exporter", "new exporter"])
@pytest.mark.parametrize("kind", exported.SMALL, ids=lambda kind: kind.__name__)
def test_small_networks(kind, dynamo, tmp_path):
    path = exported.export(
        exported.randomized(kind()), tmp_path / f"{kind.__name__}.onnx", (16, 16), dynamo=dynamo
    )
    net = agrees(path, normal(3, 16, 16, 3))
    assert len(net.model.layer_names) > 4


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "vit_small_patch16_224"])
def test_networks_of_timm(name, tmp_path):
    timm = pytest.importorskip("timm")
    network = exported.randomized(timm.create_model(name, pretrained=False))
    net = agrees(exported.export(network, tmp_path / f"{name}.onnx", (224, 224)), normal(2, 224, 224, 3))
    images = normal(1, 224, 224, 3)
    names = [n for n in net.model.layer_names if "Relu" in n or "Add" in n]
    for layer in names[len(names) // 4 :: len(names) // 4][:3]:
        acts, head = jaxai.split(net.model, layer, images)
        score = jax.jit(jax.grad(lambda delta, a=acts, h=head: h(a + delta)[0, 3]))
        gradient = np.asarray(score(jnp.zeros_like(acts)))
        found = jaxai.grad_cam(net.model, images, 3, layer=layer, relu=False, upsample=False)
        _, layout = net.model.layouts(images)[layer]
        if isinstance(layout, jaxai.layers.Tokens):
            rows, columns = layout.grid
            inside = slice(layout.prefix, layout.prefix + rows * columns)
            weights = gradient[:, inside].mean(1, keepdims=True)
            wanted = (np.asarray(acts)[:, inside] * weights).sum(-1).reshape(1, rows, columns)
        else:
            wanted = (np.asarray(acts) * gradient.mean((1, 2), keepdims=True)).sum(-1)
        scale = np.abs(wanted).max()
        assert scale > 0
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=1e-4)
    maps = jaxai.lrp(net.model, images, 3)
    assert maps.shape == images.shape and np.isfinite(maps).all() and np.abs(maps).max() > 0


def test_efficientnet_lite_exported(photos, tmp_path):
    """With its real weights, beside ONNX Runtime and the network of the zoo."""
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    from jaxai.models.zoo import entry

    network = lite.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(entry("efficientnet_lite0").source.find(), map_location="cpu"))
    path = exported.export(network.eval(), tmp_path / "lite0.onnx", (224, 224))
    native = jaxai.models.load("efficientnet_lite0")
    images = native.preprocess([photos[name] for name in ("cat", "coffee")])
    net = agrees(path, images)
    scores = native.model(images)
    np.testing.assert_allclose(net.model(images), scores, rtol=0, atol=1e-4 * np.abs(scores).max())
    # The last layer with positions, and one in the middle, by what they hold.
    for stop in (jaxai.layers.resolve(native.model, None, images), native.model.layer_names[8]):
        acts = np.asarray(native.model(images, stop=stop))
        shapes = jaxai.layers.tree(net.model, images).shapes
        alike = [n for n, one in shapes.items() if one.shape == acts.shape]
        nearest = min(alike, key=lambda n: np.abs(np.asarray(net.model(images, stop=n)) - acts).max())
        wanted = jaxai.grad_cam(native.model, images, 281, layer=stop)
        found = jaxai.grad_cam(net.model, images, 281, layer=nearest)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


# Every method on one network of each kind, of the images that `every_method` has options for.
SIZE = every_method.SIZE
KINDS = {
    "convolutions": exported.Residual,
    "transformer": partial(exported.ViT, patch=2, grid=(3, 4)),
}
# What is refused, and in what words.
WITHOUT_RELU = dict.fromkeys(("deconvnet", "guided_backprop", "guided_grad_cam"), "must contain a ReLU")
WITHOUT_ATTENTION = dict.fromkeys(every_method.ATTENTION, "must have attention matrices")
REFUSED = {"convolutions": WITHOUT_ATTENTION, "transformer": WITHOUT_RELU}


@pytest.fixture(scope="module", params=KINDS)
def imported(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    exported.export(exported.randomized(KINDS[request.param]()), path, SIZE)
    model = jaxai.models.from_onnx(path).model
    spread = [n for n, lies in jaxai.layers.tree(model, normal(2, *SIZE, 3)).layouts.items() if lies]
    return request.param, model, spread


def test_every_method_explains_what_was_imported_or_says_why_not(imported):
    kind, model, layers = imported
    images, told = normal(2, *SIZE, 3), {}
    for name, method in every_method.of_shape(images.shape).items():
        options = {"names": tuple(layers[:2])} if "names" in getattr(method, "keywords", {}) else {}
        try:
            found = every_method.arrays(method(model, images, 1, **options))
        except (ValueError, TypeError) as error:
            told[name] = str(error)
        else:
            assert all(np.isfinite(np.asarray(x, np.float64)).all() for x in found), name
    for name, line in told.items():
        assert re.search(REFUSED[kind].get(name, "nothing"), line) and "\n" not in line, (name, line)
    assert set(told) == set(REFUSED[kind])
