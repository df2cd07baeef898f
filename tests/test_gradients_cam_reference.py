"""Gradient attributions and class activation maps on real networks, against Captum and pytorch-grad-cam."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai._frame.targets import Target
from jaxai.cam import _dense_head
from jaxai.cam._core import look

# As in the script that made the goldens.
CROPS = (
    ("cat", 0),
    ("cat", 80),
    ("coffee", 40),
    ("rocket", 80),
    ("astronaut", 20),
)
GOLDENS = Path(__file__).parent / "goldens"


def centre(photo, size):
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    return photo[top : top + size, left : left + size]


def imagenet(photos):
    """Normalise as the goldens do, bit by bit: another rounding puts other ReLUs beyond their kinks."""
    mean, deviation = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return jnp.asarray((photos.astype(np.float32) / 255 - mean) / deviation)


def distance(actual, expected):
    """Return the relative L2 distance, which single pixels at a ReLU's kink do not decide."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def lite(lite0, photos):
    golden = np.load(GOLDENS / "gradients_cam_lite.npz")
    pair = np.stack([centre(photos[n], 224) for n in ("cat", "coffee")])
    return lite0.model, imagenet(pair), golden["classes"], golden


@pytest.fixture(scope="module")
def vgg(photos):
    net = jaxai.models.load("vgg16_brain_mri")
    golden = np.load(GOLDENS / "gradients_cam_vgg.npz")
    x = jnp.asarray(centre(photos["astronaut"], 240)[None].astype(np.float32) / 255)
    return net.model, net.normalize(x), golden["classes"], golden


CAMS = {
    "grad_cam": jaxai.grad_cam,
    "grad_cam_plus_plus": jaxai.grad_cam_plus_plus,
    "xgrad_cam": jaxai.xgrad_cam,
    "hires_cam": jaxai.hires_cam,
    "element_wise_grad_cam": jaxai.element_wise_grad_cam,
    "layer_cam": jaxai.layer_cam,
    "eigen_cam": jaxai.eigen_cam,
    "eigen_grad_cam": jaxai.eigen_grad_cam,
    "seg_eigen_cam": lambda *a, **k: jaxai.eigen_grad_cam(*a, magnitude=True, **k),
    "kpca_cam": jaxai.kpca_cam,
    "fem": jaxai.fem,
    "ablation_cam": jaxai.ablation_cam,
    "shapley_cam": jaxai.shapley_cam,
    "finer_cam": jaxai.finer_cam,
}
SIGNLESS = ("eigen_cam", "eigen_grad_cam", "seg_eigen_cam", "kpca_cam")


def check_cams(net, x, classes, golden, layer):
    # The head alone: all of these see only activations and what comes after them.
    acts = jax.jit(lambda net, x: net(x, stop=layer))(net, x)
    head = jaxai.chain({layer: lambda a: a, "rest": lambda a: net(a, start=layer)})
    for name, method in CAMS.items():
        found = np.asarray(method(head, acts, classes, layer=layer, relu=False, upsample=False))
        for ours, expected in zip(found, golden[f"cam.{name}"], strict=True):
            error = distance(ours, expected)
            if name in SIGNLESS:
                error = min(error, distance(-ours, expected))
            assert error < 1e-3, (name, error)


@pytest.mark.slow
def test_cams_of_efficientnet(lite):
    check_cams(*lite, "conv_head")


@pytest.mark.slow
def test_cams_of_vgg16(vgg):
    net, x, classes, golden = vgg
    scores = jax.jit(lambda net, x: net(x))(net, x)
    assert distance(scores, golden["scores"]) < 1e-4
    check_cams(net, x, classes, golden, "conv5_3")


@pytest.mark.slow
def test_whole_networks_give_what_their_heads_do(lite):
    net, x, classes, golden = lite
    found = jaxai.grad_cam(net, x, classes, relu=False, upsample=False)
    assert distance(found, golden["cam.grad_cam"]) < 1e-3
    shallow = jaxai.score_cam(net, x, classes, layer="block1a", relu=False, upsample=False)
    assert distance(shallow, golden["cam.score_cam"]) < 1e-3


@pytest.mark.slow
def test_heads_of_real_networks_begin_with_a_dense_layer(lite, vgg):
    for (net, x, *_), layer in ((lite, "conv_head"), (vgg, "conv5_3")):
        view = look(net, layer, x[:1], Target(), None)
        assert _dense_head.find(view.head, view.acts) is not None


@pytest.mark.slow
def test_class_activation_maps_of_real_networks(lite, vgg):
    net, x, classes, golden = lite
    found = jaxai.class_activation_map(net, x, classes, layer="conv_head", relu=False, upsample=False)
    assert distance(found / 49, golden["cam.grad_cam"]) < 1e-3
    with pytest.raises(ValueError, match="global average pooling and one linear layer"):
        jaxai.class_activation_map(vgg[0], vgg[1][:1], 0, layer="conv5_3")


@pytest.mark.slow
def test_layer_attributions_of_efficientnet(lite):
    net, x, classes, golden = lite
    options = dict(layer="block6d")
    x, classes = x[:1], classes[:1]
    weighted = jaxai.layer_gradients(net, x, classes, times_activation=True, **options)
    assert distance(weighted, golden["layer.layer_gradient_x_activation"]) < 1e-3
    cam = jaxai.grad_cam(net, x, classes, relu=False, upsample=False, **options)
    assert distance(cam[..., None], golden["layer.layer_grad_cam"]) < 1e-3
    found = jaxai.layer_integrated_gradients(net, x, classes, steps=8, **options)
    assert distance(found, golden["layer.layer_integrated_gradients"]) < 1e-3
    found = jaxai.internal_influence(net, x, classes, steps=8, **options)
    assert distance(found, golden["layer.internal_influence"]) < 1e-3
    found = jaxai.conductance(net, x, classes, steps=8, rule="left", **options)
    assert distance(found, golden["layer.conductance"]) < 1e-3


def in_float64(model):
    return jax.tree.map(lambda a: a.astype("float64") if jnp.issubdtype(a.dtype, jnp.floating) else a, model)


def check_pixels(found, expected):
    """Captum's positions on a path are float32, which puts single ReLUs beyond their kinks."""
    errors = [distance(a, b) for a, b in zip(np.asarray(found), expected, strict=True)]
    assert np.median(errors) < 1e-4 and np.max(errors) < 2e-3, errors


@pytest.mark.slow
def test_pixel_attributions_of_efficientnet(lite, photos):
    # In float64, as the goldens: in float32 two networks differ where a ReLU is at its kink, by up to 1%.
    net, _, _, golden = lite
    x = np.concatenate([imagenet(centre(photos[n], 224)[None, i : i + 64, i : i + 64]) for n, i in CROPS])
    classes = golden["pixels.classes"]
    with jax.enable_x64(True):
        net, x = in_float64(net), jnp.asarray(x, jnp.float64)
        gradient = jaxai.saliency(net, x, classes)
        check_pixels(gradient[:, ::2, ::2], golden["pixels.saliency"])
        check_pixels((gradient * x)[:, ::2, ::2], golden["pixels.input_x_gradient"])
        found = jaxai.integrated_gradients(net, x, classes)
        check_pixels(found[:, ::2, ::2], golden["pixels.integrated_gradients"])
        found = jaxai.integrated_gradients(net, x, classes, baseline=1.0, steps=10, method="trapezoid")
    # Captum's trapezoid divides n points by n, so that its weights sum to (n - 1) / n.
    check_pixels(np.asarray(found)[:, ::2, ::2] * 0.9, golden["pixels.integrated_gradients_white"])


@pytest.mark.slow
def test_pixel_attributions_of_vgg16(vgg, photos):
    net, _, _, golden = vgg
    names = ("cat", "coffee", "astronaut")
    x = np.stack([centre(photos[n], 240) for n in names]).astype(np.float32) / 255
    with jax.enable_x64(True):
        found = jaxai.saliency(in_float64(net), jnp.asarray(x, jnp.float64), golden["pixels.classes"])
    check_pixels(np.asarray(found)[:, ::5, ::5], golden["pixels.saliency"])
