"""Layers of the ports: convolutions, depthwise convolutions, pools and dense layers of `jaxai._cpu`.

Pools are comparisons of strided slices, which are fast on the CPU and route the gradient of
tied values to the first, as PyTorch does.

`conv`, `depthwise_conv` and `max_pool` are compiled calls that are marked as the one operation of JAX that
they compute, so that readers of programs see each as that operation.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Real

from .._cpu import conv as _conv
from .._cpu import dense as _dense
from .._cpu.relu6 import relu6 as relu6
from .._program import marks

Padding = tuple[tuple[int, int], tuple[int, int]]
Pad = Literal["half", "same", "valid"]


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding of one axis: (before, after), the larger half after."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


@partial(jax.jit, static_argnames=("strides", "padding", "groups"))
def conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels_per_group features"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
) -> Float[Array, "batch h w features"]:
    """Convolve images with a kernel; its input gradient is fast inside loops on every platform.

    Args:
        x: Images or activations, NHWC.
        kernel: HWIO.
        strides: Rows, columns.
        padding: Zeros before and after, for rows and columns.
        groups: Of channels, each with kernels of its own.
    """
    return _marked_conv(x, kernel, _conv.Settings(strides, padding, (1, 1), groups))


def _marked_conv(x, kernel, settings):
    standard = partial(
        lax.conv_general_dilated,
        window_strides=settings.strides,
        padding=settings.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=settings.groups,
    )
    return marks.layer(_conv.convolve(x, kernel, settings), (x, kernel), standard)


@partial(jax.jit, static_argnames=("strides", "padding"))
def depthwise_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns 1 channels"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
) -> Float[Array, "batch h w channels"]:
    """Convolve each channel with its own window: shifted products on the CPU, one convolution elsewhere."""
    return _marked_conv(x, kernel, _conv.Settings(strides, padding, (1, 1), groups=x.shape[-1]))


@partial(jax.jit, static_argnames=("window", "stride", "padding"))
def max_pool(
    x: Real[Array, "batch height width channels"],
    *,
    window: int = 2,
    stride: int | None = None,
    padding: Padding = ((0, 0), (0, 0)),
) -> Real[Array, "batch h w channels"]:
    """Take the maximum of windows; rows and columns that fill no window are dropped.

    The gradient goes to the first of tied values in row-major order, as in PyTorch.

    Args:
        x: Activations, NHWC.
        window: Rows and columns of a window.
        stride: From a window to the next; None for windows without overlap.
        padding: Rows and columns before and after, which never are the maximum.
    """
    step = stride or window
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = np.array(-np.inf if floating else jnp.iinfo(x.dtype).min, x.dtype)
    full = lax.pad(x, lowest, [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)])
    rows, columns = ((size - window) // step + 1 for size in full.shape[1:3])
    best = None
    for i in range(window):
        for j in range(window):
            part = full[:, i : i + (rows - 1) * step + 1 : step, j : j + (columns - 1) * step + 1 : step]
            best = part if best is None else jnp.where(best >= part, best, part)
    size, steps = (1, window, window, 1), (1, step, step, 1)
    around = ((0, 0), *padding, (0, 0))
    return marks.layer(best, (x,), lambda x: lax.reduce_window(x, lowest, lax.max, size, steps, around))


def adaptive_average_pool(
    x: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch size size channels"]:
    """Average over `size` x `size` windows as PyTorch's AdaptiveAvgPool2d draws them."""
    if x.shape[1:3] == (size, size):
        return x

    def matrix(length):
        starts = [i * length // size for i in range(size)]
        ends = [-(-(i + 1) * length // size) for i in range(size)]
        positions = jnp.arange(length)
        rows = [(positions >= a) & (positions < b) for a, b in zip(starts, ends, strict=True)]
        weights = jnp.stack(rows).astype(x.dtype)
        return weights / weights.sum(1, keepdims=True)

    return jnp.einsum("ih,bhwc,jw->bijc", matrix(x.shape[1]), x, matrix(x.shape[2]))


def _initial(rngs: Any, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    return nnx.Param(_normal(rngs.params(), shape) * (2 / fan_in) ** 0.5)


# Traced once for each shape: deep networks have few.
@partial(jax.jit, static_argnums=1)
def _normal(key, shape):
    return jax.random.normal(key, shape)


class Conv(nnx.Module):
    """A convolution with bias.

    Args:
        channels: Of its input.
        features: Of its output.
        window: Rows and columns of the kernel.
        stride: From a position to the next.
        padding: "half" pads by `window // 2` on each side, "same" as TensorFlow does, "valid" not at all.
        groups: Of channels, each with kernels of its own.
        rngs: Randomness of the initial weights.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        window: int = 3,
        stride: int = 1,
        padding: Pad = "half",
        groups: int = 1,
        rngs: nnx.Rngs,
    ):
        inputs = channels // groups
        self.kernel = _initial(rngs, (window, window, inputs, features), window * window * inputs)
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.stride, self.groups = stride, groups
        self.padding: Pad = padding

    def __call__(self, x):
        window, stride = self.kernel.shape[0], self.stride
        padding = around(x.shape, window, stride, self.padding)
        kernel = self.kernel[...]
        strides = (stride, stride)
        y = conv(x.astype(kernel.dtype), kernel, strides=strides, padding=padding, groups=self.groups)
        return y + self.bias[...]


class DepthwiseConv(nnx.Module):
    """A depthwise convolution with bias; `padding` as in `Conv`."""

    def __init__(self, channels: int, *, window: int, stride: int = 1, padding: Pad = "same", rngs: nnx.Rngs):
        self.kernel = _initial(rngs, (window, window, 1, channels), window * window)
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.stride = stride
        self.padding: Pad = padding

    def __call__(self, x):
        padding = around(x.shape, self.kernel.shape[0], self.stride, self.padding)
        strides = (self.stride, self.stride)
        kernel = self.kernel[...]
        y = depthwise_conv(x.astype(kernel.dtype), kernel, strides=strides, padding=padding)
        return y + self.bias[...]


class LayerNorm(nnx.Module):
    """The norm over the last axis, in float32 at least, with a scale and a bias."""

    def __init__(self, width: int, *, epsilon: float = 1e-6):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x):
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        y = centred * lax.rsqrt(variance + self.epsilon)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class Dense(nnx.Module):
    """A dense layer over the last axis, in the type of its parameters."""

    def __init__(self, inputs: int, features: int, *, rngs: nnx.Rngs):
        self.kernel = _initial(rngs, (inputs, features), inputs)
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))

    def __call__(self, x):
        kernel = self.kernel[...]
        return _multiply(x, kernel, kernel.dtype) + self.bias[...]


class Logits(Dense):
    """The last dense layer: bfloat16 parameters still give scores of float32.

    A score rounded to bfloat16 would lose what most masks change. On the CPU such a product is slow, a
    hidden layer's (25,088 x 4,096 in VGG) eight times slower than in bfloat16 alone.
    """

    def __call__(self, x):
        kernel = self.kernel[...]
        scores = jnp.promote_types(kernel.dtype, jnp.float32)
        return _multiply(x, kernel, scores) + self.bias[...]


def _multiply(x, kernel, dtype):
    return _dense.multiply(x.astype(kernel.dtype), kernel, _dense.Settings(dtype=jnp.dtype(dtype)))


def around(shape: tuple[int, ...], window: int, stride: int, padding: Pad) -> Padding:
    """Return the padding of rows and columns of activations [batch, height, width, channels]."""
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding == "half":
        return ((window // 2, window // 2), (window // 2, window // 2))
    return same_padding(shape[1], window, stride), same_padding(shape[2], window, stride)
