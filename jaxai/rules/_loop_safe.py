"""Convolutions whose gradients are fast inside loops, in functions of any library.

On the CPU, XLA runs a convolution inside a loop fast only if it is laid out NHWC and HWIO and neither its
kernel is reversed nor its images dilated. The gradient that JAX derives is none of that. Here every
convolution states its own: the kernel flipped and swapped, the cotangent dilated and padded explicitly, one
more plain convolution.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._frame import targets as _targets
from .._program import jaxprs
from ._dense import product
from ._rewrite import Rewritten

# Depthwise windows of more entries stay convolutions.
_MOST_SHIFTS = 64


class _Settings(NamedTuple):
    """What a plain convolution is run with; tuples of numbers, one an axis."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    precision: Any
    dtype: Any


def _plain(x, kernel, settings: _Settings):
    count = x.ndim - 2
    last = tuple(range(1, count + 1))
    images = (0, count + 1, *last)
    numbers = lax.ConvDimensionNumbers(images, (count + 1, count, *range(count)), images)
    y = lax.conv_general_dilated(
        x,
        kernel,
        settings.strides,
        settings.padding,
        rhs_dilation=settings.dilation,
        dimension_numbers=numbers,
        feature_group_count=settings.groups,
        precision=settings.precision,
        preferred_element_type=settings.dtype,
    )
    # See `jaxai.configure_cpu`: one vector, reshaped before a bias is added, would end the process.
    return lax.optimization_barrier(y) if y.size == y.shape[-1] else y


def _is_depthwise(x, kernel, settings: _Settings) -> bool:
    """Return whether every channel has one window of its own, small enough to be summed up shift by shift."""
    window = kernel.shape[:-2]
    return settings.groups == x.shape[-1] == kernel.shape[-1] > 1 and math.prod(window) <= _MOST_SHIFTS


def _shifted(x, kernel, settings: _Settings):
    """Sum shifted copies of the images, each times one entry of the windows."""
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), *((a, b, 0) for a, b in settings.padding), (0, 0, 0)])
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
    return total if settings.dtype is None else total.astype(settings.dtype)


def _forward(x, kernel, settings: _Settings):
    if not _is_depthwise(x, kernel, settings):
        return _plain(x, kernel, settings)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: _shifted(x, k, settings),
        default=lambda x, k: _plain(x, k, settings),
    )


@cache
def _conv_with(settings: _Settings):
    @jax.custom_vjp
    def conv(x, kernel):
        return _forward(x, kernel, settings)

    def backward(residuals, g):
        x, kernel = residuals
        run = _shifted if _is_depthwise(x, kernel, settings) else _plain
        _, pullback = jax.vjp(lambda k: run(x, k, settings), kernel)
        return _input_gradient(x, kernel, g, settings).astype(x.dtype), pullback(g)[0]

    conv.defvjp(lambda x, kernel: (conv(x, kernel), (x, kernel)), backward)
    return conv


def _input_gradient(x, kernel, g, settings: _Settings):
    axes = range(x.ndim - 2)
    config = [(0, 0, 0)]
    for axis in axes:
        window = (kernel.shape[axis] - 1) * settings.dilation[axis] + 1
        spread = (g.shape[axis + 1] - 1) * settings.strides[axis] + 1
        before = window - 1 - settings.padding[axis][0]
        after = x.shape[axis + 1] + window - 1 - before - spread
        config.append((before, after, settings.strides[axis] - 1))
    g = lax.pad(g, jnp.zeros((), g.dtype), [*config, (0, 0, 0)])
    flipped = jnp.flip(kernel, axes)
    # A depthwise kernel is its own transpose, once flipped. Fused, the two would take four times as long.
    swapped = flipped if settings.groups > 1 else lax.optimization_barrier(flipped).swapaxes(-2, -1)
    plain = settings._replace(strides=(1,) * len(axes), padding=((0, 0),) * len(axes), dtype=None)
    return _conv_with(plain)(g, swapped)


def convolution(x: jax.Array, kernel: jax.Array, *, params: dict[str, Any]) -> jax.Array:
    """Run `lax.conv_general_dilated` with the parameters of its equation, in the form that is fast in loops.

    Those in groups that are not depthwise run as they are, like those that are themselves the kernel
    gradient of another (`batch_group_count` above one): their stock form is as fast inside a loop as outside.
    """
    numbers = params["dimension_numbers"]
    groups, channels = params["feature_group_count"], x.shape[numbers.lhs_spec[1]]
    features = kernel.shape[numbers.rhs_spec[0]]
    if params["batch_group_count"] != 1 or (groups > 1 and not groups == channels == features):
        settings = {k: v for k, v in params.items() if k != "out_sharding"}
        return lax.conv_general_dilated(x, kernel, **settings)
    last = tuple(range(2, x.ndim))

    def images(spec):
        return (spec[0], *(spec[i] for i in last), spec[1])

    x = jnp.transpose(x, images(numbers.lhs_spec))
    rhs = numbers.rhs_spec
    kernel = jnp.transpose(kernel, (*(rhs[i] for i in last), rhs[1], rhs[0]))
    if any(step != 1 for step in params["lhs_dilation"]):
        inner = [(0, 0, step - 1) for step in params["lhs_dilation"]]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    settings = _Settings(
        strides=tuple(params["window_strides"]),
        padding=tuple((int(a), int(b)) for a, b in params["padding"]),
        dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
        precision=params["precision"],
        dtype=params["preferred_element_type"],
    )
    y = _conv_with(settings)(x, kernel)
    back = images(numbers.out_spec)
    return jnp.transpose(y, [back.index(axis) for axis in range(y.ndim)])


_FAST = {"conv_general_dilated": convolution, "dot_general": product}


def _replace(graph: jaxprs.Graph):
    return {
        node.outputs[0]: (partial(_FAST[node.name], params=node.params), node.inputs)
        for node in graph.nodes
        if node.name in _FAST
    }


def _stay_out(graph: jaxprs.Graph) -> bool:
    return False


def loop_safe(fn: Callable[..., Any]) -> Rewritten:
    """Return a function with the same values whose layers have gradients that are fast, inside loops too.

    On the CPU the gradient of a stock convolution inside `lax.scan`, `fori_loop` or `lax.map` is several to
    many times slower than outside. Models of `jaxai.models` need no rewriting; those of Flax, Equinox or
    Haiku do. Strided, dilated, grouped and transposed convolutions of any rank and layout are rewritten, in
    loops, branches and checkpointed regions as well, and so are dense layers, whose stock gradient takes long
    on jaxlib 0.10; a function with a derivative of its own (`jax.custom_vjp`) keeps it.

    Args:
        fn: Callable pytree of arrays; a layered model stays layered. An already differentiated function may
            be given too: its gradient convolutions are rewritten like any other.

    Returns:
        A callable pytree like `fn`, for reverse-mode differentiation of any order.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> conv = lambda x: jax.lax.conv(x, jnp.ones((1, 1, 2, 2)), (2, 2), "VALID")
        >>> jaxai.rules.loop_safe(conv)(jnp.ones((1, 1, 4, 4))).tolist()
        [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    return Rewritten(_targets.as_model(fn), _replace, _stay_out)
