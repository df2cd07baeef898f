"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), equal to torchvision's, timm's and Keras' networks."""

from flax import nnx

from .blocks import ConvReLU6, GlobalAveragePool, InvertedBottleneck, Staged
from .layers import Logits, Pad

# expansion, features, repeats, stride of the seven stages
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _TOP = 32, 1280


class MobileNetV2(Staged):
    """A MobileNetV2 as a chain of layers: features.0 ... features.18, pool, logits.

    Args:
        classes: Width of the last layer; None leaves the classifier out and `pool` is the output.
        padding: "half" as in PyTorch, or "same" as in Keras.
        rngs: Randomness of the initial weights.
    """

    def __init__(self, *, classes: int | None = 1000, padding: Pad = "half", rngs: nnx.Rngs):
        layers: list[nnx.Module] = [ConvReLU6(3, _STEM, stride=2, padding=padding, rngs=rngs)]
        channels = _STEM
        for expansion, features, repeats, stride in _STAGES:
            for index in range(repeats):
                block = InvertedBottleneck(
                    channels,
                    features,
                    expansion=expansion,
                    stride=stride if index == 0 else 1,
                    padding=padding,
                    rngs=rngs,
                )
                layers.append(block)
                channels = features
        layers.append(ConvReLU6(channels, _TOP, window=1, rngs=rngs))
        self.add({f"features.{index}": layer for index, layer in enumerate(layers)})
        self.add({"pool": GlobalAveragePool()})
        if classes is not None:
            self.add({"logits": Logits(_TOP, classes, rngs=rngs)})
