"""Vision transformers (Dosovitskiy et al. 2021, arXiv 2010.11929): ViT, DeiT, DINOv2, with registers too.

They are equal to timm's and torchvision's networks on images of the size that they were trained on. Other
sizes have other grids of patches, for which the positions are interpolated as PyTorch's `bicubic` does.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from .blocks import Staged, TransformerBlock
from .layers import Conv, LayerNorm, Logits

# width, blocks, heads
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_A = -0.75


def cubic(length: int, size: int) -> np.ndarray:
    """Return the matrix [size, length] of cubic interpolation, half-pixel centres, as PyTorch has it.

    Kernel: Keys 1981, eq. 4 with a = -0.75; not widened when it shrinks, borders repeated.
    """
    places = (np.arange(size) + 0.5) * length / size - 0.5
    first = np.floor(places).astype(int) - 1
    matrix = np.zeros((size, length))
    for tap in range(4):
        t = np.abs(places - first - tap)
        near = (_A + 2) * t**3 - (_A + 3) * t**2 + 1
        far = _A * (t**3 - 5 * t**2 + 8 * t - 4)
        np.add.at(
            matrix,
            (np.arange(size), np.clip(first + tap, 0, length - 1)),
            np.where(t <= 1, near, np.where(t < 2, far, 0.0)),
        )
    return matrix


class PatchEmbed(Conv):
    """Patches as tokens, with their positions, behind the class token and the registers.

    Args:
        width: Channels of a token.
        patch: Rows and columns of a patch.
        grid: Rows and columns of positions.
        registers: Further tokens that belong to no patch (Darcet et al. 2024, arXiv 2309.16588).
        rngs: Randomness of the initial weights.
    """

    def __init__(self, width: int, *, patch: int, grid: int, registers: int = 0, rngs: nnx.Rngs):
        super().__init__(3, width, window=patch, stride=patch, padding="valid", rngs=rngs)
        # The class token holds its position.
        self.tokens = nnx.Param(jnp.zeros((1 + registers, width), jnp.float32))
        self.positions = nnx.Param(jnp.zeros((grid * grid, width), jnp.float32))
        self.grid = grid

    def __call__(self, x):
        x = super().__call__(x)
        batch, rows, columns, width = x.shape
        positions = self.positions[...]
        if (rows, columns) != (self.grid, self.grid):
            square = positions.reshape(self.grid, self.grid, width)
            down, across = (jnp.asarray(cubic(self.grid, n), square.dtype) for n in (rows, columns))
            positions = jnp.einsum("ih,hwc,jw->ijc", down, square, across).reshape(-1, width)
        x = x.reshape(batch, rows * columns, width) + positions
        tokens = self.tokens[...]
        return jnp.concatenate([jnp.broadcast_to(tokens, (batch, *tokens.shape)), x], axis=1)


class ClassToken(nnx.Module):
    """The first token: [batch, width]."""

    def __call__(self, x):
        return x[:, 0]


class VisionTransformer(Staged):
    """A vision transformer as a chain of layers: patch_embed, blocks.0 ... blocks.11, norm, pool, logits.

    The scores depend on the class token alone, so the last block's other tokens do not reach them: the layer
    that methods explain by default is the block before.

    Args:
        size: "tiny", "small", "base" or "large".
        patch: Rows and columns of a patch.
        image: Side of the images that the positions are for.
        registers: How many register tokens there are.
        classes: Width of the last layer; None leaves the classifier out and `pool` is the output.
        rngs: Randomness of the initial weights.

    Raises:
        ValueError: If there is no such size, or patches do not fill the images.
    """

    def __init__(
        self,
        size: str,
        *,
        patch: int = 16,
        image: int = 224,
        registers: int = 0,
        classes: int | None = 1000,
        rngs: nnx.Rngs,
    ):
        if size not in SIZES:
            raise ValueError(f"`size` must be one of {', '.join(SIZES)}; got {size!r}")
        if image % patch:
            raise ValueError(f"`image` must be a multiple of `patch`, {patch}; got {image}")
        width, depth, heads = SIZES[size]
        grid = image // patch
        embed = PatchEmbed(width, patch=patch, grid=grid, registers=registers, rngs=rngs)
        self.add({"patch_embed": embed})
        self.add({f"blocks.{index}": TransformerBlock(width, heads, rngs=rngs) for index in range(depth)})
        self.add({"norm": LayerNorm(width), "pool": ClassToken()})
        if classes is not None:
            self.add({"logits": Logits(width, classes, rngs=rngs)})

    def _blocks(self):
        return [name for name in self.layer_names if name.startswith("blocks.")]

    def default_layer(self, images: Any) -> str:
        """Return the last layer whose positions reach the scores."""
        return self._blocks()[-2]

    def reaches(self, layer: str, images: Any) -> bool:
        """Return whether the scores depend on a layer's positions, and not on the class token alone."""
        return layer not in (self._blocks()[-1], "norm")
