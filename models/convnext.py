"""ConvNeXt T, S, B and L (Liu et al. 2022, arXiv 2201.03545), equal to torchvision's and timm's networks."""

from flax import nnx

from .blocks import ConvNeXtBlock, GlobalAveragePool, Staged
from .layers import Conv, LayerNorm, Logits

_SIZES = {
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
}


class Patches(nnx.Module):
    """The stem: a convolution whose windows do not overlap, and a norm."""

    def __init__(self, channels: int, features: int, *, window: int, rngs: nnx.Rngs):
        self.conv = Conv(channels, features, window=window, stride=window, padding="valid", rngs=rngs)
        self.norm = LayerNorm(features)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Downsample(nnx.Module):
    """Between stages: a norm and a 2 x 2 convolution with stride 2."""

    def __init__(self, channels: int, features: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(channels)
        self.conv = Conv(channels, features, window=2, stride=2, padding="valid", rngs=rngs)

    def __call__(self, x):
        return self.conv(self.norm(x))


class ConvNeXt(Staged):
    """A ConvNeXt as a chain of layers, by timm's names: stem, stages.0.blocks.0 ..., pool, norm, logits.

    Args:
        size: "tiny", "small", "base" or "large".
        classes: Width of the last layer.
        rngs: Randomness of the initial weights.

    Raises:
        ValueError: If there is no such size.
    """

    def __init__(self, size: str, *, classes: int = 1000, rngs: nnx.Rngs):
        if size not in _SIZES:
            raise ValueError(f"`size` must be one of {', '.join(_SIZES)}; got {size!r}")
        counts, width = _SIZES[size]
        self.add({"stem": Patches(3, width, window=4, rngs=rngs)})
        for stage, count in enumerate(counts):
            if stage > 0:
                self.add({f"stages.{stage}.downsample": Downsample(width, 2 * width, rngs=rngs)})
                width *= 2
            self.add({f"stages.{stage}.blocks.{i}": ConvNeXtBlock(width, rngs=rngs) for i in range(count)})
        self.add({"pool": GlobalAveragePool(), "norm": LayerNorm(width)})
        self.add({"logits": Logits(width, classes, rngs=rngs)})
