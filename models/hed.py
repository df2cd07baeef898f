"""Holistically nested edge detection (Xie and Tu 2015, arXiv 1504.06375): VGG16 with five side outputs."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .blocks import ConvReLU, MaxPool
from .layers import Conv
from .vgg import CONVOLUTIONS, WIDTHS


class HED(nnx.Module):
    """A network whose scores are a map of edges [batch, height, width], logits.

    Each of VGG16's five blocks has a side output, a 1 x 1 convolution, enlarged to the photo's size; the
    scores are their weighted sum. Explain them with a target such as
    `lambda edges: edges[:, 96:128, 96:128].mean((1, 2))`. It is no chain of layers: `jaxai.layers.find` names
    them.

    Args:
        rngs: Randomness of the initial weights.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        channels, names = 3, []
        for block, (count, features) in enumerate(zip(CONVOLUTIONS[16], WIDTHS, strict=True), start=1):
            for index in range(1, count + 1):
                names.append(f"conv{block}_{index}")
                setattr(self, names[-1], ConvReLU(channels, features, rngs=rngs))
                channels = features
            names.append(f"side{block}")
            setattr(self, names[-1], Conv(features, 1, window=1, rngs=rngs))
        self.fuse = Conv(len(WIDTHS), 1, window=1, rngs=rngs)
        self.pool = MaxPool(padding="same")
        self.names = (*names, "fuse")

    def __call__(self, x: Float[Array, "batch height width 3"]) -> Float[Array, "batch height width"]:
        """Return the logit of an edge at each pixel."""
        size, sides = x.shape[1:3], []
        for name in self.names[:-1]:
            layer = getattr(self, name)
            if name.startswith("side"):
                side = layer(x)
                shape = (len(x), *size, 1)
                sides.append(jax.image.resize(side, shape, "linear", antialias=False))
            else:
                x = layer(self.pool(x) if sides and name.endswith("_1") else x)
        return self.fuse(jnp.concatenate(sides, axis=-1))[..., 0]
