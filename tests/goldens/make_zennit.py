"""Relevances by zennit: every rule and composite on a small network, composites on real weights.

python make_zennit.py EFFICIENTNET_LITE0.safetensors VGG16_BRAIN_MRI.safetensors OUT.npz

The weights are those that `jaxai.models.load` converts. Everything is computed in float64.
"""

import sys

import numpy as np
import torch
from provenance import centre, imagenet, save
from safetensors.numpy import load_file
from torch import nn
from zennit import composites, rules
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.layer import Sum
from zennit.types import Convolution, Linear

torch.set_default_dtype(torch.float64)


class Residual(nn.Module):
    """inner(x) + x, summed by the module that zennit knows."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.sum = inner, Sum()

    def forward(self, x):
        return self.sum(torch.stack([x, self.inner(x)], dim=-1))


class PaddedConv(nn.Conv2d):
    """A convolution that pads its input itself, more after than before where the padding is odd."""

    def forward(self, x):
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        return super().forward(nn.functional.pad(x, (before, after, before, after)))


class FlattenLast(nn.Module):
    """Flatten with the channels last, as the converted dense layers expect."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def small_network():
    """Return a network with every kind of layer, with biases and a batch norm."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, (3, 2), stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1, bias=False))),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        FlattenLast(),
        nn.Linear(32, 10),
        nn.ReLU(),
        nn.Linear(10, 5),
    )
    norm = net[1]
    norm.weight.data.uniform_(-1.5, 1.5)
    norm.bias.data.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    for value in net.state_dict().values():
        # What is stored as float32 is what was computed with.
        if value.is_floating_point():
            value.copy_(value.float())
    return net.eval()


def conv(weights, name, *, stride=1, depthwise=False):
    """Return a converted convolution."""
    kernel = weights[f"{name}.kernel"].transpose(3, 2, 0, 1)
    size = kernel.shape[-1]
    groups = kernel.shape[0] if depthwise else 1
    channels = kernel.shape[1] * groups
    layer = PaddedConv(channels, kernel.shape[0], size, stride=stride, groups=groups)
    layer.weight.data = torch.from_numpy(kernel.astype(np.float64))
    layer.bias.data = torch.from_numpy(weights[f"{name}.bias"].astype(np.float64))
    return [layer]


def dense(weights, name):
    """Return a converted dense layer."""
    layer = nn.Linear(*weights[f"{name}.kernel"].shape)
    layer.weight.data = torch.from_numpy(weights[f"{name}.kernel"].T.astype(np.float64).copy())
    layer.bias.data = torch.from_numpy(weights[f"{name}.bias"].astype(np.float64))
    return [layer]


STAGES = {1: (1, 1), 2: (2, 2), 3: (2, 2), 4: (3, 2), 5: (3, 1), 6: (4, 2), 7: (1, 1)}


def lite0(weights):
    """Return EfficientNet-Lite0, for sides that every stride divides."""
    layers = [*conv(weights, "stem", stride=2), nn.ReLU6()]
    for stage, (count, stride) in STAGES.items():
        for index in range(count):
            name = f"block{stage}{'abcd'[index]}"
            inner = []
            if f"{name}.expand.kernel" in weights:
                inner += [*conv(weights, f"{name}.expand"), nn.ReLU6()]
            step = stride if index == 0 else 1
            inner += [*conv(weights, f"{name}.depthwise", stride=step, depthwise=True), nn.ReLU6()]
            inner += conv(weights, f"{name}.project")
            layers += inner if index == 0 else [Residual(nn.Sequential(*inner))]
    layers += [*conv(weights, "conv_head"), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *dense(weights, "logits")).eval()


def vgg16(weights):
    """Return the VGG16 with its medical head."""
    layers = []
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, count + 1):
            layers += [*conv(weights, f"conv{block}_{index}"), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    layers.append(FlattenLast())
    for name in ("fc6", "fc7", "fc8"):
        layers += [*dense(weights, name), nn.ReLU()]
    return nn.Sequential(*layers, *dense(weights, "logits")).eval()


def relevance(net, x, target, composite):
    """Return zennit's attribution [batch, height, width, channels] from 1 at the target."""
    x = torch.from_numpy(x.astype(np.float64).transpose(0, 3, 1, 2).copy())
    with Gradient(net, composite) as attributor:
        _, values = attributor(x, torch.eye(net[-1].out_features)[list(target)])
    return values.detach().numpy().transpose(0, 2, 3, 1).astype(np.float32)


def everywhere(rule):
    """Return a composite with one rule for all layers."""
    return composites.LayerMapComposite(
        [*composites.layer_map_base(), (Linear, rule)], canonizers=[SequentialMergeBatchNorm()]
    )


def single_rules():
    """Return zennit's rules for hidden layers, each for all layers of a network."""
    return {
        "epsilon": everywhere(rules.Epsilon()),
        "epsilon_large": everywhere(rules.Epsilon(0.25)),
        "gamma": everywhere(rules.Gamma()),
        "z_plus": everywhere(rules.ZPlus()),
        "alpha_beta": everywhere(rules.AlphaBeta(2, 1)),
        "w_square": everywhere(rules.WSquare()),
        "flat": everywhere(rules.Flat()),
        "norm": everywhere(rules.Norm()),
    }


def layer_maps(low, high):
    """Return zennit's five composites for inputs between two bounds."""
    merge = {"canonizers": [SequentialMergeBatchNorm()]}
    return {
        "epsilon_plus": composites.EpsilonPlus(**merge),
        "epsilon_plus_flat": composites.EpsilonPlusFlat(**merge),
        "epsilon_gamma_box": composites.EpsilonGammaBox(torch.tensor(low), torch.tensor(high), **merge),
        "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1(**merge),
        "epsilon_alpha2_beta1_flat": composites.EpsilonAlpha2Beta1Flat(**merge),
    }


def blocks(maps, size):
    """Return the sums over channels and over blocks of size x size pixels."""
    n, height, width, _ = maps.shape
    return maps.sum(3).reshape(n, height // size, size, width // size, size).sum((2, 4))


lite_path, vgg_path, out = sys.argv[1:]
arrays = {}

net = small_network()
x = np.random.default_rng(0).normal(size=(2, 20, 16, 3)).astype(np.float32)
target = (3, 1)
for key, value in net.state_dict().items():
    arrays[f"weights.{key}"] = value.numpy().astype(np.float32)
arrays.update(images=x, targets=np.array(target), low=np.float32(-3.5), high=np.float32(4.0))
arrays["scores"] = net(torch.from_numpy(x.astype(np.float64).transpose(0, 3, 1, 2).copy())).detach().numpy()
merge = {"canonizers": [SequentialMergeBatchNorm()]}
box = {"low": torch.tensor(-3.5), "high": torch.tensor(4.0)}
for name, composite in {
    **single_rules(),
    "z_box": composites.SpecialFirstLayerMapComposite(
        [*composites.layer_map_base(), (Linear, rules.Epsilon())], [(Convolution, rules.ZBox(**box))], **merge
    ),
    **layer_maps(-3.5, 4.0),
    "excitation_backprop": composites.ExcitationBackprop(**merge),
    "guided_backprop": composites.GuidedBackprop(),
    "deconvnet": composites.DeconvNet(),
}.items():
    arrays[f"small.{name}"] = relevance(net, x, target, composite)

net = lite0(load_file(lite_path))
x = imagenet(centre("cat", 128))[None]
for name, composite in layer_maps(-2.2, 2.7).items():
    arrays[f"lite0.{name}"] = blocks(relevance(net, x, (285,), composite), 2)
for name in ("w_square", "flat"):  # The rules that no composite has for hidden layers.
    composite = single_rules()[name]
    arrays[f"lite0.{name}"] = blocks(relevance(net, x, (285,), composite), 2)

net = vgg16(load_file(vgg_path))
x = centre("astronaut", 240)[None].astype(np.float32) / 255
for name, composite in (layer_maps(0.0, 1.0) | single_rules()).items():
    arrays[f"vgg16.{name}"] = blocks(relevance(net, x, (2,), composite), 4)

save(
    out,
    command="make_zennit.py on efficientnet_lite0 and vgg16_brain_mri, seed 0, float64",
    packages=("zennit", "torch", "numpy", "scikit-image"),
    **arrays,
)
