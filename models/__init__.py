"""Image networks in Flax NNX with real weights.

`load(name)` returns a `Pretrained` network, `names()` lists the networks, `fetch(name)` gets weights;
`from_onnx(path)` reads a network from an ONNX file. `VGG`, `ResNet`, `MobileNetV2`, `EfficientNetLite`,
`ConvNeXt` and `VisionTransformer` are the network classes, layered models with folded batch norms. `fit`
reads whole photos; `PhotoNote` warns of what it may have misinterpreted.
"""

from .convnext import ConvNeXt
from .crop import PhotoNote, fit
from .efficientnet import EfficientNetLite
from .imported import from_onnx
from .mobilenet import MobileNetV2
from .pretrained import Listing, Pretrained, fetch, load, names
from .resnet import ResNet
from .vgg import VGG
from .vit import VisionTransformer

__all__ = [
    "VGG",
    "ConvNeXt",
    "EfficientNetLite",
    "Listing",
    "MobileNetV2",
    "PhotoNote",
    "Pretrained",
    "ResNet",
    "VisionTransformer",
    "fetch",
    "fit",
    "from_onnx",
    "load",
    "names",
]
