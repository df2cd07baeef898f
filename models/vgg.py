"""VGG 11, 13, 16 and 19 (Simonyan and Zisserman 2015, arXiv 1409.1556), equal to torchvision's networks.

Batch norms are folded into the convolutions when weights are converted, so a network with them is the same
network with other weights.
"""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from ..layers import run_stages
from .layers import Conv, Dense, Logits, adaptive_average_pool, max_pool

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
_POOLED = 7


class ConvReLU(Conv):
    """A convolution and its ReLU."""

    def __call__(self, x):
        return jax.nn.relu(super().__call__(x))


class MaxPool(nnx.Module):
    """A 2 x 2 maximum."""

    def __call__(self, x):
        return max_pool(x, window=2)


class FlatDenseReLU(Dense):
    """The first dense layer: pools to 7 x 7 positions where there are more, flattens, and its ReLU."""

    def __call__(self, x):
        x = adaptive_average_pool(x, _POOLED)
        return jax.nn.relu(super().__call__(x.reshape(x.shape[0], -1)))


class DenseReLU(Dense):
    """A dense layer and its ReLU."""

    def __call__(self, x):
        return jax.nn.relu(super().__call__(x))


class VGG(nnx.Module):
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
        names, channels = [], 3
        for block, (count, features) in enumerate(zip(CONVOLUTIONS[depth], WIDTHS, strict=True), start=1):
            for index in range(1, count + 1):
                names.append(f"conv{block}_{index}")
                setattr(self, names[-1], ConvReLU(channels, features, rngs=rngs))
                channels = features
            names.append(f"pool{block}")
            setattr(self, names[-1], MaxPool())
        if classes is not None:
            inputs = channels * _POOLED * _POOLED
            for index, features in enumerate(hidden):
                names.append(f"fc{6 + index}")
                layer = FlatDenseReLU if index == 0 else DenseReLU
                setattr(self, names[-1], layer(inputs, features, rngs=rngs))
                inputs = features
            names.append("logits")
            self.logits = Logits(inputs, classes, rngs=rngs)
        self.layer_names = tuple(names)

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
