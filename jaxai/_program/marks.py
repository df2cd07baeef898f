"""Marks on the library's own layers, which let programs be read as the operations that layers compute.

A layer of `jaxai.models` may be written as shifted slices, or with a derivative of its own, although it
computes the same as `lax.conv_general_dilated`. Inside its compiled call it marks its result with the JAX
operation that has the same values. Readers of programs then see that operation, with all of its parameters,
but run the layer. The mark is a primitive of its own that takes the call's operands: no user function can be
mistaken for a layer, whatever its name and whatever it calls.

Modules of other libraries are marked while a model is traced: a call's operations lie in a named scope and
its results have a name, both of a type of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


class ModulePath(str):
    """A module's path in its model, as the name of a scope or of a value; each call has its own.

    Attributes:
        separator: Text between the parts of the path.
        place: Index of a value among several results, such as `[0]`.
    """

    separator = "."
    place = ""

    def at(self, place: str) -> "ModulePath":
        """Return the name of one of several results."""
        path = type(self)(self)
        path.place = place
        return path


@dataclass(frozen=True, eq=False)
class Standard:
    """An operation of JAX: a primitive's name and its parameters."""

    name: str
    params: dict[str, Any]


_mark_p = Primitive("jaxai_layer")
_mark_p.def_impl(lambda y, *operands, standard: y)
_mark_p.def_abstract_eval(lambda y, *operands, standard: y)
mlir.register_lowering(_mark_p, lambda ctx, y, *operands, standard: [y])


# Derivatives and batched calls are no longer layers.
def _jvp(primals, tangents, **params):
    return _mark_p.bind(*primals, **params), tangents[0]


ad.primitive_jvps[_mark_p] = _jvp
batching.primitive_batchers[_mark_p] = lambda values, axes, **params: (values[0], axes[0])


def layer(y: jax.Array, operands: Sequence[jax.Array], reference: Callable[..., jax.Array]) -> jax.Array:
    """Mark the result of a compiled call: `y` is `reference(*operands)`, one operation of JAX.

    Args:
        y: The call's only result, returned unchanged.
        operands: All arrays passed to the call, in order.
        reference: The operation.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
    jaxpr, result = jax.make_jaxpr(reference, return_shape=True)(*shapes)
    (eqn,) = jaxpr.eqns
    if list(eqn.invars) != list(jaxpr.jaxpr.invars) or result.shape != y.shape:
        raise ValueError(f"a layer must be marked with the one operation that it computes; got {jaxpr}")
    return _mark_p.bind(y, *operands, standard=Standard(eqn.primitive.name, eqn.params))


def is_mark(eqn: Any) -> bool:
    """Return whether an equation is a mark, whose first operand is its result."""
    return eqn.primitive is _mark_p


def standard(eqn: Any) -> Standard | None:
    """Return the operation that a call computes if it is one of the library's layers, or None."""
    body = getattr(eqn.params.get("jaxpr"), "jaxpr", None)
    if body is None or not body.eqns or not is_mark(body.eqns[-1]):
        return None
    mark = body.eqns[-1]
    # A layer that was inlined into another call has operands that are not the call's.
    if list(mark.invars[1:]) != list(body.invars) or list(mark.outvars) != list(body.outvars):
        return None
    return mark.params["standard"]
