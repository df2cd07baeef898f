"""ResNet 18 to 152 (He et al. 2016, arXiv 1512.03385), wide ones and ResNeXt, equal to torchvision's."""

from flax import nnx

from .blocks import BasicBlock, Bottleneck, ConvReLU, GlobalAveragePool, MaxPool, Staged
from .layers import Logits

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STEM = 64


class ResNet(Staged):
    """A residual network as a chain of layers: conv1, maxpool, layer1.0 ... layer4.2, avgpool, logits.

    Args:
        depth: 18, 34, 50, 101 or 152.
        classes: Width of the last layer; None leaves the classifier out and `avgpool` is the output.
        width: Of the first stage, doubled in each of the next three; blocks of 50 layers and more return four
            times as many channels.
        inner: Channels of the 3 x 3 convolutions of those blocks, relative to `width` (2 in the wide ones).
        groups: Of their 3 x 3 convolutions (ResNeXt).
        caffe: Whether strides stand in the first convolution of a block, and the pool pads after alone.
        rngs: Randomness of the initial weights.

    Raises:
        ValueError: If there is no network of this depth.
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int | None = 1000,
        width: int = 64,
        inner: int = 1,
        groups: int = 1,
        caffe: bool = False,
        rngs: nnx.Rngs,
    ):
        if depth not in _BLOCKS:
            raise ValueError(f"`depth` must be one of {', '.join(map(str, _BLOCKS))}; got {depth!r}")
        self.add({"conv1": ConvReLU(3, _STEM, window=7, stride=2, rngs=rngs)})
        self.add({"maxpool": MaxPool(3, 2, "same" if caffe else "half")})
        block = BasicBlock if depth < 50 else Bottleneck
        options = {} if depth < 50 else {"groups": groups, "stride_first": caffe}
        channels = _STEM
        for stage, count in enumerate(_BLOCKS[depth]):
            planes = width << stage
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                features = planes * block.expansion
                layer = block(channels, planes * inner, features, stride=stride, **options, rngs=rngs)
                self.add({f"layer{stage + 1}.{index}": layer})
                channels = features
        self.add({"avgpool": GlobalAveragePool()})
        if classes is not None:
            self.add({"logits": Logits(channels, classes, rngs=rngs)})
