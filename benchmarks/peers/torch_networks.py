"""VGG16 and EfficientNet-Lite0 in PyTorch, with the same weights as the other side, batch norms folded in.

Their ReLUs are modules used once each and in place nowhere, as the peers' hooks need.
"""

import os

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

from .architectures import LITE_BLOCKS, VGG_BLOCKS

DEVICE = torch.device("cuda" if os.environ.get("JAXAI_BENCHMARK_DEVICE") == "gpu" else "cpu")
if DEVICE.type == "cuda":
    torch.set_default_device(DEVICE)
    # PyTorch's defaults differ between convolutions and products; both sides get one setting.
    tf32 = "JAXAI_BENCHMARK_TF32" in os.environ
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def _tensor(array):
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(array)))


def _convolution(arrays, name, *, stride=1, padding=0, groups=1):
    kernel = arrays[f"{name}.kernel"]
    layer = nn.Conv2d(
        kernel.shape[2] * groups, kernel.shape[3], kernel.shape[0], stride, padding, groups=groups
    )
    layer.weight, layer.bias = _tensor(kernel.transpose(3, 2, 0, 1)), _tensor(arrays[f"{name}.bias"])
    return layer


def _dense(kernel, bias):
    layer = nn.Linear(*kernel.shape)
    layer.weight, layer.bias = _tensor(kernel.T), _tensor(bias)
    return layer


def vgg16(arrays):
    """Return VGG16 as torchvision has it, and its last convolution's ReLU."""
    stages, names = [], []
    for block, count in enumerate(VGG_BLOCKS, start=1):
        for index in range(1, count + 1):
            stages += [_convolution(arrays, f"conv{block}_{index}", padding=1), nn.ReLU()]
            names += [None, f"conv{block}_{index}"]
        stages.append(nn.MaxPool2d(2))
        names.append(f"pool{block}")
    # The other side flattens rows, columns, channels; PyTorch channels, rows, columns.
    first = arrays["fc6.kernel"].reshape(7, 7, 512, -1).transpose(2, 0, 1, 3).reshape(25088, -1)
    stages += [
        nn.Flatten(),
        _dense(first, arrays["fc6.bias"]),
        nn.ReLU(),
        _dense(arrays["fc7.kernel"], arrays["fc7.bias"]),
        nn.ReLU(),
        _dense(arrays["logits.kernel"], arrays["logits.bias"]),
    ]
    return nn.Sequential(*stages).eval(), names.index("conv5_3")


class SamePad(nn.Module):
    """TensorFlow's SAME padding before a convolution."""

    def __init__(self, window, stride):
        super().__init__()
        self.window, self.stride = window, stride

    def forward(self, x):
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // self.stride) - 1) * self.stride + self.window - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.pad(x, pads) if any(pads) else x


class Sum(nn.Module):
    """A sum as a module, so that rules can take its place."""

    def forward(self, x, y):
        return x + y


class Block(nn.Module):
    """A mobile inverted bottleneck."""

    def __init__(self, arrays, name, window, stride):
        super().__init__()
        stages = []
        if f"{name}.expand.kernel" in arrays:
            stages += [_convolution(arrays, f"{name}.expand"), nn.ReLU6()]
        groups = arrays[f"{name}.depthwise.kernel"].shape[3]
        stages += [
            SamePad(window, stride),
            _convolution(arrays, f"{name}.depthwise", stride=stride, groups=groups),
            nn.ReLU6(),
            _convolution(arrays, f"{name}.project"),
        ]
        self.body, self.sum = nn.Sequential(*stages), Sum()
        channels = arrays.get(f"{name}.expand.kernel", arrays[f"{name}.depthwise.kernel"])
        inputs = channels.shape[2] if f"{name}.expand.kernel" in arrays else channels.shape[3]
        self.residual = stride == 1 and inputs == arrays[f"{name}.project.kernel"].shape[3]

    def forward(self, x):
        return self.sum(x, self.body(x)) if self.residual else self.body(x)


def efficientnet_lite0(arrays):
    """Return EfficientNet-Lite0 and the index of the ReLU after its last convolution."""
    stages = [SamePad(3, 2), _convolution(arrays, "stem", stride=2), nn.ReLU6()]
    stages += [Block(arrays, f"block{name}", window, stride) for name, window, stride in LITE_BLOCKS]
    stages += [_convolution(arrays, "conv_head"), nn.ReLU6()]
    layer = len(stages) - 1
    stages += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _dense(arrays["logits.kernel"], arrays["logits.bias"])]
    return nn.Sequential(*stages).eval(), layer


_BUILDERS = {"vgg16": vgg16, "efficientnet_lite0": efficientnet_lite0}
_loaded: dict = {}


def load(command, *, change=None):
    """Return the network of a command (tuned: channels last and frozen), its layer, images and classes.

    `change(network)` may replace modules of a network that is made for this command alone.
    """
    name, tuned = command["case"]["network"], command["tuned"]
    dtype = getattr(torch, command["precision"])
    key = (name, tuned, dtype, None if change is None else command["case"]["method"])
    if key not in _loaded:
        _loaded.clear()
        network, layer = _BUILDERS[name](load_file(command["weights"]))
        network = (change(network) if change else network).to(DEVICE, dtype)
        if tuned:
            network = network.to(memory_format=torch.channels_last).requires_grad_(False)
        _loaded[key] = network, layer
    network, layer = _loaded[key]
    batch = command["case"]["batch"]
    images = torch.from_numpy(np.load(command["images"])[:batch].transpose(0, 3, 1, 2).copy())
    images = images.to(DEVICE, dtype)
    if tuned:
        images = images.to(memory_format=torch.channels_last)
    classes = torch.from_numpy(np.load(command["classes"])[:batch].astype(np.int64)).to(DEVICE)
    return network, network[layer], images, classes


def channels_last(array):
    """Return [N, C, H, W] as an array [N, H, W, C]."""
    return array.detach().to(torch.float32).cpu().numpy().transpose(0, 2, 3, 1)


def about():
    """Return what the table says of a PyTorch side."""
    return {"device": DEVICE.type, "threads": torch.get_num_threads()}
