"""Functions as graphs: the jaxpr of any JAX function, with its calls inlined, ready to be read or rewritten.

`trace` runs a function on abstract values and returns a `Graph` of nodes in execution order. Calls (`jit`,
custom derivatives, `checkpoint`) are inlined, scalars are followed through them, and a few named calls stay
one node. `structured` graphs keep loops and branches as nodes with bodies, so that a rewritten function still
loops; flat graphs unroll `scan`, for methods that walk backwards over every single operation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer
from jax.extend.core import Literal

from .control_flow import REMAT, STRUCTURES, inner, scan_counts

_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
}
_CUSTOM = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
# Operations whose result at a position depends on their operands at that position alone.
ELEMENTWISE = frozenset(
    "neg exp exp2 log log1p expm1 tanh logistic sin cos tan asin acos atan sinh cosh asinh acosh"
    " atanh sqrt rsqrt cbrt abs sign floor ceil round square integer_pow erf erfc erf_inv is_finite"
    " not convert_element_type reduce_precision copy name stop_gradient add sub mul div max min pow"
    " atan2 gt ge lt le eq ne and or xor select_n clamp rem add_any".split()
)
# Arrays up to this size are looked at to see whether all their values are the same.
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
        name: The primitive's name, or the name of a call that was kept as one operation.
        inputs: Values by number, or literals.
        outputs: Numbers of the results.
        run: Evaluates the node: operands to a tuple of results.
        params: The primitive's parameters.
        bodies: Graphs of loops, branches and checkpointed regions (structured graphs only).
        build: `build(bodies) -> run` for rewritten bodies.
        layer: Name of the mark that follows this node, if the function's layers are marked.
    """

    name: str
    inputs: tuple[Ref, ...]
    outputs: tuple[int, ...]
    run: Callable[..., tuple]
    params: dict[str, Any] = field(default_factory=dict)
    bodies: tuple["Graph", ...] = ()
    build: Callable[..., Callable[..., tuple]] | None = None
    layer: str | None = None


@dataclass(eq=False)
class Graph:
    """A function as nodes in execution order.

    Attributes:
        nodes: The operations.
        inputs: Numbers of the arguments.
        outputs: The results.
        avals: Shape and dtype of every value, by number.
        constants: Arrays that the function closes over, by number.
        splats: Values known to be one number everywhere, by number.
    """

    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    avals: list[Any] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    splats: dict[int, float] = field(default_factory=dict)

    def splat(self, ref: Ref) -> float | None:
        """Return the number that `ref` is everywhere, or None."""
        if isinstance(ref, Constant):
            return _same_everywhere(ref.value)
        return self.splats.get(ref)

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Return the shape of a value."""
        return np.shape(ref.value) if isinstance(ref, Constant) else tuple(self.avals[ref].shape)

    def producers(self) -> dict[int, Node]:
        """Return the node that computes each value."""
        return {out: node for node in self.nodes for out in node.outputs}

    def uses(self) -> dict[int, int]:
        """Count how often each value is read; being a result counts as well."""
        counts: dict[int, int] = {}
        for ref in [*(r for node in self.nodes for r in node.inputs), *self.outputs]:
            if not isinstance(ref, Constant):
                counts[ref] = counts.get(ref, 0) + 1
        return counts

    def dependents(self, roots: Sequence[int]) -> set[int]:
        """Return the values computed from any of `roots`, and those themselves."""
        found = set(roots)
        for node in self.nodes:
            if any(not isinstance(ref, Constant) and ref in found for ref in node.inputs):
                found.update(node.outputs)
        return found


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
        of its results. Tracing is cached on the function and the shapes, so equal calls return the same
        jaxpr.
    """
    leaves = jax.tree.leaves((fn, *args))
    if not (len(leaves) > 0 and any(leaf is fn for leaf in leaves)):
        traced = _call.trace(fn, *args)
        # A function that closes over traced values gets them as arguments that nobody names.
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
    keep: Callable[[Any], str | None] = lambda eqn: None,
    enter: Callable[[Graph], bool] = lambda graph: True,
    open_remat: bool = False,
) -> tuple[Graph, list[Any], Any]:
    """Return the graph of `fn(*args)`, the arrays to evaluate it on and the tree of its results.

    Args:
        fn: Callable pytree; its leaves become inputs of the graph, before those of `args`.
        *args: Pytrees of arrays.
        structured: Keep loops, branches and checkpointed regions as nodes with bodies.
        keep: `keep(equation)` names a call that stays one node.
        enter: In a structured graph, whether a call with its own derivative is opened; it loses that
            derivative.
        open_remat: In a structured graph, whether `enter` opens checkpointed regions too.
    """
    closed, flat, tree = jaxpr_of(fn, *args)
    graph = graph_of(closed, structured=structured, keep=keep, enter=enter, open_remat=open_remat)
    return graph, flat, tree


def graph_of(
    closed: Any,
    *,
    structured: bool = False,
    keep: Callable[[Any], str | None] = lambda eqn: None,
    enter: Callable[[Graph], bool] = lambda graph: True,
    open_remat: bool = False,
) -> Graph:
    """Return the graph of a closed jaxpr; the options are those of `trace`."""
    return _Builder(structured, keep, enter, open_remat).build(closed)


class _Builder:
    """Builds one graph from a closed jaxpr."""

    def __init__(self, *options):
        self.options = options
        self.structured, self.keep, self.enter, self.open_remat = options
        self.graph = Graph()

    def build(self, closed) -> Graph:
        graph = self.graph
        consts, args = self._constants(closed), []
        for var in inner(closed).invars:
            args.append(self.new(var.aval))
        graph.inputs = args
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
        primitive = eqn.primitive.name
        kept = self.keep(eqn)
        if kept is not None:
            return self.node(eqn, inputs, kept)
        if primitive in _INLINED:
            return self.inline_closed(eqn.params[_INLINED[primitive]], inputs)
        if primitive in _CUSTOM:
            body = eqn.params[_CUSTOM[primitive]]
            if not self.structured or self.enter(_Builder(*self.options).build(body)):
                return self.inline_closed(body, inputs)
            return self.node(eqn, inputs, primitive)
        if not self.structured:
            if primitive in REMAT:
                return self.inline_closed(eqn.params["jaxpr"], inputs)
            if primitive == "scan":
                return self.unroll(eqn.params, inputs)
        elif primitive in STRUCTURES:
            bodies, build = STRUCTURES[primitive](eqn.params)
            graphs = tuple(_Builder(*self.options).build(body) for body in bodies)
            if primitive in REMAT and self.open_remat and self.enter(graphs[0]):
                return self.inline_closed(bodies[0], inputs)
            return self.node(eqn, inputs, primitive, bodies=graphs, build=build)
        return self.node(eqn, inputs, primitive)

    def inline_closed(self, closed, inputs):
        return self.inline(inner(closed), self._constants(closed), inputs)

    def node(self, eqn, inputs, name, **more) -> tuple[int, ...]:
        outputs = tuple(self.new(var.aval) for var in eqn.outvars)
        self.graph.nodes.append(Node(name, tuple(inputs), outputs, _runner(eqn), eqn.params, **more))
        if name in _KEEPS_SPLAT and (number := self.graph.splat(inputs[0])) is not None:
            self.graph.splats[outputs[0]] = number
        return outputs

    def helper(self, name: str, run: Callable[..., Any], inputs: Sequence[Ref]) -> int:
        avals = [
            jax.ShapeDtypeStruct(np.shape(r.value), jnp.result_type(r.value))
            if isinstance(r, Constant)
            else jax.ShapeDtypeStruct(self.graph.avals[r].shape, self.graph.avals[r].dtype)
            for r in inputs
        ]
        out = self.new(jax.eval_shape(run, *avals))
        self.graph.nodes.append(Node(name, tuple(inputs), (out,), lambda *xs: (run(*xs),)))
        return out

    def unroll(self, params, inputs):
        """Inline a scan's body once for each of its steps."""
        body = params["jaxpr"]
        consts, carry = scan_counts(params)
        fixed, state, xs = inputs[:consts], inputs[consts : consts + carry], inputs[consts + carry :]
        steps = range(params["length"])
        slices: dict[int, list[Ref]] = {}
        for step in reversed(steps) if params["reverse"] else steps:
            here = [
                self.helper("slice", partial(lax.index_in_dim, index=step, keepdims=False), [x]) for x in xs
            ]
            outputs = self.inline_closed(body, [*fixed, *state, *here])
            state, slices[step] = outputs[:carry], outputs[carry:]

        def stack(*values):
            return jnp.stack(values)

        count = len(inner(body).outvars) - carry
        ys = [self.helper("stack", stack, [slices[step][i] for step in steps]) for i in range(count)]
        return [*state, *ys]


# Operations on a single operand that leave one number everywhere as it is.
_KEEPS_SPLAT = ("convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "copy", "copy_p", "name")


def _typed(literal):
    value = literal.val
    dtype = getattr(literal.aval, "dtype", None)
    return value if dtype is None or isinstance(value, jax.Array) else np.asarray(value, dtype)


def _runner(eqn) -> Callable[..., tuple]:
    def run(*operands):
        with eqn.ctx.manager:
            out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
        return tuple(out) if eqn.primitive.multiple_results else (out,)

    return run


Replacements = Callable[[Graph], dict[int, tuple[Callable[..., Any], tuple[Ref, ...]]]]


def evaluate(graph: Graph, args: Sequence[Any], replacements: Replacements = lambda graph: {}) -> list[Any]:
    """Run a graph, with some of its values computed by other functions.

    Args:
        graph: As `trace` returns it.
        args: The arrays that `trace` returned, or others of their shapes.
        replacements: `replacements(graph)` returns, for the first output of a node, `(function, operands)` to
            compute it by instead; called on the bodies of structured nodes as well.
    """
    replaced = replacements(graph)
    env: dict[int, Any] = dict(graph.constants)
    env.update(zip(graph.inputs, args, strict=True))

    def read(ref):
        return ref.value if isinstance(ref, Constant) else env[ref]

    for node in graph.nodes:
        if node.outputs and node.outputs[0] in replaced:
            function, operands = replaced[node.outputs[0]]
            env[node.outputs[0]] = function(*map(read, operands))
            continue
        run = node.run
        if node.build is not None and any(touches(body, replacements) for body in node.bodies):
            run = node.build(*(partial(_evaluate_body, body, replacements) for body in node.bodies))
        env.update(zip(node.outputs, run(*map(read, node.inputs)), strict=True))
    return [read(ref) for ref in graph.outputs]


def _evaluate_body(body, replacements, *args):
    return [jnp.asarray(x) for x in evaluate(body, args, replacements)]


def touches(graph: Graph, replacements: Replacements) -> bool:
    """Return whether `replacements` change anything in a graph or in its bodies."""
    return bool(replacements(graph)) or any(
        touches(body, replacements) for node in graph.nodes for body in node.bodies
    )


def marked(model: Any, x: jax.Array) -> jax.Array:
    """Run a layered model with each layer's output marked by its name; other models as they are."""
    names = getattr(model, "layer_names", ())
    if not names or hasattr(model, "split"):
        return model(x)
    x = checkpoint_name(model(x, stop=names[0]), names[0])
    for before, name in pairwise(names):
        x = checkpoint_name(model(x, start=before, stop=name), name)
    return x
