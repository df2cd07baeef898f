"""Layers of the ports: convolutions whose gradients are fast everywhere, depthwise convolutions, pools.

On the CPU, XLA only runs a convolution fast in a loop if its operands are laid out NHWC and HWIO. The
gradient that JAX derives has its kernel transposed instead, so `conv` states its own: the kernel flipped and
swapped, one more canonical convolution. With strides its taps are sorted by the input pixels that they meet,
which saves the products with the zeros of a dilated cotangent. Depthwise convolutions are sums of shifted
products on the CPU, unless oneDNN runs XLA's convolutions there, faster still in float32.
Pools without overlap are comparisons of strided slices, which route the gradient of tied values to the first,
as PyTorch does.

`conv`, `depthwise_conv` and `max_pool` are named compiled calls, so that rules on the jaxpr see each as one
operation with the operands (images, kernel).
"""

import os
import re
from functools import partial

import jax
import jax.numpy as jnp
import jaxlib.version
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding of one axis: (before, after), the larger half after."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _plain_conv(x, kernel, strides, padding, groups=1):
    y = lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_DIMENSIONS, feature_group_count=groups
    )
    # XLA hands a bias to oneDNN as well. That ends the process if the result is one vector and is reshaped
    # before, as by `jax.vmap` over one image.
    return lax.optimization_barrier(y) if y.size == y.shape[-1] else y


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    return _plain_conv(x, kernel, strides, padding)


def _conv_forward(x, kernel, strides, padding):
    return _plain_conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(strides, padding, residuals, cotangent):
    x, kernel = residuals
    dx = _conv_input_gradient(x.shape, kernel, strides, padding, cotangent)
    _, pullback = jax.vjp(lambda k: _plain_conv(x, k, strides, padding), kernel)
    return dx, pullback(cotangent)[0]


def _dilate(cotangent, shape, window, strides, padding):
    """Spread `cotangent` over the input's grid and pad it, so that a plain convolution gives the gradient."""
    config = [(0, 0, 0)]
    for axis in (0, 1):
        spread = (cotangent.shape[axis + 1] - 1) * strides[axis] + 1
        before = window[axis] - 1 - padding[axis][0]
        after = shape[axis + 1] + window[axis] - 1 - before - spread
        config.append((before, after, strides[axis] - 1))
    return lax.pad(cotangent, jnp.zeros((), cotangent.dtype), [*config, (0, 0, 0)])


def _taps(window, strides):
    """Return how many of a kernel's rows and columns meet an input pixel, at most."""
    return tuple(-(-size // stride) for size, stride in zip(window, strides, strict=True))


def _interleave(phases, shape, padding):
    """Return the gradient of images of `shape`, of which every stride-th row and column is one phase.

    Args:
        phases: [batch, h, w, stride, stride, channels].
        shape: [batch, height, width, channels] of the images.
        padding: Of the convolution.
    """
    batch, height, width, rows, columns, channels = phases.shape
    y = phases.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * rows, width * columns, channels)
    edges = [
        (-before, before + shape[axis] - y.shape[axis], 0)
        for axis, (before, _) in enumerate(padding, start=1)
    ]
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _conv_input_gradient(shape, kernel, strides, padding, cotangent):
    if strides == (1, 1):
        spread = _dilate(cotangent, shape, kernel.shape[:2], strides, padding)
        # Fused, the two take four times as long as one after the other.
        swapped = lax.optimization_barrier(jnp.flip(kernel, (0, 1))).swapaxes(2, 3)
        return _conv(spread, swapped, (1, 1), ((0, 0), (0, 0)))
    # Each phase of the input meets its own taps, so one small convolution makes all phases as channels, where
    # a cotangent spread over the input's grid would multiply mostly zeros.
    (height, width, inputs, outputs), (rows, columns) = kernel.shape, strides
    tall, wide = _taps(kernel.shape[:2], strides)
    whole = jnp.pad(kernel, ((0, tall * rows - height), (0, wide * columns - width), (0, 0), (0, 0)))
    taps = jnp.flip(whole.reshape(tall, rows, wide, columns, inputs, outputs), (0, 2))
    taps = taps.transpose(0, 2, 5, 1, 3, 4).reshape(tall, wide, outputs, rows * columns * inputs)
    phases = _conv(cotangent, taps, (1, 1), ((tall - 1, tall - 1), (wide - 1, wide - 1)))
    return _interleave(phases.reshape(*phases.shape[:3], rows, columns, inputs), shape, padding)


_conv.defvjp(_conv_forward, _conv_backward)


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
    return _conv(x, kernel, strides, padding)


def _widened(*arrays):
    """Return the arrays in float32, or in their own type if that is wider."""
    return [a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]


def _shifted_depthwise(x, kernel, strides, padding):
    """Sum k*k shifted copies of the images, each times one row of the kernel; bfloat16 sums in float32."""
    dtype = x.dtype
    x, kernel = _widened(x, kernel)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = kernel.shape[:2]
    height = (x.shape[1] - rows) // strides[0] + 1
    width = (x.shape[2] - columns) // strides[1] + 1
    total = None
    for i in range(rows):
        for j in range(columns):
            part = x[
                :,
                i : i + (height - 1) * strides[0] + 1 : strides[0],
                j : j + (width - 1) * strides[1] + 1 : strides[1],
            ]
            term = part * kernel[i, j, 0]
            total = term if total is None else total + term
    return total.astype(dtype)


def _grouped_depthwise(x, kernel, strides, padding):
    return _plain_conv(x, kernel, strides, padding, groups=x.shape[-1])


def _onednn() -> bool:
    """Tell whether XLA hands the CPU's convolutions to oneDNN: the flag is set and this jaxlib heeds it."""
    version = tuple(int(part) for part in jaxlib.version.__version__.split(".")[:2])
    flag = r"--xla_cpu_experimental_onednn_custom_call(=(true|1))?(\s|$)"
    return version >= (0, 12) and re.search(flag, os.environ.get("XLA_FLAGS", "")) is not None


def _plain_depthwise(x, kernel, strides, padding):
    # oneDNN has no fast depthwise convolution in bfloat16: up to 40 times slower than shifted products.
    on_cpu = _grouped_depthwise if _onednn() and x.dtype == jnp.float32 else _shifted_depthwise
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: on_cpu(x, k, strides, padding),
        default=lambda x, k: _grouped_depthwise(x, k, strides, padding),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, strides, padding):
    return _plain_depthwise(x, kernel, strides, padding)


def _depthwise_forward(x, kernel, strides, padding):
    return _plain_depthwise(x, kernel, strides, padding), (x, kernel)


def _shifted_phases(cotangent, kernel, strides):
    """Return the phases of a strided depthwise convolution's input gradient, each the sum of its own taps."""
    dtype = cotangent.dtype
    x, kernel = _widened(cotangent, kernel)
    window, (tall, wide) = kernel.shape[:2], _taps(kernel.shape[:2], strides)
    x = jnp.pad(x, ((0, 0), (tall - 1, tall - 1), (wide - 1, wide - 1), (0, 0)))
    height, width = x.shape[1] - tall + 1, x.shape[2] - wide + 1

    def phase(row, column):
        total = jnp.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
        for i in range(row, window[0], strides[0]):
            for j in range(column, window[1], strides[1]):
                top, left = tall - 1 - i // strides[0], wide - 1 - j // strides[1]
                total += x[:, top : top + height, left : left + width] * kernel[i, j, 0]
        return total.astype(dtype)

    rows = [jnp.stack([phase(i, j) for j in range(strides[1])], 3) for i in range(strides[0])]
    return jnp.stack(rows, 3)


def _depthwise_input_gradient(shape, kernel, strides, padding, cotangent):
    whole = ((0, 0), (0, 0))

    def spread(cotangent, kernel):
        dilated = _dilate(cotangent, shape, kernel.shape[:2], strides, padding)
        return dilated, jnp.flip(kernel, (0, 1))

    if strides == (1, 1):
        x, swapped = spread(cotangent, kernel)
        # Without the barrier XLA folds the flip into the convolution, which oneDNN then does not take.
        return _depthwise(x, lax.optimization_barrier(swapped), strides, whole)
    return lax.platform_dependent(
        cotangent,
        kernel,
        cpu=lambda x, k: _interleave(_shifted_phases(x, k, strides), shape, padding),
        default=lambda x, k: _grouped_depthwise(*spread(x, k), (1, 1), whole),
    )


def _depthwise_backward(strides, padding, residuals, cotangent):
    x, kernel = residuals
    dx = _depthwise_input_gradient(x.shape, kernel, strides, padding, cotangent)
    _, pullback = jax.vjp(lambda k: _shifted_depthwise(x, k, strides, padding), kernel)
    return dx, pullback(cotangent)[0]


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@partial(jax.jit, static_argnames=("strides", "padding"))
def depthwise_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns 1 channels"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
) -> Float[Array, "batch h w channels"]:
    """Convolve each channel with its own window: shifted products on the CPU, one convolution elsewhere."""
    return _depthwise(x, kernel, strides, padding)


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
    return best


@jax.custom_vjp
def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Clip values to 0 to 6; the gradient keeps a byte for each value instead of the value.

    XLA would otherwise keep the convolution's result until the backward pass, and compare it again there:
    twice the memory for EfficientNet's gradients, which memory limits. jaxlib 0.10 still does.
    """
    return jnp.minimum(jnp.maximum(x, 0), 6)


def _relu6_forward(x):
    # The barrier has the mask made here, while the value is in the cache.
    return lax.optimization_barrier((relu6(x), (x > 0) & (x < 6)))


def _relu6_backward(passing, cotangent):
    return (jnp.where(passing, cotangent, jnp.zeros((), cotangent.dtype)),)


relu6.defvjp(_relu6_forward, _relu6_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def dense(x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs features"], dtype: str):
    """Multiply by a matrix; the input gradient has the matrix as its left factor.

    jaxlib 0.10 multiplies 2 to 16 rows by a large transposed matrix twelve times slower: 0.45 seconds for the
    first dense layer of VGG.

    Args:
        x: Vectors of the kernel's type.
        kernel: The matrix.
        dtype: Type of the result.
    """
    return jnp.matmul(x, kernel, preferred_element_type=dtype)


def _dense_forward(x, kernel, dtype):
    return dense(x, kernel, dtype), (x, kernel)


def _dense_backward(dtype, residuals, cotangent):
    x, kernel = residuals
    rows = cotangent.reshape(-1, cotangent.shape[-1])
    along_features = (((1,), (1,)), ((), ()))
    if rows.shape[0] == 1:
        dx = lax.dot_general(rows, kernel, along_features)
    else:
        # The barrier keeps XLA from swapping the factors again.
        dx = lax.optimization_barrier(lax.dot_general(kernel, rows, along_features)).T
    dk = jnp.matmul(x.reshape(-1, x.shape[-1]).T, rows)
    return dx.reshape(x.shape).astype(x.dtype), dk.astype(kernel.dtype)


dense.defvjp(_dense_forward, _dense_backward)


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
        self.bias = nnx.Param(jnp.zeros(features))
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
        self.bias = nnx.Param(jnp.zeros(channels))
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
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x):
        kernel = self.kernel[...]
        return dense(x.astype(kernel.dtype), kernel, kernel.dtype.name) + self.bias[...]


class Logits(Dense):
    """The last dense layer: bfloat16 parameters still give scores of float32.

    A score rounded to bfloat16 would lose what most masks change. On the CPU such a product is slow, a
    hidden layer's (25,088 x 4,096 in VGG) eight times slower than in bfloat16 alone.
    """

    def __call__(self, x):
        kernel = self.kernel[...]
        scores = jnp.promote_types(kernel.dtype, jnp.float32)
        return dense(x.astype(kernel.dtype), kernel, scores.name) + self.bias[...]


def _padding(shape, window, stride, same) -> Padding:
    if not same:
        return ((window // 2, window // 2), (window // 2, window // 2))
    return same_padding(shape[1], window, stride), same_padding(shape[2], window, stride)
