"""Small networks of PyTorch, one for each way of building them, and their export to ONNX.

Needs torch and onnxscript: the `reference` group.
"""

import re
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 5


def conv_norm(inputs, outputs, act=nn.ReLU, **options):
    window = options.pop("window", 3)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, window, padding=window // 2, bias=False, **options),
        nn.BatchNorm2d(outputs),
        act(),
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.pool = conv_norm(3, 8), nn.MaxPool2d(3, 2, 1)
        self.conv2, self.conv3 = conv_norm(8, 8), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.pool(self.conv1(x))
        x = F.relu(x + self.conv3(self.conv2(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inverted(nn.Module):
    """Depthwise convolutions, squeeze and excitation, hard activations."""

    def __init__(self):
        super().__init__()
        self.expand = conv_norm(3, 12, nn.ReLU6, stride=2)
        self.depth = conv_norm(12, 12, nn.Hardswish, groups=12)
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.project = nn.Conv2d(12, 12, 1)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.expand(x)
        y = self.depth(x)
        share = F.hardsigmoid(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))
        x = x + self.project(y * share)
        return self.fc(F.hardswish(x).mean((2, 3)))


class Dense(nn.Module):
    """Concatenated features and average pools."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = conv_norm(3, 4), conv_norm(4, 4), conv_norm(8, 4)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.pool(self.stem(x))
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(x)], 1)
        return self.fc(F.avg_pool2d(x, 2).amax((2, 3)))


class Segmenter(nn.Module):
    """Transposed convolutions, enlarged and joined maps: scores for each pixel."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv_norm(3, 6), conv_norm(6, 8, stride=2)
        self.down3, self.up = conv_norm(8, 8, stride=2), nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.last = nn.Conv2d(14, CLASSES, 1)

    def forward(self, x):
        one = self.down1(x)
        two = self.up(self.down3(self.down2(one)))
        two = F.interpolate(two, scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(torch.cat([one, two], 1))


class Dilated(nn.Module):
    """Dilated and grouped convolutions, other paddings and activations."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=2, dilation=2, padding_mode="reflect")
        self.two = nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=4)
        self.act, self.fc = nn.PReLU(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.elu(self.one(x))
        x = self.act(self.two(F.pad(x, (1, 0, 0, 1))))
        return self.fc(F.leaky_relu(x, 0.1).mean((2, 3)))


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.instance, self.group = nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(2, 8)
        self.layer, self.fc = nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.silu(self.instance(self.conv1(x)))
        x = F.softplus(self.group(self.conv2(x)))
        return self.fc(self.layer(F.adaptive_avg_pool2d(x, 1).flatten(1)))


class Encoder(nn.Module):
    """PyTorch's own transformer, with a class token."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.places = nn.Parameter(torch.zeros(1, 17, 12))
        layer = nn.TransformerEncoderLayer(12, 3, 24, activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.ModuleList([layer, nn.TransformerEncoderLayer(12, 3, 24, batch_first=True)])
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.fc(self.norm(x)[:, 0])


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0))
        return x + self.out(y.transpose(1, 2).flatten(2))


class ViT(nn.Module):
    """A transformer as timm writes it, whose head reads the mean of the patches."""

    def __init__(self, patch=4, grid=(4, 4)):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, patch, patch)
        self.places = nn.Parameter(torch.zeros(1, grid[0] * grid[1], 12))
        self.blocks = nn.ModuleList([Attention(12, 3), Attention(12, 3)])
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        x = x + self.down(F.gelu(self.up(x)))
        return self.fc(x.mean(1))


class Mixer(nn.Module):
    """Products over tokens and over channels."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.tokens, self.channels = nn.Linear(16, 16), nn.Linear(8, 8)
        self.norm1, self.norm2, self.fc = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + F.gelu(self.tokens(self.norm1(x).transpose(1, 2))).transpose(1, 2)
        x = x + F.gelu(self.channels(self.norm2(x)), approximate="tanh")
        return self.fc(x.mean(1))


class Windows(nn.Module):
    """Shifted windows and merged patches, as Swin has them."""

    def __init__(self):
        super().__init__()
        self.patches, self.attention = nn.Conv2d(3, 12, 2, 2), Attention(12, 3)
        self.merge, self.fc = nn.Linear(48, 16, bias=False), nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        x = torch.roll(x, (-1, -1), (1, 2))
        x = x.reshape(-1, 2, 4, 2, 4, 12).transpose(2, 3).reshape(-1, 16, 12)
        x = self.attention(x)
        x = x.reshape(-1, 2, 2, 4, 4, 12).transpose(2, 3).reshape(-1, 8, 8, 12)
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return self.fc(self.merge(x).mean((1, 2)))


class Gated(nn.Module):
    """Gates, splits, pixel shuffles, and what is clamped."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.conv3, self.fc = nn.Conv2d(4, 6, 1), nn.Linear(3, CLASSES)

    def forward(self, x):
        x = F.glu(self.conv1(x), 1)
        x = F.pixel_shuffle(self.conv2(x), 2)
        one, two = self.conv3(x).chunk(2, 1)
        x = torch.sigmoid(one) * torch.tanh(two).clamp(-0.5, 0.9)
        return F.log_softmax(self.fc(x.square().mean((2, 3)).sqrt()), 1)


class ConvNeXtBlock(nn.Module):
    """Large depthwise windows, norms of channels last, scales of branches."""

    def __init__(self):
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8, 1e-6), nn.Linear(8, 32), nn.Linear(32, 8)
        self.gamma, self.fc = nn.Parameter(torch.ones(8)), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        x = x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)
        return self.fc(x.mean((-2, -1)))


SMALL = (
    *(Residual, Inverted, Dense, Segmenter, Dilated, Norms, Encoder, ViT, Mixer, Windows, Gated),
    ConvNeXtBlock,
)


def randomized(network, seed=0):
    """Give a network random parameters and statistics that keep its activations in range."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            draw = torch.rand(tensor.shape, generator=generator)
            if tensor.ndim < 2 or re.search("gamma|layer_scale", name):
                # Scales and variances are positive; biases and means are small.
                positive = re.search("weight|var|gamma|scale", name)
                tensor.copy_(0.5 + 0.5 * draw if positive else 0.2 * (draw - 0.5))
            elif re.search("token|pos_embed|places", name):
                tensor.copy_(draw - 0.5)
            else:
                tensor.copy_((draw - 0.5) * (12 / tensor[0].numel()) ** 0.5)
    return network.eval()


def export(network, path, size, *, dynamo=False, opset=17):
    """Write a network as an ONNX file of a free batch, by PyTorch's new exporter or by its old one."""
    example = torch.zeros(2, 3, *size)
    names = {"input_names": ["images"], "output_names": ["scores"]}
    if dynamo:
        names |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
        opset = max(opset, 18)
    else:
        names |= {"dynamic_axes": {"images": {0: "batch"}, "scores": {0: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (example,), str(path), opset_version=opset, dynamo=dynamo, **names)
    return path


def by_runtime(path, images):
    """Return what ONNX Runtime gives for images [batch, height, width, 3]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = np.ascontiguousarray(np.moveaxis(np.asarray(images, np.float32), -1, 1))
    return session.run(None, {session.get_inputs()[0].name: given})[0]
