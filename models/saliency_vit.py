"""DINOv2's small transformer with a decoder of three transposed convolutions: a map of what stands out."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from .blocks import Staged
from .layers import Conv
from .vit import VisionTransformer

_WIDTHS = (256, 128, 64)
_IMAGE = 518


class Grid(nnx.Module):
    """The patches' tokens as [batch, rows, columns, width], without the class token."""

    def __call__(self, x):
        batch, tokens, width = x.shape
        side = round((tokens - 1) ** 0.5)
        return x[:, 1:].reshape(batch, side, side, width)


class UpConvReLU(nnx.Module):
    """A transposed convolution with windows of 4 and stride 2, which doubles both sides, and its ReLU."""

    def __init__(self, channels: int, features: int, *, rngs: nnx.Rngs):
        shape = (4, 4, channels, features)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape) * (1 / (8 * channels)) ** 0.5)
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))

    def __call__(self, x):
        kernel = self.kernel[...]
        y = lax.conv_general_dilated(
            x.astype(kernel.dtype),
            kernel,
            (1, 1),
            ((2, 2), (2, 2)),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jax.nn.relu(y + self.bias[...])


class Enlarged(Conv):
    """A 1 x 1 convolution to one channel, enlarged to the photo's size: [batch, height, width]."""

    def __init__(self, channels: int, *, patch: int, rngs: nnx.Rngs):
        super().__init__(channels, 1, window=1, rngs=rngs)
        self.patch = patch

    def __call__(self, x):
        y = super().__call__(x)[..., 0]
        rows, columns = (size // 8 * self.patch for size in y.shape[1:])
        return jax.image.resize(y, (y.shape[0], rows, columns), "linear", antialias=False)


class SaliencyViT(Staged):
    """A small transformer and a decoder: patch_embed, blocks.0 ... norm, grid, upconv1 ... upconv3, logits.

    Scores are maps [batch, height, width], logits of a pixel's saliency: explain them with a target such as
    `lambda maps: maps[:, 96:128, 96:128].mean((1, 2))`. Photos are squares.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        body = VisionTransformer("small", patch=14, image=_IMAGE, classes=None, rngs=rngs)
        self.add({name: getattr(body, name) for name in body.layer_names if name != "pool"})
        self.add({"grid": Grid()})
        channels = 384
        for index, features in enumerate(_WIDTHS, start=1):
            self.add({f"upconv{index}": UpConvReLU(channels, features, rngs=rngs)})
            channels = features
        self.add({"logits": Enlarged(channels, patch=14, rngs=rngs)})
