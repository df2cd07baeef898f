"""Networks that PyTorch exported to ONNX: Grad-CAM beside PyTorch's, LRP, and every other method.

Those of timm, transformers and open_clip, with random weights, for images of 64 pixels. Needs these packages,
torch, onnxruntime and onnxscript: the `reference` group.
"""

import copy
import re
from functools import partial
from typing import Any, NamedTuple

import checked_networks
import jax.numpy as jnp
import numpy as np
import pytest
from checked_networks import NO_ATTENTION, NO_CAM, NO_RELU

import jaxai

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
timm = pytest.importorskip("timm")
exported = pytest.importorskip("exported", exc_type=ImportError)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore"),
]
SIDE, TARGET = 64, 3
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)), jnp.float32)


def clip():
    """CLIP's image encoder as transformers has it: the embeddings of images."""
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        projection_dim=16,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=SIDE,
        patch_size=16,
    )

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = transformers.CLIPVisionModelWithProjection(config)

        def forward(self, x):
            return self.net(pixel_values=x).image_embeds

    return Encoder()


def open_clip():
    """The same as open_clip has it: tokens come before the batch within its blocks."""
    transformer = pytest.importorskip("open_clip.transformer")
    return transformer.VisionTransformer(
        image_size=SIDE, patch_size=16, width=96, layers=3, heads=3, mlp_ratio=2.0, output_dim=16
    )


class Kind(NamedTuple):
    """How a network is made, three modules of it, and what cannot explain it, in which words."""

    make: Any
    modules: tuple[str, ...]
    refused: dict[str, str]


def of_timm(name, modules, refused, **options):
    return Kind(partial(timm.create_model, name, num_classes=10, **options), modules, refused)


KINDS = {
    "resnet50": of_timm("resnet50", ("layer1.1.act2", "layer2.1", "layer3.4"), NO_ATTENTION),
    "mobilenet_v2": of_timm("mobilenetv2_100", ("bn1", "blocks.2.1", "blocks.4.2.bn2"), NO_ATTENTION),
    "efficientnet_b0": of_timm(
        "efficientnet_b0", ("blocks.1.1", "blocks.3.1.bn2", "blocks.5.2"), NO_ATTENTION | NO_RELU
    ),
    "convnext_tiny": of_timm(
        "convnext_tiny",
        ("stages.0.blocks.1", "stages.1.downsample.1", "stages.2.blocks.4.conv_dw"),
        NO_ATTENTION | NO_RELU | NO_CAM,
    ),
    "vit_small": of_timm(
        "vit_small_patch16_224",
        ("patch_embed", "blocks.4", "blocks.9.mlp"),
        NO_RELU | NO_CAM,
        img_size=SIDE,
    ),
    "clip": Kind(
        clip,
        tuple(
            f"net.vision_model.{name}"
            for name in ("pre_layrnorm", "encoder.layers.0.layer_norm2", "encoder.layers.1.mlp")
        ),
        NO_RELU | NO_CAM,
    ),
    "open_clip": Kind(
        open_clip,
        ("ln_pre", "transformer.resblocks.0", "transformer.resblocks.1.mlp"),
        NO_RELU | NO_CAM,
    ),
}


def calibrated(network):
    """Return a copy whose batch norms have the statistics of images.

    Deep networks of narrow blocks return next to nothing else, which a rule's stabilizer would absorb.
    """
    network = copy.deepcopy(network)
    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            network.train()(torch.tensor(np.moveaxis(np.asarray(IMAGES), -1, 1).copy()))
    return network.eval()


def without_constants(network):
    """Return a copy in which nothing adds a constant."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if re.search(r"bias|running_mean|cls_token|class_embedding|pos[a-z]*_embed", name):
                if tensor.is_floating_point():
                    tensor.zero_()
    return network


class Case(NamedTuple):
    kind: Kind
    network: Any
    model: Any
    bias_free: Any
    path: Any


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("onnx")
    network = exported.randomized(kind.make())
    paths = [
        exported.export(net, folder / f"{name}.onnx", (SIDE, SIDE))
        for name, net in (("net", network), ("bias_free", without_constants(calibrated(network))))
    ]
    models = [jaxai.models.from_onnx(path).model for path in paths]
    return Case(kind, network, *models, paths[0])


def by_torch(network, modules, images):
    """Return scores, and the results of modules with the gradients of the score with respect to them."""
    seen, hooks = {}, []
    for name in modules:

        def keep(module, given, result, name=name):
            seen[name] = result + torch.zeros_like(result).requires_grad_()
            seen[name].retain_grad()
            return seen[name]

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        scores = network(torch.tensor(np.moveaxis(np.asarray(images), -1, 1).copy()))
        scores[:, TARGET].sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    return scores.detach().numpy(), {
        name: [np.moveaxis(t.numpy(), 1, -1) if t.ndim == 4 else t.numpy() for t in (x.detach(), x.grad)]
        for name, x in seen.items()
    }


def test_grad_cam_at_inner_modules_is_that_of_pytorch(case):
    """By the gradients of a sum that is added to a module's result in PyTorch's own network."""
    wanted, seen = by_torch(case.network, case.kind.modules, IMAGES)
    scores = np.asarray(case.model(IMAGES))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(scores / scale, wanted / scale, rtol=0, atol=1e-4)
    np.testing.assert_allclose(exported.by_runtime(case.path, IMAGES) / scale, scores / scale, atol=1e-4)
    tree = jaxai.layers.tree(case.model, IMAGES)
    assert len(seen) == 3
    for module, (values, gradient) in seen.items():
        # The layer that holds the module's result; exporters name nodes in several ways.
        alike = [name for name, aval in tree.shapes.items() if aval.shape == values.shape]
        gaps = {name: np.abs(np.asarray(case.model(IMAGES, stop=name)) - values).max() for name in alike}
        layer = min(gaps, key=lambda name: gaps[name])
        assert gaps[layer] < 1e-4 * np.abs(values).max(), module
        checked_networks.check_grad_cam(
            case.model, IMAGES, TARGET, layer, tree.layouts[layer], values, gradient, tolerance=1e-3
        )
    checked_networks.check_grad_cam_is_compiled_once(case.model, IMAGES, TARGET, layer)


def test_relevance_is_conserved_without_biases(case):
    """The sum of relevance is the score, with no constant added anywhere; CP-LRP for attention."""
    attends = not case.kind.refused.items() >= NO_ATTENTION.items()
    checked_networks.check_conservation(case.bias_free, IMAGES, TARGET, attends=attends, least=1e-3)


def test_every_method_runs_or_says_why_not(case):
    layers = [n for n, lies in jaxai.layers.tree(case.model, IMAGES).layouts.items() if lies]
    checked_networks.check_every_method(
        case.model, IMAGES, TARGET, names=tuple(layers[3:5]), narrow=layers[3], refused=case.kind.refused
    )
