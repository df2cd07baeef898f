"""Convolutions whose gradients are fast on the CPU, of any rank, with strides, dilation and depthwise groups.

It works around the following, measured on two cores (AVX-512) with jaxlib 0.10.2 and 0.12.0:

- XLA's CPU compiler rewrites a convolution to its fast form only outside loops, and only if images are laid
  out NHWC, kernels HWIO, nothing is reversed and no cotangent is dilated. The gradient that JAX derives meets
  none of these conditions: in `lax.scan` a gradient step of VGG16 takes 7.6 seconds, with the gradient
  defined here 0.32. Delete `_input_gradient` when `jax.grad` of a stock convolution is as fast inside a scan
  as outside (tests/test_compiled_facts.py reads the compiled loop).
- With strides, a cotangent spread over the grid of the input is mostly zeros. Taps are grouped by the input
  pixels that they meet: EfficientNet's gradients gain 5 percent, a strided depthwise layer up to 4 times.
- Depthwise convolutions are sums of shifted products on the CPU: 10 to 20 times faster than XLA's grouped
  convolution, unless oneDNN runs it in float32 (jaxlib 0.12 with the flag of `configure_cpu`).
- XLA's fast form takes no image that is smaller than the window: three by three taps over 2 x 2 positions
  take 50 to 100 times as long. Padded images are large enough, if XLA does not put the padding back into the
  convolution (barrier).
- A fused flip and transposition of a kernel takes four times as long as the two separately (hence a barrier).
- oneDNN ends the process for a convolution to one vector that is reshaped before its bias is added (barrier).
"""

import itertools
import math
import os
import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib.version
from jax import lax
from jax.custom_derivatives import SymbolicZero

# Depthwise windows with more entries remain convolutions.
_MOST_SHIFTS = 64


class Settings(NamedTuple):
    """Parameters of a convolution; tuples have one entry per spatial axis.

    Attributes:
        strides: Steps of the window.
        padding: Zeros before and after.
        dilation: Distances between the window's entries.
        groups: 1, or as many as channels and features for a depthwise convolution.
        precision: As `lax.conv_general_dilated` takes it.
        dtype: Type of the result; None keeps the operands' type.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    precision: Any = None
    dtype: Any = None


def forward(x: jax.Array, kernel: jax.Array, settings: Settings) -> jax.Array:
    """Convolve like `convolve`, for programs that take no gradient."""
    if not _is_depthwise(x, kernel, settings):
        return _plain(x, kernel, settings)
    # oneDNN has no fast depthwise convolution in bfloat16: up to 40 times slower than shifted products.
    on_cpu = _plain if _onednn() and x.dtype == jnp.float32 else _shifted
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: on_cpu(x, k, settings),
        default=lambda x, k: _plain(x, k, settings),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, settings: Settings) -> Any:
    """Convolve images [batch, *sizes, channels] with a kernel [*window, channels per group, features]."""
    return forward(x, kernel, settings)


def _forward(x, kernel, settings):
    # The third: whether somebody differentiates by the kernel, as structure, since residuals are arrays.
    learned = () if kernel.perturbed else None
    x, kernel = x.value, kernel.value
    return convolve(x, kernel, settings), (x, kernel, learned)


def _backward(settings, residuals, cotangent):
    x, kernel, learned = residuals
    if isinstance(cotangent, SymbolicZero):
        return None, None
    by_kernel = None
    if learned is not None:
        run = _shifted if _is_depthwise(x, kernel, settings) else _plain
        _, pullback = jax.vjp(lambda k: run(x, k, settings), kernel)
        by_kernel = pullback(cotangent)[0]
    return _input_gradient(x, kernel, settings, cotangent).astype(x.dtype), by_kernel


# Explanations differentiate by images alone; the gradients of kernels were half of a network's tracing.
convolve.defvjp(_forward, _backward, symbolic_zeros=True)


def _plain(x, kernel, settings):
    count = x.ndim - 2
    padding = settings.padding
    if _is_small(x, kernel) and min(map(min, padding)) >= 0:
        x, padding = lax.optimization_barrier(_padded(x, padding)), ((0, 0),) * count
    images = (0, count + 1, *range(1, count + 1))
    numbers = lax.ConvDimensionNumbers(images, (count + 1, count, *range(count)), images)
    y = lax.conv_general_dilated(
        x,
        kernel,
        settings.strides,
        padding,
        rhs_dilation=settings.dilation,
        dimension_numbers=numbers,
        feature_group_count=settings.groups,
        precision=settings.precision,
        preferred_element_type=settings.dtype,
    )
    return lax.optimization_barrier(y) if y.size == y.shape[-1] else y


def _is_small(x, kernel) -> bool:
    """Return whether the images have fewer positions along an axis than the window has taps."""
    return any(size < taps for size, taps in zip(x.shape[1:-1], kernel.shape[:-2], strict=True))


def _is_depthwise(x, kernel, settings) -> bool:
    """Return whether every channel has its own window, small enough to be summed shift by shift."""
    window = kernel.shape[:-2]
    return settings.groups == x.shape[-1] == kernel.shape[-1] > 1 and math.prod(window) <= _MOST_SHIFTS


def _onednn() -> bool:
    """Return whether XLA uses oneDNN for CPU convolutions: the flag is set and jaxlib supports it."""
    version = tuple(int(part) for part in jaxlib.version.__version__.split(".")[:2])
    flag = r"--xla_cpu_experimental_onednn_custom_call(=(true|1))?(\s|$)"
    return version >= (0, 12) and re.search(flag, os.environ.get("XLA_FLAGS", "")) is not None


def _widened(*arrays):
    """Return the arrays in float32, or in their own type if that is wider."""
    return [a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]


def _padded(x, padding):
    """Pad the spatial axes with zeros; negative numbers crop."""
    config = [(0, 0, 0), *((int(a), int(b), 0) for a, b in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _shifted(x, kernel, settings):
    """Sum shifted copies of the images, each times one entry of the windows, in at least float32."""
    dtype = x.dtype if settings.dtype is None else settings.dtype
    x, kernel = _widened(x, kernel)
    x = _padded(x, settings.padding)
    window = kernel.shape[:-2]
    sizes = [
        (size - (w - 1) * d - 1) // s + 1
        for size, w, d, s in zip(x.shape[1:-1], window, settings.dilation, settings.strides, strict=True)
    ]
    total: Any = None
    for offset in itertools.product(*map(range, window)):
        first = [o * d for o, d in zip(offset, settings.dilation, strict=True)]
        last = [f + (n - 1) * s + 1 for f, n, s in zip(first, sizes, settings.strides, strict=True)]
        starts, ends = [0, *first, 0], [x.shape[0], *last, x.shape[-1]]
        term = lax.slice(x, starts, ends, (1, *settings.strides, 1)) * kernel[(*offset, 0)]
        total = term if total is None else total + term
    return total.astype(dtype)


def _input_gradient(x, kernel, settings, cotangent) -> Any:
    # If the result's type differs from the operands', its cotangent has the result's type.
    kernel = kernel.astype(cotangent.dtype)
    if math.prod(settings.strides) == 1 or math.prod(settings.dilation) != 1:
        return _by_spreading(x, kernel, settings, cotangent)
    if not _is_depthwise(x, kernel, settings):
        if settings.groups > 1:
            return _by_spreading(x, kernel, settings, cotangent)
        return _interleaved(_phases(kernel, settings, cotangent), x.shape, settings.padding)
    return lax.platform_dependent(
        cotangent,
        kernel,
        cpu=lambda g, k: _interleaved(_shifted_phases(k, settings, g), x.shape, settings.padding),
        default=lambda g, k: _by_spreading(x, k, settings, g),
    )


def _by_spreading(x, kernel, settings, cotangent):
    """Spread the cotangent over the input's grid and convolve it with the flipped and swapped kernel."""
    config = [(0, 0, 0)]
    axes = range(x.ndim - 2)
    for axis in axes:
        window = (kernel.shape[axis] - 1) * settings.dilation[axis] + 1
        spread = (cotangent.shape[axis + 1] - 1) * settings.strides[axis] + 1
        before = window - 1 - settings.padding[axis][0]
        after = x.shape[axis + 1] + window - 1 - before - spread
        config.append((before, after, settings.strides[axis] - 1))
    spread = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), [*config, (0, 0, 0)])
    spread = lax.optimization_barrier(spread) if _is_small(cotangent, kernel) else spread
    # A depthwise kernel is its own transpose, once flipped. The barrier keeps XLA from fusing the flip with
    # the transposition, or from folding it into a convolution that oneDNN then does not support.
    flipped = lax.optimization_barrier(jnp.flip(kernel, axes))
    swapped = flipped if settings.groups > 1 else flipped.swapaxes(-2, -1)
    return convolve(spread, swapped, _unit(settings))


def _unit(settings):
    count = len(settings.strides)
    return settings._replace(strides=(1,) * count, padding=((0, 0),) * count, dtype=None)


def _taps(kernel, strides):
    """Return the largest number of a kernel's entries that meet one input pixel, per axis."""
    return tuple(-(-size // stride) for size, stride in zip(kernel.shape[:-2], strides, strict=True))


def _phases(kernel, settings, cotangent):
    """Return the gradient's phases, [batch, *sizes, *strides, channels].

    Each phase of the input (every stride-th pixel) meets its own taps, so one small convolution computes all
    phases as channels.
    """
    strides, taps = settings.strides, _taps(kernel, settings.strides)
    count, (channels, features) = len(strides), kernel.shape[-2:]
    extra = [(0, t * s - size) for t, s, size in zip(taps, strides, kernel.shape[:-2], strict=True)]
    whole = jnp.pad(kernel, [*extra, (0, 0), (0, 0)])
    pairs = [number for pair in zip(taps, strides, strict=True) for number in pair]
    whole = jnp.flip(whole.reshape(*pairs, channels, features), range(0, 2 * count, 2))
    order = [*range(0, 2 * count, 2), 2 * count + 1, *range(1, 2 * count, 2), 2 * count]
    whole = whole.transpose(order).reshape(*taps, features, math.prod(strides) * channels)
    around = tuple((t - 1, t - 1) for t in taps)
    found: Any = convolve(cotangent, whole, _unit(settings)._replace(padding=around))
    return found.reshape(*found.shape[:-1], *strides, channels)


def _shifted_phases(kernel, settings, cotangent):
    """Return the phases of a depthwise convolution's gradient, each the sum of its own taps."""
    dtype, strides, taps = cotangent.dtype, settings.strides, _taps(kernel, settings.strides)
    g, kernel = _widened(cotangent, kernel)
    g = _padded(g, [(t - 1, t - 1) for t in taps])
    sizes = [size - t + 1 for size, t in zip(g.shape[1:-1], taps, strict=True)]

    def phase(first):
        total = jnp.zeros((g.shape[0], *sizes, g.shape[-1]), g.dtype)
        entries = [range(f, size, s) for f, size, s in zip(first, kernel.shape[:-2], strides, strict=True)]
        for entry in itertools.product(*entries):
            starts = [t - 1 - e // s for t, e, s in zip(taps, entry, strides, strict=True)]
            ends = [a + n for a, n in zip(starts, sizes, strict=True)]
            total += lax.slice(g, [0, *starts, 0], [g.shape[0], *ends, g.shape[-1]]) * kernel[(*entry, 0)]
        return total.astype(dtype)

    found = [phase(first) for first in itertools.product(*map(range, strides))]
    stacked = jnp.stack(found, -2)
    return stacked.reshape(*stacked.shape[:-2], *strides, stacked.shape[-1])


def _interleaved(phases, shape, padding):
    """Interleave phases [batch, *sizes, *strides, channels] to the gradient of images of `shape`."""
    count = len(padding)
    order = [0, *(axis for i in range(count) for axis in (1 + i, 1 + count + i)), 2 * count + 1]
    sizes = [n * s for n, s in zip(phases.shape[1 : 1 + count], phases.shape[1 + count :], strict=False)]
    y = phases.transpose(order).reshape(shape[0], *sizes, shape[-1])
    edges = [
        (-before, before + length - size)
        for (before, _), length, size in zip(padding, shape[1:-1], sizes, strict=True)
    ]
    return _padded(y, edges)
