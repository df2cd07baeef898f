"""Detection of norms and softmaxes as single units, however they are written.

A norm is recognised by its statistic: a root of sums over its input by which the input, or the input minus
its mean, is multiplied or divided. With the statistic held constant, the rest must be linear. Input and
result are found as the values that every path passes through (dominators), so that the order of the steps,
the guards against small variances and the intermediate shapes do not matter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from .facts import fact
from .graph import Constant, Graph, Node, Ref, values_of

_ROOTS = ("rsqrt", "sqrt", "pow")


@dataclass(frozen=True)
class Whole:
    """A norm, softmax or log-softmax.

    Attributes:
        kind: norm, softmax or log_softmax.
        x: Its input.
        nodes: The nodes that compute the result from the input; other values that they read are held
            constant.
        statistics: For norms, the nodes that compute the statistics from the input.
        axes: For softmaxes, the axes of the sum.
    """

    kind: str
    x: int
    nodes: list[Node]
    statistics: list[Node] = field(default_factory=list)
    axes: tuple[int, ...] = ()


def find_wholes(graph: Graph, image: int) -> list[Whole]:
    """Return the norms and softmaxes of a flat graph, in order."""
    names = {node.name for node in graph.nodes}
    if not names & {"exp", *_ROOTS}:
        return []
    search = _Search(graph, image)
    found = [whole for node in graph.nodes if (whole := search.softmax(node)) is not None]
    if names & set(_ROOTS):
        above, below = search.dominators(), search.post_dominators()
        for node in graph.nodes:
            if node.name in _ROOTS and search.depends(node.outputs[0]):
                norm = search.norm(node.outputs[0], above, below)
                if norm is not None and not any(search.overlap(norm, other) for other in found):
                    found.append(norm)
    return found


def find_softmaxes(graph: Graph, image: int) -> list[Whole]:
    """Return the softmaxes of a graph, in order; loops and branches are not searched."""
    search = _Search(graph, image)
    found = [whole for node in graph.nodes if (whole := search.softmax(node)) is not None]
    return [whole for whole in found if whole.kind == "softmax"]


def dominators(graph: Graph, image: int) -> dict[int, int]:
    """Return the last value on every path from the images to each value, by value."""
    return _Search(graph, image).dominators()


class _Search:
    """A search for norms and softmaxes in one graph."""

    def __init__(self, graph: Graph, image: int):
        self.graph, self.image = graph, image
        self.dependent = graph.dependents([image])
        self.producers = graph.producers()
        self.readers = replace(graph, nodes=graph.part(graph.inputs, graph.outputs).nodes).readers()

    def depends(self, ref: Ref) -> TypeGuard[int]:
        return not isinstance(ref, Constant) and ref in self.dependent

    def overlap(self, one: Whole, other: Whole) -> bool:
        return bool(set(map(id, one.nodes)) & set(map(id, other.nodes)))

    def producer(self, ref: Ref, *names: str) -> Node | None:
        """Return the node that computes a value, before rearrangements, if its primitive is one of these."""
        node = None if isinstance(ref, Constant) else self.producers.get(ref)
        while node is not None and fact(node.name).rearranges and len(node.inputs) == 1:
            node = None if isinstance(node.inputs[0], Constant) else self.producers.get(node.inputs[0])
        return node if node is not None and node.name in names else None

    def between(self, inputs: Sequence[int], output: int) -> list[Node]:
        """Return the nodes that depend on the images and lead to `output`, up to `inputs`."""
        part = self.graph.part(inputs, [output]).nodes
        return [node for node in part if any(map(self.depends, node.inputs))]

    def leaks(self, nodes: Sequence[Node], output: int, others: Sequence[Node] = ()) -> bool:
        """Return whether an intermediate value is read by any other node, or is a result."""
        inside = set(map(id, (*nodes, *others)))
        values = {out for node in nodes for out in node.outputs} - {output}
        return any(
            value in self.graph.outputs or any(id(user) not in inside for user in self.readers.get(value, []))
            for value in values
        )

    # Softmaxes.

    def softmax(self, node: Node) -> Whole | None:
        """Return the softmax or log-softmax of which this node computes the result."""
        if node.name == "div":
            kind, exponential = "softmax", self.exponential(node.inputs[0])
            total = self.producer(node.inputs[1], "reduce_sum")
            summed = None if total is None else self.exponential(total.inputs[0])
            if exponential is None or total is None or summed is None or summed.inputs != exponential.inputs:
                return None
        elif node.name == "sub":
            kind, total = "log_softmax", self.log_of_sum(node.inputs[1])
            exponential = None if total is None else self.exponential(total.inputs[0])
            if total is None or exponential is None:
                return None
        else:
            return None
        axes = tuple(total.params["axes"])
        x, shift = self.unshifted(exponential.inputs[0], axes)
        if kind == "log_softmax" and self.unshifted(node.inputs[0], axes)[0] != x:
            return None
        nodes = self.between([*values_of([x]), *shift], node.outputs[0])
        if not self.depends(x) or self.leaks(nodes, node.outputs[0]):
            return None
        return Whole(kind, x, nodes, axes=axes)

    def exponential(self, ref: Ref) -> Node | None:
        """Return the exponential that `ref` equals, possibly behind a fixed mask."""
        masked = self.producer(ref, "select_n")
        if masked is not None and list(map(self.depends, masked.inputs)) == [False, False, True]:
            ref = masked.inputs[2]
        return self.producer(ref, "exp")

    def log_of_sum(self, ref: Ref) -> Node | None:
        """Return the sum whose logarithm `ref` is, with or without a maximum added back."""
        shifted = self.producer(ref, "add")
        for each in (ref,) if shifted is None else shifted.inputs:
            logarithm = self.producer(each, "log")
            if logarithm is not None:
                size = self.producer(logarithm.inputs[0], "abs")
                return self.producer((logarithm if size is None else size).inputs[0], "reduce_sum")
        return None

    def unshifted(self, ref: Ref, axes: tuple[int, ...]) -> tuple[Ref, list[int]]:
        """Return a value before a subtraction of something constant along `axes`, and what was subtracted."""
        node = None if isinstance(ref, Constant) else self.producers.get(ref)
        if node is not None and node.name == "sub" and self.constant_along(node.inputs[1], axes):
            return node.inputs[0], values_of([node.inputs[1]])
        return ref, []

    def constant_along(self, ref: Ref, axes: tuple[int, ...]) -> bool:
        shape = self.graph.shape(ref)
        if all(axis >= len(shape) or shape[axis] == 1 for axis in axes):
            return True
        node = None if isinstance(ref, Constant) else self.producers.get(ref)
        if node is None or node.name != "broadcast_in_dim":
            return False
        places = node.params["broadcast_dimensions"]
        inner = self.graph.shape(node.inputs[0])
        return all(size == 1 for place, size in zip(places, inner, strict=True) if place in axes)

    # Norms.

    def dominators(self) -> dict[int, int]:
        """Return the last value on every path from the images to each value."""
        steps = (
            (out, [ref for ref in node.inputs if self.depends(ref)])
            for node in self.graph.nodes
            for out in node.outputs
        )
        return _tree(self.image, steps)

    def post_dominators(self) -> dict[int, int]:
        """Return the first value on every path from each value to the results; -1 is the end."""
        values = [self.image, *(out for node in self.graph.nodes for out in node.outputs)]
        steps = (
            (
                value,
                [-1] * (value in self.graph.outputs)
                + [o for n in self.readers.get(value, []) for o in n.outputs],
            )
            for value in reversed(values)
            if value in self.dependent
        )
        return _tree(-1, steps)

    def norm(self, root: int, above: dict[int, int], below: dict[int, int]) -> Whole | None:
        """Return the norm that a root of a sum belongs to."""
        result: int = root
        while (result := below.get(result, -1)) != -1:
            x = above[result]
            nodes = self.between([x, root], result)
            scaled = self.scaled(x, root, nodes).get(result)
            if scaled is None:
                return None
            if scaled:
                break
        else:
            return None
        statistics = self.between([x], root)
        facts = [fact(node.name) for node in statistics]
        if not all(f.elementwise or f.rearranges or f.sums for f in facts) or not any(f.sums for f in facts):
            return None
        nodes = self.with_affine(nodes)
        if self.leaks(nodes, nodes[-1].outputs[0], statistics):
            return None
        return Whole("norm", x, nodes, [] if self.leaks(statistics, -1, nodes) else statistics)

    def scaled(self, x: int, root: int, nodes: Sequence[Node]) -> dict[int, bool]:
        """Mark values that are linear in the input (True), or depend on the statistic alone (False)."""
        known: dict[int, bool] = {x: True, root: False}
        for node in nodes:
            about = fact(node.name)
            given = [known.get(ref) if self.depends(ref) else None for ref in values_of(node.inputs)]
            if any(self.depends(ref) and ref not in known for ref in values_of(node.inputs)):
                continue
            if True not in given:
                if about.elementwise or about.rearranges or about.sums:
                    known.update(dict.fromkeys(node.outputs, False))
                continue
            if about.linear_in and about.elementwise:
                places = [
                    place
                    for place, ref in enumerate(node.inputs)
                    if not isinstance(ref, Constant) and known.get(ref)
                ]
                if len(places) == 1 and places[0] in about.linear_in:
                    known.update(dict.fromkeys(node.outputs, True))
            elif about.linear and False not in given:
                known.update(dict.fromkeys(node.outputs, True))
        return known

    def with_affine(self, nodes: list[Node]) -> list[Node]:
        """Extend a norm by the scale and the shift that follow it."""
        nodes, count = list(nodes), len(nodes)
        while True:
            value = nodes[-1].outputs[0]
            users = self.readers.get(value, [])
            if len(users) != 1 or value in self.graph.outputs or sum(map(self.depends, users[0].inputs)) != 1:
                return nodes[:count]
            about, place = fact(users[0].name), users[0].inputs.index(value)
            affine = about.elementwise and (about.linear or place in about.linear_in)
            if not affine and not (about.rearranges and len(users[0].outputs) == 1):
                return nodes[:count]
            nodes.append(users[0])
            count = count if about.rearranges else len(nodes)


def _tree(root: int, steps: Iterable[tuple[int, Sequence[int]]]) -> dict[int, int]:
    """Return the nearest common ancestor of each value's neighbours, in a tree built step by step."""
    parents, depth = {root: root}, {root: 0}
    for value, neighbours in steps:
        known = [each for each in neighbours if each in parents]
        if not known:
            continue
        meeting = known[0]
        for other in known[1:]:
            while meeting != other:
                if depth[meeting] >= depth[other]:
                    meeting = parents[meeting]
                else:
                    other = parents[other]
        parents[value], depth[value] = meeting, depth[meeting] + 1
    return parents
