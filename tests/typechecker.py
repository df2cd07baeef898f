"""The checker for `pytest --jaxtyping-packages=jaxai,typechecker.check`: annotations are true of every call.

For each function jaxtyping makes two stubs and has a checker put around them: one takes the arguments before
the call, the other the arguments and the result after it. Only the second is checked here, so that the
library's own error for a wrong argument comes first; a call that returns has arguments and a result of the
types that are annotated. An int is a float here, as for every static type checker, and where an array is
taken, so is what NumPy makes one of: its own arrays, which are checked like JAX's, and lists. Left out are
functions without an annotated result, and the fields of dataclasses: these are pytrees, which JAX also fills
with shapes, axes and arrays under `vmap`.
"""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(stub: Callable) -> Callable:
    """Check the stub that is called after the function: the one that takes a result as well."""
    *_, last = [None, *inspect.signature(stub).parameters.values()]
    after = last is not None and last.kind is last.KEYWORD_ONLY and last.name.startswith("ret")
    if not after or stub.__name__ == "__init__":
        return stub
    stub.__annotations__ = {
        name: hint if name.startswith(("ret", "return")) else _taken(hint)
        for name, hint in stub.__annotations__.items()
    }
    return _checked(stub)


def _taken(hint: Any) -> Any:
    """Return the type of a parameter with NumPy's arrays and lists beside JAX's arrays."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.Union[tuple(_taken(one) for one in typing.get_args(hint))]  # noqa: UP007
    if hint is jax.Array:
        return jax.Array | np.ndarray | list | tuple
    if isinstance(hint, type) and issubclass(hint, AbstractArray) and hint.array_type is jax.Array:
        return typing.Union[hint, hint.dtype[np.ndarray, hint.dim_str], list, tuple]  # noqa: UP007
    return hint
