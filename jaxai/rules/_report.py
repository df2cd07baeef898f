"""Reports of the operations that relevance rules find in a function, and of those without a rule."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._frame import targets as _targets
from ._grouping import network
from ._operations import Network


class Report(NamedTuple):
    """The operations that relevance rules find in a function.

    Attributes:
        operations: Number of operations of each kind: conv, dense, relu, activation, affine, pool, max, sum,
            shape, and those without a rule.
        unsupported: Primitives without a rule of their own, through which the gradient is used instead.
    """

    operations: dict[str, int]
    unsupported: tuple[str, ...]


def report(fn: Callable[..., Any], x: Any) -> Report:
    """Report what relevance propagation finds in a function, without running it.

    Args:
        fn: Callable pytree, `fn(images) -> scores`.
        x: Images, an array or `jax.ShapeDtypeStruct`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: jax.nn.relu(jnp.sort(x, axis=1)).mean((1, 2))
        >>> jaxai.rules.report(net, jnp.ones((1, 4, 4, 2)))
        Report(operations={'other': 1, 'pool': 1, 'relu': 1}, unsupported=('sort',))
    """
    net, _ = network(_targets.as_model(fn), jnp.zeros(x.shape, x.dtype) if not hasattr(x, "aval") else x)
    kinds = [operation.kind for operation in net.operations]
    return Report({kind: kinds.count(kind) for kind in sorted(set(kinds))}, unsupported(net))


def unsupported(net: Network, kinds: tuple[str, ...] = ("other",)) -> tuple[str, ...]:
    """Return the primitives of a network that have no rule."""
    return tuple(sorted({operation.name for operation in net.operations if operation.kind in kinds}))


def check_support(names: tuple[str, ...], strict: bool, method: str) -> None:
    """Warn, or raise ValueError if `strict`, when some primitives have no rule."""
    if not names:
        return
    message = f"{method} has no rule for {', '.join(names)}"
    if strict:
        raise ValueError(f"{message}; with strict=False the gradient is used there")
    warnings.warn(f"{message}: the gradient is used there (jaxai.rules.report lists them)", stacklevel=2)
