"""Functions as graphs: the jaxpr of any JAX function, with its calls inlined, ready to be read or rewritten.

`trace` runs a function on abstract values and returns a `Graph` of nodes in execution order. Calls (`jit`,
custom derivatives, `checkpoint`) are inlined and scalars are followed through them; the library's own layers
(see `marks`) stay one node each, read as the standard operation that they compute. `structured` graphs keep
loops and branches as nodes with bodies, so that a rewritten function still loops; flat graphs unroll `scan`,
for methods that walk backwards over every single operation. Every node records the scopes in which it was
traced.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import Literal

from . import marks
from .control_flow import REMAT, STRUCTURES, inner, scan_counts
from .facts import fact
from .scopes import Part, Scope, of_equation

_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
}
# Calls with a derivative of their own, and the parameters that hold their bodies.
CUSTOM = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
# Arrays up to this size are checked for being constant.
_SMALL = 4096


@dataclass(frozen=True, eq=False)
class Constant:
    """A literal operand."""

    value: Any


Ref = int | Constant


@dataclass(eq=False)
class Node:
    """One operation: `run(*operands) -> outputs`.

    Attributes:
        name: The primitive's name; for a layer of the library's own, that of the operation it computes.
        inputs: Values by number, or literals.
        outputs: Numbers of the results.
        run: Evaluates the node: operands to a tuple of results.
        params: The primitive's parameters.
        bodies: Graphs of loops, branches and checkpointed regions (structured graphs only).
        build: `build(bodies) -> run` for rewritten bodies.
        layer: Name of the mark that follows this node, if the function's layers are marked.
        scope: The scopes that contain the operation, outermost first.
        own: Whether `run` is one of the library's own layers, with its own derivative.
    """

    name: str
    inputs: tuple[Ref, ...]
    outputs: tuple[int, ...]
    run: Callable[..., tuple]
    params: dict[str, Any] = field(default_factory=dict)
    bodies: tuple["Graph", ...] = ()
    build: Callable[..., Callable[..., tuple]] | None = None
    layer: str | None = None
    scope: Scope = ()
    own: bool = False


@dataclass(eq=False)
class Graph:
    """A function as nodes in execution order.

    Attributes:
        nodes: The operations.
        inputs: Numbers of the parameters and arguments.
        arguments: Numbers of the arguments only; for a body, of all its inputs.
        outputs: The results.
        avals: Shape and dtype of every value, by number.
        constants: Arrays that the function closes over, by number.
        splats: Values known to be one number everywhere, by number.
    """

    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    arguments: list[int] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    avals: list[Any] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    splats: dict[int, float] = field(default_factory=dict)

    def splat(self, ref: Ref) -> float | None:
        """Return the number that `ref` equals everywhere, or None."""
        if isinstance(ref, Constant):
            return _same_everywhere(ref.value)
        return self.splats.get(ref)

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Return the shape of a value."""
        return np.shape(ref.value) if isinstance(ref, Constant) else tuple(self.avals[ref].shape)

    def dtype(self, ref: Ref) -> Any:
        """Return the type of a value."""
        return jnp.result_type(ref.value) if isinstance(ref, Constant) else self.avals[ref].dtype

    def producers(self) -> dict[Ref, Node]:
        """Return the node that computes each value."""
        return {out: node for node in self.nodes for out in node.outputs}

    def uses(self) -> dict[int, int]:
        """Count how often each value is read, including as a result."""
        counts: dict[int, int] = {}
        for ref in values_of([*(r for node in self.nodes for r in node.inputs), *self.outputs]):
            counts[ref] = counts.get(ref, 0) + 1
        return counts

    def readers(self) -> dict[Ref, list[Node]]:
        """Return the nodes that read each value, in order."""
        found: dict[Ref, list[Node]] = {}
        for node in self.nodes:
            for ref in dict.fromkeys(values_of(node.inputs)):
                found.setdefault(ref, []).append(node)
        return found

    def part(self, inputs: Sequence[int], outputs: Sequence[Ref]) -> "Graph":
        """Return the nodes that compute some values from others, and the further values that they read."""
        needed, nodes = set(values_of(outputs)) - set(inputs), []
        for node in reversed(self.nodes):
            if any(out in needed for out in node.outputs):
                nodes.append(node)
                needed.update(ref for ref in values_of(node.inputs) if ref not in inputs)
        return replace(self, nodes=nodes[::-1], inputs=list(inputs), outputs=list(outputs))

    def dependents(self, roots: Sequence[int]) -> set[int]:
        """Return the values computed from any of `roots`, including these."""
        found = set(roots)
        for node in self.nodes:
            if any(ref in found for ref in values_of(node.inputs)):
                found.update(node.outputs)
        return found


def values_of(refs: Iterable[Ref]) -> list[int]:
    """Return the operands that are values of the graph, without literals."""
    return [ref for ref in refs if not isinstance(ref, Constant)]


def _same_everywhere(value: Any) -> float | None:
    if isinstance(value, Tracer) or np.size(value) == 0 or np.size(value) > _SMALL:
        return None
    kind = jnp.result_type(value)
    if not any(jnp.issubdtype(kind, known) for known in (jnp.floating, jnp.integer, jnp.bool_)):
        return None
    array = np.asarray(value).ravel()
    return float(array[0]) if (array == array[0]).all() else None


@jax.jit
def _call(fn, *args):
    return fn(*args)


def jaxpr_of(fn: Any, *args: Any) -> tuple[Any, list[Any], Any]:
    """Trace a callable pytree on arrays.

    Returns:
        The closed jaxpr, the arrays to call it with (the leaves of `fn`, then those of `args`), and the tree
        of its results. Tracing is cached by function and shapes, so equal calls return the same jaxpr.
    """
    leaves = jax.tree.leaves((fn, *args))
    if not (len(leaves) > 0 and any(leaf is fn for leaf in leaves)):
        traced = _call.trace(fn, *args)
        # A function that closes over traced values gets them as unnamed arguments.
        if len(traced.jaxpr.jaxpr.invars) == len(leaves):
            return traced.jaxpr, leaves, jax.tree.structure(traced.out_info)
    flat, structure = jax.tree.flatten(args)

    def call(*flat):
        return fn(*jax.tree.unflatten(structure, flat))

    closed, shapes = jax.make_jaxpr(call, return_shape=True)(*flat)
    return closed, flat, jax.tree.structure(shapes)


def trace(
    fn: Any,
    *args: Any,
    structured: bool = False,
    enter: Callable[[Graph], bool] = lambda graph: True,
) -> tuple[Graph, list[Any], Any]:
    """Return the graph of `fn(*args)`, the arrays on which to evaluate it and the tree of its results.

    Args:
        fn: Callable pytree; its leaves become inputs of the graph, before those of `args`.
        *args: Pytrees of arrays.
        structured: Keep loops, branches and checkpointed regions as nodes with bodies.
        enter: In a structured graph, decides whether a call with its own derivative is inlined, which
            discards that derivative.
    """
    closed, flat, tree = jaxpr_of(fn, *args)
    graph = graph_of(closed, structured=structured, enter=enter)
    graph.arguments = graph.inputs[len(graph.inputs) - len(jax.tree.leaves(args)) :]
    return graph, flat, tree


Opens = Callable[[str, dict[str, Any], Graph], bool]


def _nothing(primitive: str, params: dict[str, Any], body: Graph) -> bool:
    return False


def regions(primitive: str, params: dict[str, Any], body: Graph) -> bool:
    """Inline checkpointed regions, but no loops: an argument for `graph_of`."""
    return primitive in REMAT


def graph_of(
    closed: Any,
    *,
    structured: bool = False,
    enter: Callable[[Graph], bool] = lambda graph: True,
    opens: Opens = _nothing,
) -> Graph:
    """Return the graph of a closed jaxpr.

    Args:
        closed: The jaxpr.
        structured: As in `trace`.
        enter: As in `trace`.
        opens: In a structured graph, decides whether a checkpointed region or a `scan` is inlined,
            `opens(primitive, params, body)`.
    """
    return _Builder(_Options(structured, enter, opens)).build(closed)


class _Options(NamedTuple):
    structured: bool
    enter: Callable[[Graph], bool]
    opens: Opens


class _Builder:
    """Builds one graph from a closed jaxpr."""

    def __init__(self, options: _Options, scope: Scope = ()):
        self.options, self.scope, self.visits = options, scope, count(1)
        self.graph = Graph()

    def build(self, closed) -> Graph:
        graph = self.graph
        consts, args = self._constants(closed), []
        for var in inner(closed).invars:
            args.append(self.new(var.aval))
        graph.inputs = graph.arguments = args
        graph.outputs = self.inline(inner(closed), consts, args)
        return graph

    def new(self, aval) -> int:
        self.graph.avals.append(aval)
        return len(self.graph.avals) - 1

    def _constants(self, closed) -> list[int]:
        refs = []
        for var, value in zip(inner(closed).constvars, getattr(closed, "consts", ()), strict=True):
            ref = self.new(var.aval)
            self.graph.constants[ref] = value
            number = _same_everywhere(value)
            if number is not None:
                self.graph.splats[ref] = number
            refs.append(ref)
        return refs

    def inline(self, jaxpr, consts: Sequence[Ref], args: Sequence[Ref]) -> list[Ref]:
        env: dict[Any, Ref] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom):
            return Constant(_typed(atom)) if isinstance(atom, Literal) else env[atom]

        for eqn in jaxpr.eqns:
            outputs = self.equation(eqn, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn, inputs: list[Ref]) -> Sequence[Ref]:
        primitive, params, structured = eqn.primitive.name, eqn.params, self.options.structured
        if marks.is_mark(eqn):
            return inputs[:1]
        if primitive in _INLINED:
            standard = marks.standard(eqn)
            if standard is not None:
                return self.node(eqn, inputs, standard.name, standard.params, own=True)
            call = Part("call", str(params.get("name", "")), next(self.visits))
            return self.inline_closed(params[_INLINED[primitive]], inputs, eqn, call)
        if primitive in CUSTOM:
            body = params[CUSTOM[primitive]]
            if not structured or self.options.enter(self.body(body, eqn)):
                return self.inline_closed(body, inputs, eqn)
        elif not structured and primitive in REMAT:
            return self.inline_closed(params["jaxpr"], inputs, eqn)
        elif not structured and primitive == "scan":
            return self.unroll(eqn, inputs)
        elif primitive in STRUCTURES:
            bodies, build = STRUCTURES[primitive](params)
            graphs = tuple(self.body(body, eqn) for body in bodies)
            if primitive in (*REMAT, "scan") and self.options.opens(primitive, params, graphs[0]):
                if primitive == "scan":
                    return self.unroll(eqn, inputs)
                return self.inline_closed(bodies[0], inputs, eqn)
            return self.node(eqn, inputs, primitive, params, bodies=graphs, build=build)
        return self.node(eqn, inputs, primitive, params)

    def scope_of(self, eqn) -> Scope:
        return (*self.scope, *of_equation(eqn))

    def body(self, closed, eqn) -> Graph:
        return _Builder(self.options, self.scope_of(eqn)).build(closed)

    def inline_closed(self, closed, inputs, eqn, *within: Part):
        outer, self.scope = self.scope, (*self.scope_of(eqn), *within)
        outputs = self.inline(inner(closed), self._constants(closed), inputs)
        self.scope = outer
        return outputs

    def node(self, eqn, inputs, name, params, **more) -> tuple[int, ...]:
        outputs = tuple(self.new(var.aval) for var in eqn.outvars)
        scope = self.scope_of(eqn)
        self.graph.nodes.append(Node(name, tuple(inputs), outputs, _runner(eqn), params, scope=scope, **more))
        # An operation that only rearranges a constant array leaves its value.
        if len(inputs) == 1 and fact(name).rearranges and (number := self.graph.splat(inputs[0])) is not None:
            self.graph.splats.update(dict.fromkeys(outputs, _converted(number, eqn.outvars[0].aval.dtype)))
        return outputs

    def helper(self, eqn, run: Callable[..., Any], inputs: Sequence[Ref]) -> Ref:
        """Add the operations of a function in place of an equation."""
        avals = [
            jax.ShapeDtypeStruct(np.shape(r.value), jnp.result_type(r.value))
            if isinstance(r, Constant)
            else jax.ShapeDtypeStruct(self.graph.avals[r].shape, self.graph.avals[r].dtype)
            for r in inputs
        ]
        return self.inline_closed(jax.make_jaxpr(run)(*avals), inputs, eqn)[0]

    def unroll(self, eqn, inputs):
        """Inline a scan's body once for each of its steps."""
        params = eqn.params
        body = params["jaxpr"]
        consts, carry = scan_counts(params)
        fixed, state, xs = inputs[:consts], inputs[consts : consts + carry], inputs[consts + carry :]
        steps = range(params["length"])
        slices: dict[int, list[Ref]] = {}
        for step in reversed(steps) if params["reverse"] else steps:
            entry = partial(lax.index_in_dim, index=step, keepdims=False)
            here = [self.helper(eqn, entry, [x]) for x in xs]
            visit = Part("step", f"[{step}]", next(self.visits))
            outputs = self.inline_closed(body, [*fixed, *state, *here], eqn, visit)
            state, slices[step] = outputs[:carry], outputs[carry:]

        def stack(*values):
            return jnp.stack(values)

        count = len(inner(body).outvars) - carry
        ys = [self.helper(eqn, stack, [slices[step][i] for step in steps]) for i in range(count)]
        return [*state, *ys]


def _typed(literal):
    value = literal.val
    dtype = getattr(literal.aval, "dtype", None)
    return value if dtype is None or isinstance(value, jax.Array) else np.asarray(value, dtype)


def _converted(number: float, dtype) -> float:
    return float(np.asarray(number).astype(dtype)) if jnp.issubdtype(dtype, np.integer) else number


def _runner(eqn) -> Callable[..., tuple]:
    def run(*operands):
        with eqn.ctx.manager:
            out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
        return tuple(out) if eqn.primitive.multiple_results else (out,)

    return run
