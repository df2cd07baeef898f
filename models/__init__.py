"""Image networks in Flax NNX with real weights.

`load(name)` returns a `Pretrained` network and `names()` what there is; `from_onnx(path)` reads one from an
ONNX file. `VGG` and `EfficientNetLite` are the networks themselves, layered models with batch norms folded
away. `fit` reads whole photos; `PhotoNote` is the warning of what it may have misunderstood.
"""

from .crop import PhotoNote, fit
from .efficientnet import EfficientNetLite
from .imported import from_onnx
from .pretrained import Listing, Pretrained, load, names
from .vgg import VGG

__all__ = [
    "VGG",
    "EfficientNetLite",
    "Listing",
    "PhotoNote",
    "Pretrained",
    "fit",
    "from_onnx",
    "load",
    "names",
]
