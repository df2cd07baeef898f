"""EfficientNet-Lite 0 to 4 (Tan and Le 2019, arXiv 1905.11946; the Lite variants: ReLU6, no squeeze-excite).

Batch norms are folded into the convolutions when weights are converted.
"""

import math

from flax import nnx
from jaxtyping import Array, Float

from ..layers import run_stages
from .layers import Conv, DepthwiseConv, Logits, relu6

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


class ConvReLU6(Conv):
    """A convolution and its ReLU6."""

    def __call__(self, x):
        return relu6(super().__call__(x))


class Block(nnx.Module):
    """A mobile inverted bottleneck: expand, depthwise, project, and a sum where shapes allow."""

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        expansion: int,
        stride: int,
        window: int,
        rngs: nnx.Rngs,
    ):
        inner = channels * expansion
        if expansion > 1:
            self.expand = ConvReLU6(channels, inner, window=1, same=True, rngs=rngs)
        self.depthwise = DepthwiseConv(inner, window=window, stride=stride, rngs=rngs)
        self.project = Conv(inner, features, window=1, same=True, rngs=rngs)
        self.expands, self.residual = expansion > 1, stride == 1 and channels == features

    def __call__(self, x):
        y = self.expand(x) if self.expands else x
        y = self.project(relu6(self.depthwise(y)))
        return x + y if self.residual else y


class GlobalAveragePool(nnx.Module):
    """The mean over all positions: [batch, channels]."""

    def __call__(self, x):
        return x.mean((1, 2))


class EfficientNetLite(nnx.Module):
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
        names = ["stem"]
        self.stem = ConvReLU6(3, _STEM, stride=2, same=True, rngs=rngs)
        channels = _STEM
        for stage, (expansion, features, repeats, stride, window) in enumerate(_STAGES, start=1):
            features = round_width(features, _WIDTH[variant])
            # The first and the last stage of the Lite networks are not deepened.
            count = repeats if stage in (1, 7) else math.ceil(repeats * _DEPTH[variant])
            for index in range(count):
                names.append(f"block{stage}{chr(ord('a') + index)}")
                block = Block(
                    channels,
                    features,
                    expansion=expansion,
                    stride=stride if index == 0 else 1,
                    window=window,
                    rngs=rngs,
                )
                setattr(self, names[-1], block)
                channels = features
        self.conv_head = ConvReLU6(channels, _TOP, window=1, same=True, rngs=rngs)
        self.pool = GlobalAveragePool()
        self.logits = Logits(_TOP, classes, rngs=rngs)
        self.layer_names = (*names, "conv_head", "pool", "logits")

    def __call__(
        self,
        x: Float[Array, "batch height width 3"],
        *,
        start: str | None = None,
        stop: str | None = None,
    ) -> Float[Array, "batch *rest"]:
        """Run the layers after `start` up to and including `stop`; without them, images to logits."""
        stages = [getattr(self, name) for name in self.layer_names]
        return run_stages(self.layer_names, stages, x, start, stop)
