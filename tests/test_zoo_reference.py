"""The zoo's residual networks and transformers against torchvision's and timm's, layer by layer.

Needs torch, torchvision and timm: the `reference` group. Weights are random, those of norms and of the scales
of residual branches too, so that an array in the wrong place shows.
"""

import re

import jax
import numpy as np
import pytest
import skimage
from safetensors.numpy import save_file

from jaxai.models import parameters, vit, zoo
from jaxai.models.wheels import download
from jaxai.weights_convert.conversion import converted

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
from exported import randomized  # noqa: E402

# Depth is spent on one network of each kind.
TORCHVISION = (
    "resnet18 resnet50 wide_resnet50_2 resnext50_32x4d mobilenet_v2 convnext_tiny vit_b_16 vit_b_32".split()
)
TIMM = (
    "resnet34 resnext101_32x8d mobilenetv2_100 convnext_small deit_tiny_patch16_224"
    " vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2"
).split()
# Blocks of timm's stages of a MobileNetV2.
MOBILENET = (1, 2, 3, 4, 3, 3, 1)
# Our name of a stage from theirs, where they differ.
RENAMED = (
    (r"encoder\.layers\.encoder_layer_", "blocks."),
    (r"encoder\.ln$", "norm"),
    (r"^relu$", "conv1"),
    (r"^act1$", "conv1"),
)


def stage_of(name, stages):
    # A convolution and its ReLU are one stage.
    if name == "conv1":
        return ""
    for theirs, ours in RENAMED:
        name = re.sub(theirs, ours, name)
    if "features.1" in stages and (match := re.fullmatch(r"blocks\.(\d)\.(\d)", name)):
        return f"features.{1 + sum(MOBILENET[: int(match[1])]) + int(match[2])}"
    if match := re.fullmatch(r"features\.(\d)\.(\d+)", name):
        stage, index = int(match[1]), match[2]
        if stage % 2 and f"stages.{stage // 2}.blocks.{index}" in stages:
            return f"stages.{stage // 2}.blocks.{index}"
    return name


def outputs(network, images, stages):
    """Return what modules with the name of a stage return."""
    found, hooks = {}, []
    for name, module in network.named_modules():
        if (stage := stage_of(name, stages)) in stages:
            hooks.append(
                module.register_forward_hook(lambda _, __, y, stage=stage: found.setdefault(stage, y.clone()))
            )
    with torch.inference_mode():
        found["logits"] = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).clone()
    for hook in hooks:
        hook.remove()
    return found


def reference(library, name, size):
    if library == "timm":
        options = {"img_size": size} if name.startswith("vit") else {}
        return timm.create_model(name, pretrained=False, **options)
    return getattr(torchvision.models, name)()


def agrees(library, name, tmp_path, *, size=224):
    known = zoo.entry(name)
    network = randomized(reference(library, name, size), seed=0)
    state = {key: np.ascontiguousarray(value.numpy()) for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    weights = converted(tmp_path / "model.safetensors", name)
    model = parameters.build(known.make, weights.arrays)
    images = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = outputs(network, images, model.layer_names)
    compared, ours = 0, images
    for stage in model.layer_names:
        ours = jax.jit(getattr(model, stage))(ours)
        theirs = expected.get("logits" if stage == model.layer_names[-1] else stage)
        # timm adds the class token after its patches.
        if theirs is None or stage in ("patch_embed", "norm") and theirs.numel() != ours.size:
            continue
        theirs = theirs.numpy()
        if theirs.ndim == 4 and ours.ndim == 2:
            theirs = theirs[..., 0, 0]
        if ours.ndim == 4:
            theirs = theirs if theirs.shape == ours.shape else theirs.transpose(0, 2, 3, 1)
        assert theirs.shape == ours.shape
        # 1e-5 of the largest value: sums of float32 in another order.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=stage)
        compared += 1
    blocks = [stage for stage in model.layer_names if re.match(r"layer|blocks|features|stages", stage)]
    assert compared > 0.7 * len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, tmp_path):
    agrees("torchvision", name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name, tmp_path):
    agrees("timm", name, tmp_path, size=518 if name.startswith("vit") else 224)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [(37, 16), (37, 24), (16, 37), (5, 9)])
def test_positions_are_interpolated_as_torch_does(factor):
    length, size = factor
    given = torch.randn(1, 1, length, length, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.functional.interpolate(given, (size, size), mode="bicubic", align_corners=False)
    matrix = vit.cubic(length, size)
    np.testing.assert_allclose(matrix @ given[0, 0].numpy() @ matrix.T, theirs[0, 0].numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "last", "atol"),
    [("vit_s14_focus", jax.nn.sigmoid, 2e-5), ("resnet50_thin", jax.nn.softmax, 1e-6)],
)
def test_networks_of_packages_against_onnx_runtime(name, last, atol, tmp_path):
    """Probabilities; those of the map are float32 behind 12 blocks."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path = download(zoo.entry(name).source, tmp_path)
    network = parameters.build(zoo.entry(name).make, converted(path, name).arrays)
    photo = skimage.data.coffee()[:224, 100:324] / np.float32(255)
    images = np.asarray(zoo.entry(name).normalize(photo[None]))
    session = onnxruntime.InferenceSession(path)
    given = session.get_inputs()[0]
    given_images = images if given.shape[-1] == 3 else images.transpose(0, 3, 1, 2)
    theirs = session.run(None, {given.name: given_images})[0]
    ours = np.asarray(last(network(images)))
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=0, atol=atol)
