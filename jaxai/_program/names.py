"""Names for the values of a program: marks, calls of modules, named scopes and bottlenecks of the graph.

Values that a user marked with `checkpoint_name` come first. Calls of modules that were marked while the model
was traced (see `_frame.calls`) have the modules' paths as names. A program without them is read by its named
scopes: the layer of a scope is the value computed inside and used outside. In a program without scopes,
layers are the values that alone carry everything that depends on the images, named by the functions that
return them.
"""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp

from .control_flow import inner
from .facts import fact
from .graph import CUSTOM, Graph, Node, values_of
from .marks import ModulePath
from .scopes import Part, Scope

# A layer's place in the program (node, then order within it), its name, its value.
Found = tuple[int, str, int]


def marks_of(graph: Graph) -> dict[str, int]:
    """Return the values that a user marked, by name, in forward order; the last input are images."""
    return _numbered(_marks(graph, _moving(graph))[0])


def layers_of(graph: Graph) -> dict[str, int]:
    """Return the layers of a graph whose last input are images, by name, in forward order.

    A name that occurs again is numbered: `block`, `block#2`, ...
    """
    moving = _moving(graph)
    marks, modules = _marks(graph, moving)
    found = modules or _scopes(graph, moving) or ([] if marks else _narrow(graph, moving))
    return _numbered(marks, found)


def _numbered(*groups: list[Found]) -> dict[str, int]:
    """Return values by name, numbered in order, the first group first."""
    names: dict[str, tuple[int, int]] = {}
    for group in groups:
        counts: dict[str, int] = {}
        for position, name, value in group:
            counts[name] = counts.get(name, 0) + 1
            while (numbered := name if counts[name] == 1 else f"{name}#{counts[name]}") in names:
                counts[name] += 1
            names[numbered] = position, value
    return {name: value for name, (_, value) in sorted(names.items(), key=lambda item: item[1][0])}


def has_names(graph: Graph) -> bool:
    """Return whether a graph has named values or scopes of its own and is therefore worth inlining."""
    return any(
        node.name == "name" or any(part.kind in ("module", "scope") for part in node.scope)
        for node in graph.nodes
    )


def _moving(graph: Graph) -> set[int]:
    """Return the floating values that depend on the images and influence the results."""
    read = {out for node in graph.part(graph.inputs, graph.outputs).nodes for out in node.outputs}
    found = read & graph.dependents(graph.inputs[-1:])
    return {value for value in found if jnp.issubdtype(graph.avals[value].dtype, jnp.floating)}


def _marks(graph: Graph, moving: set[int]) -> tuple[list[Found], list[Found]]:
    """Return the values that a user marked, and the results of modules."""
    marks: list[Found] = []
    modules: list[Found] = []
    for position, node in enumerate(graph.nodes):
        if node.name != "name" or node.outputs[0] not in moving:
            continue
        name = node.params["name"]
        if isinstance(name, ModulePath):
            modules.append((position, _path(node.scope, name), node.outputs[0]))
        else:
            marks.append((position, "/".join([*_steps(node.scope), name]), node.outputs[0]))
    return marks, modules


def _steps(scope: Scope) -> list[str]:
    return [part.name for part in scope if part.kind == "step"]


def _path(scope: Scope, own: ModulePath) -> str:
    """Return a module's path, with `/[step]` after the outermost module called in a step of a loop.

    `blocks.attention` in step 1 of a loop over the stacked `blocks` is `blocks/[1]/attention`.
    """
    text, last, steps = "", "", []
    for part in (*scope, Part("module", own)):
        if part.kind == "step":
            steps.append(part.name)
        if part.kind != "module":
            continue
        within = not last or part.name == last or part.name.startswith(last + own.separator)
        rest = part.name[len(last) :].removeprefix(own.separator) if within else part.name
        if not within:
            text = ""
        if rest:
            text += ("/" if text.endswith("]") and "/[" in text else own.separator if text else "") + rest
        text, last, steps = "/".join([text, *steps]).lstrip("/"), part.name, []
    return text + own.place


# Scopes


def _visits(graph: Graph, kinds: Sequence[str]) -> list[tuple[Scope, int, int]]:
    """Return the range of nodes of each visit of a scope: its first, and the one after its last."""
    open_: dict[Scope, int] = {}
    found = []
    for position, node in enumerate(graph.nodes):
        now = {node.scope[: k + 1] for k, part in enumerate(node.scope) if part.kind in kinds}
        for scope in [scope for scope in open_ if scope not in now]:
            found.append((scope, open_.pop(scope), position))
        for scope in now:
            open_.setdefault(scope, position)
    found += [(scope, start, len(graph.nodes)) for scope, start in open_.items()]
    return sorted(found, key=lambda visit: (visit[2], -visit[1], -len(visit[0])))


def _exits(
    graph: Graph, moving: set[int], kinds: Sequence[str]
) -> Iterator[tuple[Scope, int, int, list[int]]]:
    """Return the values computed in each visit of a scope and used outside."""
    last = _last_uses(graph)
    for scope, start, end in _visits(graph, kinds):
        results = [out for node in graph.nodes[start:end] for out in node.outputs]
        yield scope, start, end, [v for v in results if v in moving and last.get(v, -1) >= end]


def _last_uses(graph: Graph) -> dict[int, int]:
    last = {ref: i for i, node in enumerate(graph.nodes) for ref in values_of(node.inputs)}
    return last | dict.fromkeys(values_of(graph.outputs), len(graph.nodes))


def _scopes(graph: Graph, moving: set[int]) -> list[Found]:
    """Return the results of named scopes; scopes around the whole function are omitted from the names."""
    nodes = [node for node in graph.nodes if moving.intersection(node.outputs)]
    paths = [[p.name for p in node.scope if p.kind in ("scope", "step")] for node in nodes]
    root = _common(paths) if any(paths) else []
    found = []
    for scope, _, end, results in _exits(graph, moving, ("scope",)):
        names = [part.name for part in scope if part.kind in ("scope", "step")][len(root) :]
        if names:
            found += [(end, "/".join(names), value) for value in results]
    return found


def _common(paths):
    shortest = min(paths, key=len)
    for k, name in enumerate(shortest):
        if any(path[k] != name for path in paths):
            return shortest[:k]
    # The innermost scope of a function that has no other is a layer.
    return shortest[:-1]


# Programs without names


def _narrow(graph: Graph, moving: set[int]) -> list[Found]:
    """Return the values that alone carry everything that depends on the images."""
    names: dict[int, str] = {}
    for scope, _, _, results in _exits(graph, moving, ("call", "step")):
        if len(results) == 1 and not scope[-1].name.startswith("_"):
            # Outer functions come later, and name the value.
            names[results[0]] = "/".join([*_steps(scope[:-1]), scope[-1].name])
    outputs = set(values_of(graph.outputs))
    found = []
    for position, value in cuts(graph):
        node = graph.nodes[position]
        name = names.get(value)
        if name is None and not fact(node.name).rearranges:
            name = "/".join([*_steps(node.scope), _function(node)])
        if name is not None and value in moving and value not in outputs:
            found.append((position, name, value))
    return found


def _function(node: Node) -> str:
    """Return the name of the function or the operation that a node runs."""
    body = inner(node.params[CUSTOM[node.name]]).eqns if node.name in CUSTOM else ()
    return str(body[0].params["name"]) if len(body) == 1 and "name" in body[0].params else node.name


def cuts(graph: Graph) -> list[tuple[int, int]]:
    """Return the nodes whose result alone carries all that depends on the images, and these results."""
    moving = graph.dependents(graph.inputs[-1:])
    last = _last_uses(graph)
    alive, found = set(graph.inputs[-1:]), []
    for position, node in enumerate(graph.nodes):
        alive = {v for v in alive if last.get(v, -1) > position}
        new = {out for out in node.outputs if out in moving and last.get(out, -1) > position}
        alive |= new
        if len(alive) == 1 and new:
            found.append((position, next(iter(new))))
    return found
