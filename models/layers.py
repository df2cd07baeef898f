"""Layers of the ports: convolutions, depthwise convolutions, pools and dense layers of `jaxai._cpu`.

Pools without overlap are comparisons of strided slices, which are fast on the CPU and route the gradient of
tied values to the first, as PyTorch does.

`conv`, `depthwise_conv` and `max_pool` are compiled calls that are marked as the one operation of JAX that
they compute, so that readers of programs see each as that.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from .._cpu import conv as _conv
from .._cpu import dense as _dense
from .._cpu.relu6 import relu6 as relu6
from .._program import marks

Padding = tuple[tuple[int, int], tuple[int, int]]


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding of one axis: (before, after), the larger half after."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


@partial(jax.jit, static_argnames=("strides", "padding"))
def conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
) -> Float[Array, "batch h w features"]:
    """Convolve images with a kernel; its input gradient is fast inside loops on every platform.

    Args:
        x: Images or activations, NHWC.
        kernel: HWIO.
        strides: Rows, columns.
        padding: Zeros before and after, for rows and columns.
    """
    return _marked_conv(x, kernel, _conv.Settings(strides, padding, (1, 1)))


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


@partial(jax.jit, static_argnames=("window",))
def max_pool(
    x: Float[Array, "batch height width channels"], *, window: int = 2
) -> Float[Array, "batch h w channels"]:
    """Take the maximum of windows without overlap; rows and columns that fill no window are dropped.

    The gradient goes to the first of tied values in row-major order, as in PyTorch.
    """
    height, width = x.shape[1] // window, x.shape[2] // window
    best = None
    for i in range(window):
        for j in range(window):
            part = x[:, i : height * window : window, j : width * window : window]
            best = part if best is None else jnp.where(best >= part, best, part)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    size = (1, window, window, 1)
    return marks.layer(best, (x,), lambda x: lax.reduce_window(x, lowest, lax.max, size, size, "VALID"))


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


def _initial(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape) * (2 / fan_in) ** 0.5)


class Conv(nnx.Module):
    """A convolution with bias; `same` pads as TensorFlow does, else by `window // 2` on each side."""

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        window: int = 3,
        stride: int = 1,
        same: bool = False,
        rngs: nnx.Rngs,
    ):
        shape = (window, window, channels, features)
        self.kernel = _initial(rngs, shape, window * window * channels)
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.stride, self.same = stride, same

    def __call__(self, x):
        window, stride = self.kernel.shape[0], self.stride
        padding = _padding(x.shape, window, stride, self.same)
        kernel = self.kernel[...]
        y = conv(x.astype(kernel.dtype), kernel, strides=(stride, stride), padding=padding)
        return y + self.bias[...]


class DepthwiseConv(nnx.Module):
    """A depthwise convolution with bias, padded as TensorFlow does."""

    def __init__(self, channels: int, *, window: int, stride: int, rngs: nnx.Rngs):
        self.kernel = _initial(rngs, (window, window, 1, channels), window * window)
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.stride = stride

    def __call__(self, x):
        padding = _padding(x.shape, self.kernel.shape[0], self.stride, True)
        strides = (self.stride, self.stride)
        kernel = self.kernel[...]
        y = depthwise_conv(x.astype(kernel.dtype), kernel, strides=strides, padding=padding)
        return y + self.bias[...]


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


def _padding(shape, window, stride, same) -> Padding:
    if not same:
        return ((window // 2, window // 2), (window // 2, window // 2))
    return same_padding(shape[1], window, stride), same_padding(shape[2], window, stride)
