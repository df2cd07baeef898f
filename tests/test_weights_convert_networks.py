"""Converted networks: PyTorch's logits and Grad-CAM; norms are folded, in whole networks and by hand."""

import runpy
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from skimage import data

import jaxai
from jaxai.models import VGG, parameters, zoo
from jaxai.weights_convert import convert, files, layouts, mappings
from jaxai.weights_convert.stored import stored

GOLDENS = Path(__file__).parent / "goldens"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
random_vgg = runpy.run_path(str(GOLDENS / "random_vgg.py"))["state_dict"]


def centre(photo, size):
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    return photo[top : top + size, left : left + size]


def normalized(*photos):
    return jnp.asarray((np.stack(photos) / 255 - MEAN) / STD, jnp.float32)


@jax.jit
def forward(model, x):
    return model(x)


def relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDENS / "vgg_random.npz")


@pytest.fixture(scope="module")
def small_state():
    """torchvision's VGG11 with batch norms and a small classifier."""
    return random_vgg(11, norm=True, dense=(64, 32, 10), seed=11)


SMALL = partial(VGG, 11, classes=10, hidden=(64, 32))


@pytest.fixture
def small_vgg(monkeypatch):
    """The zoo's vgg11_bn and vgg11, with a small classifier so that files stay small."""
    for name in ("vgg11", "vgg11_bn"):
        known = zoo.ZOO[name]
        small = {**known.__dict__, "make": SMALL}
        monkeypatch.setitem(zoo.ZOO, name, type(known)(**small))


def as_timm(state):
    """The same weights under timm's names and shapes."""
    renamed = {}
    for key, value in state.items():
        if key == "classifier.0.weight":
            value = value.reshape(-1, 512, 7, 7)
        elif key == "classifier.3.weight":
            value = value[..., None, None]
        for ours, timm in zip((0, 3, 6), ("pre_logits.fc1", "pre_logits.fc2", "head.fc"), strict=True):
            key = key.replace(f"classifier.{ours}.", f"{timm}.")
        renamed[key] = np.ascontiguousarray(value)
    return renamed


def test_random_weights_are_those_of_the_golden(golden):
    state = random_vgg(16, norm=False, dense=(2, 2, 2), seed=16)
    np.testing.assert_allclose(
        np.float64(state["features.0.weight"]).sum(), golden["weights_check"][0], rtol=1e-9
    )


@pytest.mark.slow
def test_vgg16_of_torchvision_gives_pytorchs_logits_and_grad_cam(golden):
    """The whole network with random weights: 1e-4 relative leaves room for another order of sums."""
    state = random_vgg(16, norm=False, dense=(4096, 4096, 1000), seed=16)
    make = partial(VGG, 16)
    network = parameters.abstract(make)
    rules = layouts.vgg(network.layer_names, list(state), norm=False)
    described = {key: stored(array) for key, array in state.items()}
    model = parameters.build(make, mappings.apply(rules, described, parameters.shapes(network)))
    x = normalized(centre(data.chelsea(), 224))

    assert relative(forward(model, x), golden["vgg16_logits"]) < 1e-4
    target = int(golden["vgg16_target"])
    cam = jaxai.grad_cam(model, x, target, layer="conv5_3", relu=False, upsample=False)
    assert relative(cam[0], golden["vgg16_cam"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("rename", [dict, as_timm], ids=["torchvision", "timm"])
def test_batch_norms_are_folded_and_both_names_serve(golden, small_state, rename, small_vgg, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(rename(small_state), source)
    path = convert(source, "vgg11_bn", tmp_path / "out" / "y.safetensors")
    shapes = parameters.shapes(parameters.abstract(SMALL))
    model = parameters.build(SMALL, files.read(path, model="vgg11_bn", shapes=shapes).arrays)
    x = normalized(centre(data.chelsea(), 224), centre(data.rocket(), 224))
    assert relative(forward(model, x), golden["vgg11_bn_logits"]) < 1e-4
    larger = normalized(centre(data.coffee(), 288))
    assert relative(forward(model, larger), golden["vgg11_bn_larger"]) < 1e-4


def test_a_norm_after_the_relu_folds_into_the_next_dense_layer():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    scale, shift, x = rng.normal(size=5), rng.normal(size=5), rng.normal(size=(4, 5))
    made = mappings.dense_after_norm(kernel, bias, scale, shift)
    np.testing.assert_allclose(x @ made["kernel"] + made["bias"], (x * scale + shift) @ kernel + bias)


def test_a_norm_folds_into_the_convolution_before_it():
    """One pixel, so that the convolution is a matrix product, by the definition of batch norm."""
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(4, 3, 1, 1)), rng.normal(size=3)
    scale, shift, mean, bias = rng.normal(size=(4, 4))
    variance = rng.uniform(0.1, 2, 4)
    made = mappings.folded_convolution(weight, scale, shift, mean, variance, bias, epsilon=1e-3)
    expected = (weight[..., 0, 0] @ x + bias - mean) / np.sqrt(variance + 1e-3) * scale + shift
    np.testing.assert_allclose(x @ made["kernel"][0, 0] + made["bias"], expected)


def test_depthwise_kernels_keep_their_window():
    weight = np.arange(2 * 9.0).reshape(2, 1, 3, 3)
    kernel = mappings.convolution(weight, np.zeros(2))["kernel"]
    assert kernel.shape == (3, 3, 1, 2)
    np.testing.assert_array_equal(kernel[:, :, 0, 1], weight[1, 0])
