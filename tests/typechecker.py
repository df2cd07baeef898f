"""The checker for `pytest --jaxtyping-packages=jaxai,typechecker.check`: annotations are true of every call.

For each function jaxtyping makes two stubs and has a checker put around them: one takes the arguments before
the call, the other the arguments and the result after it. Only the second is checked here, so that the
library's own error for a wrong argument comes first; a call that returns has arguments and a result of the
types that are annotated. An int is a float here, as for every static type checker. Left out are functions
without an annotated result, and the fields of dataclasses: these are pytrees, which JAX also fills with
shapes, axes and arrays under `vmap`.
"""

import inspect
from collections.abc import Callable

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(stub: Callable) -> Callable:
    """Check the stub that is called after the function: the one that takes a result as well."""
    *_, last = [None, *inspect.signature(stub).parameters.values()]
    after = last is not None and last.kind is last.KEYWORD_ONLY and last.name.startswith("ret")
    return _checked(stub) if after and stub.__name__ != "__init__" else stub
