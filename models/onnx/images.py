"""Operators of images: convolutions, pools, resizing; all on [batch, *sizes, channels]."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..._program import marks as _marks
from ..layers import conv, depthwise_conv, max_pool
from .node import Node, Result, operator
from .values import Value, bounded, integers, last, numpy_of

# Windows of more entries are not written as comparisons of slices.
_MOST_SHIFTS = 64


def _kernel_last(node: Node, rank: int) -> tuple[int, ...]:
    """Return where the axes [features, channels, *window] lie in [*window, channels, features]."""
    return (*range(2, rank), 1, 0)


def _kernel_first(node: Node, rank: int) -> tuple[int, ...]:
    """Return where the axes [channels, features, *window] lie in [*window, channels, features]."""
    return (*range(2, rank), 0, 1)


def _window(node: Node, window: Sequence[int], sizes: Sequence[int]):
    """Return strides, dilation and padding of a sliding window."""
    count = len(window)
    strides = node.whole("strides") or [1] * count
    dilation = node.whole("dilations") or [1] * count
    pads = node.whole("pads") or [0] * (2 * count)
    if not len(strides) == len(dilation) == len(sizes) == count or len(pads) != 2 * count:
        raise ValueError(f"strides {strides}, dilations {dilation} and pads {pads} of a window {window}")
    if min(*strides, *dilation, *window) < 1 or min(pads) < 0:
        raise ValueError(f"strides {strides}, dilations {dilation} and pads {pads} of a window {window}")
    match node.get("auto_pad", "NOTSET"):
        case "NOTSET":
            padding = list(zip(pads[:count], pads[count:], strict=True))
        case "VALID":
            padding = [(0, 0)] * count
        case "SAME_UPPER" | "SAME_LOWER" as kind:
            padding = []
            for size, w, s, d in zip(sizes, window, strides, dilation, strict=True):
                total = max((-(-size // s) - 1) * s + (w - 1) * d + 1 - size, 0)
                small, large = total // 2, total - total // 2
                padding.append((small, large) if kind == "SAME_UPPER" else (large, small))
        case other:
            raise ValueError(f"auto_pad {other!r}")
    return tuple(strides), tuple(dilation), tuple(padding)


def _numbers(rank: int) -> lax.ConvDimensionNumbers:
    """Return the layouts [batch, *sizes, channels] and [*window, channels, features]."""
    images = (0, rank - 1, *range(1, rank - 1))
    return lax.ConvDimensionNumbers(images, (rank - 1, rank - 2, *range(rank - 2)), images)


@operator("Conv", storage={1: _kernel_last})
def _conv(node: Node, x: Value, weights: Value, bias: Value | None = None) -> Result:
    if x.rank < 3 or weights.rank != x.rank:
        raise ValueError(f"images of shape {list(x.shape)} and a kernel of shape {list(weights.shape)}")
    images, kernel = jnp.asarray(x.last), jnp.asarray(weights.ordered(_kernel_last(node, x.rank)))
    window, groups = kernel.shape[:-2], node.get("group", 1)
    strides, dilation, padding = _window(node, window, images.shape[1:-1])
    channels, features = images.shape[-1], kernel.shape[-1]
    if groups < 1 or channels != kernel.shape[-2] * groups or features % groups:
        raise ValueError(
            f"{channels} channels in {groups} groups and a kernel of shape {list(weights.shape)}"
        )
    simple = len(window) == 2 and max(dilation) == 1
    if simple and groups == 1:
        y = conv(images, kernel, strides=strides, padding=padding)
    elif simple and groups == channels == features:
        y = depthwise_conv(images, kernel, strides=strides, padding=padding)
    else:
        y = lax.conv_general_dilated(
            images,
            kernel,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=_numbers(x.rank),
            feature_group_count=groups,
        )
    return last(y if bias is None else y + bias.plain)


@operator("ConvTranspose", storage={1: _kernel_first})
def _conv_transpose(node: Node, x: Value, weights: Value, bias: Value | None = None) -> Result:
    images, kernel = jnp.asarray(x.last), jnp.asarray(weights.ordered(_kernel_first(node, x.rank)))
    window, groups, count = kernel.shape[:-2], node.get("group", 1), x.rank - 2
    sizes = images.shape[1:-1]
    extra = node.whole("output_padding") or [0] * count
    strides = tuple(node.whole("strides") or [1] * count)
    dilation = tuple(node.whole("dilations") or [1] * count)
    pads = node.whole("pads") or [0] * (2 * count)
    spans = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    whole = [s * (n - 1) + e + k for s, n, e, k in zip(strides, sizes, extra, spans, strict=True)]
    auto, wanted = node.get("auto_pad", "NOTSET"), node.whole("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(sizes, strides, strict=True)]
    if wanted is not None:
        totals = [max(size - w, 0) for size, w in zip(whole, wanted[-count:], strict=True)]
        halves = [total // 2 for total in totals]
        rest = [total - half for total, half in zip(totals, halves, strict=True)]
        pads = [*halves, *rest] if auto != "SAME_LOWER" else [*rest, *halves]
        if auto == "NOTSET":
            pads = [*rest, *halves]
    elif auto == "VALID":
        pads = [0] * (2 * count)
    padding = [
        (k - 1 - before, k - 1 - after + e)
        for k, e, before, after in zip(spans, extra, pads, pads[count:], strict=False)
    ]
    kernel = jnp.flip(kernel, range(count))
    channels, features = images.shape[-1], kernel.shape[-1]
    if groups < 1 or channels % groups or kernel.shape[-2] != channels:
        raise ValueError(
            f"{channels} channels in {groups} groups and a kernel of shape {list(weights.shape)}"
        )
    if groups > 1:
        # A group's channels see its own features.
        split = kernel.reshape(*window, groups, channels // groups, features)
        kernel = jnp.moveaxis(split, -3, -2).reshape(*window, channels // groups, groups * features)
    y = lax.conv_general_dilated(
        images,
        kernel,
        (1,) * count,
        padding,
        lhs_dilation=strides,
        rhs_dilation=dilation,
        dimension_numbers=_numbers(x.rank),
        feature_group_count=groups,
    )
    return last(y if bias is None else y + bias.plain)


def _ceil_padding(node, sizes, window, strides, dilation, padding):
    """Return the padding with what `ceil_mode` adds at the end; windows begin within images or padding."""
    if not node.get("ceil_mode", 0):
        return padding
    found = []
    for size, w, s, d, (before, after) in zip(sizes, window, strides, dilation, padding, strict=True):
        span = (w - 1) * d + 1
        count = -(-(size + before + after - span) // s) + 1
        if (count - 1) * s >= size + before:
            count -= 1
        found.append((before, max(after, (count - 1) * s + span - size - before)))
    return tuple(found)


def _pool_window(node: Node, x: Value):
    window = node.whole("kernel_shape")
    if not window or x.rank != len(window) + 2:
        raise ValueError(f"a window {window} for images of shape {list(x.shape)}")
    sizes = x.last.shape[1:-1]
    strides, dilation, padding = _window(node, window, sizes)
    whole = _ceil_padding(node, sizes, window, strides, dilation, padding)
    return tuple(window), strides, dilation, padding, whole


@operator("MaxPool")
def _max_pool(node: Node, x: Value) -> Result:
    if len(node.outputs) > 1:
        raise ValueError("the second result, indices, is not supported")
    window, strides, dilation, _, padding = _pool_window(node, x)
    images = jnp.asarray(x.last)
    if window == strides and len(set(window)) == 1 and len(window) == 2 and not np.any(padding):
        if set(dilation) == {1}:
            return last(max_pool(images, window=window[0]))
    pool = _shifted_maxima if math.prod(window) <= _MOST_SHIFTS else _window_maxima
    return last(pool(images, window, strides, dilation, padding))


def _window_maxima(x, window, strides, dilation, padding):
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return lax.reduce_window(
        x,
        jnp.asarray(lowest, x.dtype) if not jnp.issubdtype(x.dtype, jnp.floating) else lowest,
        lax.max,
        (1, *window, 1),
        (1, *strides, 1),
        ((0, 0), *padding, (0, 0)),
        window_dilation=(1, *dilation, 1),
    )


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _shifted_maxima(x, window, strides, dilation, padding):
    """Take maxima as comparisons of strided slices: their gradient is fast on the CPU, and the first wins."""
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    wide = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=lowest)
    counts = [
        (size - (w - 1) * d - 1) // s + 1
        for size, w, s, d in zip(wide.shape[1:-1], window, strides, dilation, strict=True)
    ]
    best: Any = None
    for offset in itertools.product(*map(range, window)):
        starts = [o * d for o, d in zip(offset, dilation, strict=True)]
        ends = [a + (n - 1) * s + 1 for a, n, s in zip(starts, counts, strides, strict=True)]
        part = lax.slice(wide, [0, *starts, 0], [wide.shape[0], *ends, wide.shape[-1]], (1, *strides, 1))
        best = part if best is None else jnp.where(best >= part, best, part)
    standard = partial(_window_maxima, window=window, strides=strides, dilation=dilation, padding=padding)
    return _marks.layer(best, (x,), standard)


@operator("AveragePool")
def _average_pool(node: Node, x: Value) -> Result:
    window, strides, dilation, stated, padding = _pool_window(node, x)
    images = jnp.asarray(x.last)
    sizes = bounded(images.shape[1:-1])
    total = lax.reduce_window(
        images, 0.0, lax.add, (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0)),
        window_dilation=(1, *dilation, 1),
    )  # fmt: skip
    # How many pixels each window averages: those of the images, and with the padding if that counts.
    ends = [pair if node.get("count_include_pad", 0) else (0, 0) for pair in stated]
    counts: Any = 1
    for axis, size in enumerate(sizes):
        line = np.zeros(size + sum(padding[axis]))
        begin = padding[axis][0]
        line[begin - ends[axis][0] : begin + size + ends[axis][1]] = 1
        starts = np.arange(total.shape[axis + 1]) * strides[axis]
        taps = np.arange(window[axis]) * dilation[axis]
        along = line[starts[:, None] + taps].sum(1)
        counts = counts * along.reshape([-1 if i == axis else 1 for i in range(len(sizes))])
    if np.unique(counts).size == 1:
        return last(total * (1 / float(np.ravel(counts)[0])))
    return last(total * (1 / np.asarray(counts, images.dtype))[None, ..., None])


def _global(name: str, function: Any) -> None:
    operator(name)(lambda node, x: last(function(x.last, tuple(range(1, x.rank - 1)))))


_global("GlobalAveragePool", lambda x, axes: x.mean(axes, keepdims=True))
_global("GlobalMaxPool", lambda x, axes: x.max(axes, keepdims=True))


# Resizing


@operator("Upsample", settings=(1,))
def _upsample(node: Node, x: Value, scales: Value | None = None) -> Result:
    factors = node.attributes.get("scales") if scales is None else numpy_of(scales, "scales").tolist()
    if factors is None:
        raise ValueError("no scales")
    sizes = [math.floor(size * factor) for size, factor in zip(x.shape, factors, strict=True)]
    return _resized(x, sizes, factors, node.get("mode", "nearest"), "asymmetric", "floor", node)


@operator("Resize", settings=(1, 2, 3))
def _resize(
    node: Node, x: Value, roi: Value | None = None, scales: Value | None = None, sizes: Value | None = None
) -> Result:
    if node.opset < 11:
        return _upsample(node, x, roi)
    which = node.whole("axes")
    which = list(range(x.rank)) if which is None else [axis % x.rank for axis in which]
    lengths, factors = list(x.shape), [1.0] * x.rank
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError("attribute keep_aspect_ratio_policy is not supported")
    if sizes is not None and math.prod(sizes.shape):
        for axis, size in zip(which, integers(sizes, "sizes"), strict=True):
            lengths[axis], factors[axis] = size, size / x.shape[axis]
    elif scales is not None and math.prod(scales.shape):
        for axis, factor in zip(which, numpy_of(scales, "scales").ravel().tolist(), strict=True):
            lengths[axis], factors[axis] = math.floor(x.shape[axis] * factor), factor
    else:
        raise ValueError("neither scales nor sizes")
    mode = node.get("mode", "nearest")
    if node.get("antialias", 0) and min(factors) < 1:
        raise ValueError("attribute antialias is not supported")
    way = node.get("coordinate_transformation_mode", "half_pixel")
    return _resized(x, lengths, factors, mode, way, node.get("nearest_mode", "round_prefer_floor"), node)


def _positions(way, size, length, factor):
    """Return where in the input each place of the output lies."""
    places = np.arange(length, dtype=np.float64)
    match way:
        case "half_pixel":
            return (places + 0.5) / factor - 0.5
        case "half_pixel_symmetric":
            adjusted = length / (factor * size)
            return size / 2 * (1 - adjusted) + (places + 0.5) / factor - 0.5
        case "pytorch_half_pixel":
            return (places + 0.5) / factor - 0.5 if length > 1 else places * 0.0
        case "align_corners":
            return places * (size - 1) / (length - 1) if length > 1 else places * 0.0
        case "asymmetric":
            return places / factor
        case "tf_half_pixel_for_nn":
            return (places + 0.5) / factor
        case _:
            raise ValueError(f"coordinate_transformation_mode {way!r}")


_ROUNDING = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _resized(x, sizes, factors, mode, way, rounding, node) -> Value:
    bounded(sizes)
    for axis, (size, length, factor) in enumerate(zip(x.shape, sizes, factors, strict=True)):
        if factor == 1 and length == size:
            continue
        if factor <= 0 or size == 0 or length == 0:
            raise ValueError(f"scales {factors}")
        bounded([size, length])
        at, place = _positions(way, size, length, factor), x.axis(axis)
        if mode == "nearest":
            if rounding not in _ROUNDING:
                raise ValueError(f"nearest_mode {rounding!r}")
            index = np.clip(_ROUNDING[rounding](at), 0, size - 1).astype(np.int64)
            repeats = length // size
            if length == size * repeats and np.array_equal(index, np.arange(length) // repeats):
                x = x.like(jnp.repeat(jnp.asarray(x.array), repeats, place))
            else:
                x = x.like(jnp.take(jnp.asarray(x.array), index, place, mode="clip"))
            continue
        matrix = _weights(mode, at, size, node)
        moved = jnp.moveaxis(jnp.asarray(x.array), place, -1)
        product = jnp.matmul(moved, jnp.asarray(matrix.T, moved.dtype))
        x = x.like(jnp.moveaxis(product, -1, place))
    return x


def _weights(mode, at, size, node):
    """Return the matrix [output, input] of an interpolation along one axis."""
    if mode == "linear":
        offsets, kernel = (0, 1), lambda t: np.maximum(0, 1 - np.abs(t))
    elif mode == "cubic":
        a = node.get("cubic_coeff_a", -0.75)

        def kernel(t):
            t = np.abs(t)
            near = (a + 2) * t**3 - (a + 3) * t**2 + 1
            return np.where(t <= 1, near, np.where(t < 2, a * (t**3 - 5 * t**2 + 8 * t - 4), 0))

        offsets = (-1, 0, 1, 2)
    else:
        raise ValueError(f"mode {mode!r}")
    matrix = np.zeros((len(at), size))
    first, rows = np.floor(at), np.arange(len(at))
    outside = bool(node.get("exclude_outside", 0))
    for offset in offsets:
        weight, index = kernel(at - first - offset), first + offset
        if outside:
            weight = np.where((index < 0) | (index >= size), 0, weight)
        np.add.at(matrix, (rows, np.clip(index, 0, size - 1).astype(np.int64)), weight)
    return matrix / matrix.sum(1, keepdims=True) if outside else matrix
