"""Layered models made of named functions, one after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.tree_util import register_dataclass

from .._frame import model as _model
from .named import unknown


def run_stages(
    names: Sequence[str],
    stages: Sequence[Callable[[jax.Array], jax.Array]],
    x: jax.Array,
    start: str | None = None,
    stop: str | None = None,
) -> Any:
    """Run the stages after `start` up to and including `stop`; None means from the first, to the last.

    Raises:
        ValueError: If a name is unknown, or `stop` does not come after `start`.
    """
    first = 0 if start is None else _index(names, start) + 1
    last = len(names) if stop is None else _index(names, stop) + 1
    if last < first:
        raise ValueError(f"`stop` must not come before `start`; got start={start!r}, stop={stop!r}")
    for stage in stages[first:last]:
        x = stage(x)
    return x


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise ValueError(unknown(name, names))
    return list(names).index(name)


@register_dataclass
@dataclass(frozen=True, eq=False)
class Chain:
    """A layered model made of functions; a pytree whose leaves are the stages' parameters."""

    layer_names: tuple[str, ...] = field(metadata={"static": True})
    stages: tuple[Callable[[jax.Array], jax.Array], ...]

    def __call__(self, x: jax.Array, *, start: str | None = None, stop: str | None = None) -> Any:
        """Run the stages after `start` up to and including `stop`."""
        return run_stages(self.layer_names, self.stages, x, start, stop)


def chain(stages: Mapping[str, Callable[[jax.Array], jax.Array]]) -> Chain:
    """Build a layered model from named functions, so that layer methods can explain any JAX code.

    Args:
        stages: Callable pytrees (or plain functions, which are wrapped in `Partial`) in forward order,
            by layer name. Each takes what the one before returns.

    Returns:
        A layered model, `model(x, start=None, stop=None)`, with the names in `model.layer_names`.

    Raises:
        ValueError: If there is no stage.
        TypeError: If a stage cannot be called or a name is not a string.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"double": lambda x: 2 * x, "sum": lambda x: x.sum((1, 2))})
        >>> net(jnp.ones((1, 2, 2, 3)), stop="double").shape
        (1, 2, 2, 3)
    """
    if not stages:
        raise ValueError("`stages` must name at least one function; got none")
    for name, stage in stages.items():
        if not isinstance(name, str) or not callable(stage):
            raise TypeError(f"`stages` must map names to callables; got {name!r}: {stage!r}")
    return Chain(tuple(stages), tuple(_model.as_model(stage) for stage in stages.values()))
