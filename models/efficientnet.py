"""EfficientNet-Lite 0 to 4 (Tan and Le 2019, arXiv 1905.11946; the Lite variants: ReLU6, no squeeze-excite).

Batch norms are folded into the convolutions when weights are converted.
"""

import math

from flax import nnx

from .blocks import ConvReLU6, GlobalAveragePool, InvertedBottleneck, Staged
from .layers import Logits

INPUT_SIZES = (224, 240, 260, 280, 300)
_WIDTH = (1.0, 1.0, 1.1, 1.2, 1.4)
_DEPTH = (1.0, 1.1, 1.2, 1.4, 1.8)
# expansion, features, repeats, stride, window of the seven stages
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _TOP = 32, 1280


def round_width(features: int, factor: float, divisor: int = 8) -> int:
    """Scale a width and round it to a multiple of eight, never down by more than a tenth."""
    scaled = features * factor
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


class EfficientNetLite(Staged):
    """An EfficientNet-Lite as a chain of layers: stem, block1a ... block7a, conv_head, pool, logits.

    Args:
        variant: 0 to 4.
        classes: Width of the last layer.
        rngs: Randomness of the initial weights.

    Raises:
        ValueError: If there is no such variant.
    """

    def __init__(self, variant: int, *, classes: int = 1000, rngs: nnx.Rngs):
        if variant not in range(5):
            raise ValueError(f"`variant` must be 0, 1, 2, 3 or 4; got {variant!r}")
        self.add({"stem": ConvReLU6(3, _STEM, stride=2, padding="same", rngs=rngs)})
        channels = _STEM
        for stage, (expansion, features, repeats, stride, window) in enumerate(_STAGES, start=1):
            features = round_width(features, _WIDTH[variant])
            # The first and the last stage of the Lite networks are not deepened.
            count = repeats if stage in (1, 7) else math.ceil(repeats * _DEPTH[variant])
            for index in range(count):
                block = InvertedBottleneck(
                    channels,
                    features,
                    expansion=expansion,
                    stride=stride if index == 0 else 1,
                    window=window,
                    rngs=rngs,
                )
                self.add({f"block{stage}{chr(ord('a') + index)}": block})
                channels = features
        self.add({"conv_head": ConvReLU6(channels, _TOP, window=1, rngs=rngs)})
        self.add({"pool": GlobalAveragePool(), "logits": Logits(_TOP, classes, rngs=rngs)})
