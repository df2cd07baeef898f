"""Scopes of operations: the calls of modules, named scopes, functions and loop steps around them."""

from typing import Any, Literal, NamedTuple

from .marks import ModulePath


class Part(NamedTuple):
    """One of the scopes that contain an operation.

    Attributes:
        kind: "module" for the call of a library's module, "scope" for any other `jax.named_scope`, "call" for
            the call of a jitted function, "step" for a step of an unrolled loop.
        name: The module's path, the scope's or the function's name, or `[step]`.
        visit: A number that distinguishes visits of one name; zero for scopes, which cannot be distinguished.
    """

    kind: Literal["module", "scope", "call", "step"]
    name: str
    visit: int = 0


Scope = tuple[Part, ...]


def of_equation(eqn: Any) -> Scope:
    """Return the named scopes around an equation within its jaxpr, outermost first."""
    # Other entries are transformations, such as `vmap`.
    stack = eqn.source_info.name_stack.stack
    names = (entry.name for entry in stack if type(entry).__name__ == "Scope")
    # `jnp.einsum` puts its formula around its products.
    return tuple(_part(name) for name in names if "->" not in name)


def _part(name):
    if isinstance(name, ModulePath):
        return Part("module", name, id(name))
    return Part("scope", name)
