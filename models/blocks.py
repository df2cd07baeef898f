"""Building blocks of the networks: layers with activations, residual blocks, attention.

A network is a chain of named stages, `Staged`; blocks are stages or parts of them. Batch norms and the scales
of residual branches are folded into the neighbouring layer when weights are converted.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..layers import run_stages
from .layers import Conv, Dense, DepthwiseConv, LayerNorm, Pad, around, max_pool, relu6


class Staged(nnx.Module):
    """A layered model: stages, one after the other, under the names in `layer_names`."""

    def add(self, stages: Mapping[str, Any]) -> None:
        """Append stages."""
        for name, stage in stages.items():
            setattr(self, name, stage)
        self.layer_names = (*getattr(self, "layer_names", ()), *stages)

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        start: str | None = None,
        stop: str | None = None,
    ) -> Float[Array, "batch *rest"]:
        """Run the layers after `start` up to and including `stop`; without them, images to the output."""
        stages = [getattr(self, name) for name in self.layer_names]
        return run_stages(self.layer_names, stages, x, start, stop)


class ConvReLU(Conv):
    """A convolution and its ReLU."""

    def __call__(self, x):
        return jax.nn.relu(super().__call__(x))


class ConvReLU6(Conv):
    """A convolution and its ReLU6."""

    def __call__(self, x):
        return relu6(super().__call__(x))


class MaxPool(nnx.Module):
    """The maximum of windows; by default 2 x 2 without overlap."""

    def __init__(self, window: int = 2, stride: int | None = None, padding: Pad = "valid"):
        self.window, self.stride = window, stride or window
        self.padding: Pad = padding

    def __call__(self, x):
        padding = around(x.shape, self.window, self.stride, self.padding)
        return max_pool(x, window=self.window, stride=self.stride, padding=padding)


class GlobalAveragePool(nnx.Module):
    """The mean over all positions: [batch, channels]."""

    def __call__(self, x):
        return x.mean((1, 2))


class BasicBlock(nnx.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016)."""

    expansion = 1

    def __init__(self, channels: int, width: int, features: int, *, stride: int, rngs: nnx.Rngs):
        self.conv1 = ConvReLU(channels, width, stride=stride, rngs=rngs)
        self.conv2 = Conv(width, features, rngs=rngs)
        self.downsample = _shortcut(channels, features, stride, rngs)

    def __call__(self, x):
        y = self.conv2(self.conv1(x))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """Convolutions of 1, 3 and 1 beside a shortcut (He et al. 2016).

    Args:
        channels: Of its input.
        width: Of the 3 x 3 convolution.
        features: Of its output.
        stride: Of the 3 x 3 convolution, or of the first if `stride_first` (the networks of 2015).
        groups: Of the 3 x 3 convolution.
        stride_first: Which convolution has the stride.
        rngs: Randomness of the initial weights.
    """

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        features: int,
        *,
        stride: int,
        groups: int = 1,
        stride_first: bool = False,
        rngs: nnx.Rngs,
    ):
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = ConvReLU(channels, width, window=1, stride=first, rngs=rngs)
        self.conv2 = ConvReLU(width, width, stride=second, groups=groups, rngs=rngs)
        self.conv3 = Conv(width, features, window=1, rngs=rngs)
        self.downsample = _shortcut(channels, features, stride, rngs)

    def __call__(self, x):
        y = self.conv3(self.conv2(self.conv1(x)))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(channels, features, stride, rngs):
    if stride == 1 and channels == features:
        return None
    return Conv(channels, features, window=1, stride=stride, rngs=rngs)


class InvertedBottleneck(nnx.Module):
    """Expand, depthwise, project, and a sum where shapes allow (Sandler et al. 2018).

    Args:
        channels: Of its input.
        features: Of its output.
        expansion: From `channels` to those of the depthwise convolution; 1 leaves the expansion out.
        stride: Of the depthwise convolution.
        window: Of the depthwise convolution.
        padding: Of the depthwise convolution, as in `Conv`.
        rngs: Randomness of the initial weights.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        expansion: int,
        stride: int,
        window: int = 3,
        padding: Pad = "same",
        rngs: nnx.Rngs,
    ):
        inner = channels * expansion
        if expansion > 1:
            self.expand = ConvReLU6(channels, inner, window=1, rngs=rngs)
        self.depthwise = DepthwiseConv(inner, window=window, stride=stride, padding=padding, rngs=rngs)
        self.project = Conv(inner, features, window=1, rngs=rngs)
        self.expands, self.residual = expansion > 1, stride == 1 and channels == features

    def __call__(self, x):
        y = self.expand(x) if self.expands else x
        y = self.project(relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MLP(nnx.Module):
    """Two dense layers with an exact GELU in between."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.fc1 = Dense(width, 4 * width, rngs=rngs)
        self.fc2 = Dense(4 * width, width, rngs=rngs)

    def __call__(self, x):
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class ConvNeXtBlock(nnx.Module):
    """A 7 x 7 depthwise convolution, a norm and an MLP beside a shortcut (Liu et al. 2022)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv_dw = DepthwiseConv(width, window=7, padding="half", rngs=rngs)
        self.norm = LayerNorm(width)
        self.mlp = MLP(width, rngs=rngs)

    def __call__(self, x):
        return x + self.mlp(self.norm(self.conv_dw(x)))


class Attention(nnx.Module):
    """Multi-head self-attention over tokens [batch, tokens, width]."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.qkv = Dense(width, 3 * width, rngs=rngs)
        self.proj = Dense(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x):
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = (parts[:, :, i] for i in range(3))
        logits = jnp.einsum("bqhd,bkhd->bhqk", query * (width // self.heads) ** -0.5, key)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1), value)
        return self.proj(mixed.reshape(x.shape))


class TransformerBlock(nnx.Module):
    """Attention and an MLP, each after a norm and beside a shortcut (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.attn = Attention(width, heads, rngs=rngs)
        self.mlp = MLP(width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
