"""The reference networks in PyTorch, cut into modules whose outputs are the layers of the ports."""

import onnx
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn


class Lite0(nn.Module):
    """EfficientNet-Lite0: lower (to block6d), upper (to conv_head), then the pooled linear head."""

    def __init__(self, path):
        super().__init__()
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        blocks = list(network._blocks)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.first = blocks[0]
        self.middle = nn.Sequential(*blocks[1:15])
        self.upper = nn.Sequential(blocks[15], network._conv_head, network._bn1, nn.ReLU6())
        self.linear = network._fc
        self.eval()

    def acts(self, x):
        return self.upper(self.middle(self.first(self.stem(x))))

    def head(self, acts):
        return self.linear(acts.mean((2, 3)))

    def forward(self, x):
        return self.head(self.acts(x))


class VggMri(nn.Module):
    """The medical VGG16 of the ONNX file; takes what its convolutions take and flattens as Keras does."""

    def __init__(self, path):
        super().__init__()
        graph = onnx.load(path).graph
        arrays = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
        layers, channels = [], 3
        for block, (count, width) in enumerate(
            zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True), start=1
        ):
            for index in range(1, count + 1):
                conv = nn.Conv2d(channels, width, 3, padding=1)
                prefix = f"functional_1/block{block}_conv{index}_1"
                conv.weight = nn.Parameter(arrays[f"{prefix}/convolution/ReadVariableOp:0"])
                conv.bias = nn.Parameter(arrays[f"{prefix}/Squeeze:0"])
                layers += [conv, nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.pool = layers[-1]
        self.dense = nn.ModuleList()
        for name in ("dense_1", "dense_1_2", "dense_2_1", "dense_3_1"):
            kernel = arrays[f"functional_1/{name}/Cast/ReadVariableOp:0"]
            layer = nn.Linear(*kernel.shape)
            layer.weight = nn.Parameter(kernel.T.contiguous())
            layer.bias = nn.Parameter(arrays[f"functional_1/{name}/BiasAdd/ReadVariableOp:0"])
            self.dense.append(layer)
        for index, name in enumerate(("batch_normalization_1", "batch_normalization_1_2")):
            self.register_buffer(f"scale{index}", arrays[f"functional_1/{name}/batchnorm/mul:0"])
            self.register_buffer(f"shift{index}", arrays[f"functional_1/{name}/batchnorm/sub:0"])
        self.eval()

    def acts(self, x):
        return self.features(x)

    def head(self, acts):
        x = self.pool(acts).permute(0, 2, 3, 1).flatten(1)
        for index, layer in enumerate(self.dense[:-1]):
            x = torch.relu(layer(x))
            if index < 2:
                x = x * getattr(self, f"scale{index}") + getattr(self, f"shift{index}")
        return self.dense[-1](x)

    def forward(self, x):
        return self.head(self.acts(x))
