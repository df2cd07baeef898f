"""VGG 11, 13, 16 and 19 (Simonyan and Zisserman 2015, arXiv 1409.1556), equal to torchvision's networks.

Batch norms are folded into the convolutions when weights are converted, so a network with them is the same
network with other weights.
"""

from collections.abc import Sequence

import jax
from flax import nnx

from .blocks import ConvReLU, MaxPool, Staged
from .layers import Dense, Logits, adaptive_average_pool

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
_POOLED = 7


class FlatDenseReLU(Dense):
    """The first dense layer: pools to 7 x 7 positions where there are more, flattens, and its ReLU."""

    def __call__(self, x):
        x = adaptive_average_pool(x, _POOLED)
        return jax.nn.relu(super().__call__(x.reshape(x.shape[0], -1)))


class DenseReLU(Dense):
    """A dense layer and its ReLU."""

    def __call__(self, x):
        return jax.nn.relu(super().__call__(x))


class VGG(Staged):
    """A VGG network as a chain of layers: conv1_1 ... conv5_n, pool1 ... pool5, fc6, fc7, logits.

    Args:
        depth: 11, 13, 16 or 19.
        classes: Width of the last layer; None leaves the classifier out and `pool5` is the output.
        hidden: Widths of the dense layers before it, named fc6, fc7, ...
        rngs: Randomness of the initial weights.

    Raises:
        ValueError: If there is no network of this depth.
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int | None = 1000,
        hidden: Sequence[int] = (4096, 4096),
        rngs: nnx.Rngs,
    ):
        if depth not in CONVOLUTIONS:
            raise ValueError(f"`depth` must be one of {', '.join(map(str, CONVOLUTIONS))}; got {depth!r}")
        channels = 3
        for block, (count, features) in enumerate(zip(CONVOLUTIONS[depth], WIDTHS, strict=True), start=1):
            for index in range(1, count + 1):
                self.add({f"conv{block}_{index}": ConvReLU(channels, features, rngs=rngs)})
                channels = features
            self.add({f"pool{block}": MaxPool()})
        if classes is not None:
            inputs = channels * _POOLED * _POOLED
            for index, features in enumerate(hidden):
                layer = FlatDenseReLU if index == 0 else DenseReLU
                self.add({f"fc{6 + index}": layer(inputs, features, rngs=rngs)})
                inputs = features
            self.add({"logits": Logits(inputs, classes, rngs=rngs)})
