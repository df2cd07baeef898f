"""Replacement of convolutions and dense layers by versions whose gradients are fast, also inside loops.

The kernels, and the reasons for them, are in `jaxai._cpu`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._cpu import conv as _conv
from .._frame import targets as _targets
from .._program.graph import Graph
from ._dense import is_spread, product
from ._rewrite import Rewritten


def convolution(x: jax.Array, kernel: jax.Array, *, params: dict[str, Any]) -> jax.Array:
    """Run `lax.conv_general_dilated` with the parameters of its equation, in a form that is fast in loops.

    Grouped convolutions that are not depthwise run unchanged, as do kernel gradients of other convolutions
    (`batch_group_count` above one): their stock form is as fast inside a loop as outside. So do all on an
    explicit mesh, where JAX cannot transpose the kernel of a convolution.
    """
    numbers = params["dimension_numbers"]
    groups, channels = params["feature_group_count"], x.shape[numbers.lhs_spec[1]]
    features = kernel.shape[numbers.rhs_spec[0]]
    grouped = params["batch_group_count"] != 1 or (groups > 1 and not groups == channels == features)
    if grouped or any(map(is_spread, (x, kernel))):
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
    settings = _conv.Settings(
        strides=tuple(params["window_strides"]),
        padding=tuple((int(a), int(b)) for a, b in params["padding"]),
        dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
        precision=params["precision"],
        dtype=params["preferred_element_type"],
    )
    y: Any = _conv.convolve(x, kernel, settings)
    back = images(numbers.out_spec)
    return jnp.transpose(y, [back.index(axis) for axis in range(y.ndim)])


_FAST = {"conv_general_dilated": convolution, "dot_general": product}


def _replace(graph: Graph):
    return {
        node.outputs[0]: (partial(_FAST[node.name], params=node.params), node.inputs)
        for node in graph.nodes
        if node.name in _FAST
    }


def _stay_out(graph: Graph) -> bool:
    return False


def loop_safe(fn: Callable[..., Any]) -> Rewritten:
    """Return a function with the same values whose layers have fast gradients, also inside loops.

    On the CPU the gradient of a stock convolution inside `lax.scan`, `fori_loop` or `lax.map` is several
    times to many times slower than outside. Models of `jaxai.models` need no rewriting; those of Flax,
    Equinox or Haiku do. Strided, dilated, grouped and transposed convolutions of any rank and layout are
    rewritten, also in loops, branches and checkpointed regions, and so are dense layers, whose stock gradient
    is slow on jaxlib 0.10; a function with a derivative of its own (`jax.custom_vjp`) keeps it.

    Args:
        fn: Callable pytree of arrays; a layered model stays layered. It may already be differentiated:
            gradient convolutions are rewritten like any other.

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
