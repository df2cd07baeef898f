"""Grouping of a function into the operations of relevance rules: linear layers, activations, pools, sums.

A convolution or dense layer absorbs the bias and the batch norm (any affine map with constants per channel)
that follow it; elementwise operations on one value become one activation, however it is written; a mean is
one pool. The rest are shape changes, products and unsupported operations.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp

from .._program.facts import fact
from .._program.graph import Constant, Graph, Node, Ref, trace
from .._program.relus import Relu, find_relus
from .._program.wholes import find_wholes
from ._operations import Linear, Network, Operation, Step


def network(model: Any, images: jax.Array, *, wholes: bool = True) -> tuple[Network, list[Any]]:
    """Trace `model(images)` into operations; also returns the arrays on which to run it.

    Args:
        model: Callable pytree, `model(images) -> scores`.
        images: Images, concrete or traced.
        wholes: Whether norms and softmaxes are one operation each instead of the operations that they consist
            of.

    Raises:
        TypeError: If the model returns anything but one array.
    """
    graph, flat, tree = trace(model, images)
    if tree.num_leaves != 1 or isinstance(output := graph.outputs[0], Constant):
        raise TypeError(f"`model` must return one array of scores; got {tree}")
    _name_layers(graph)
    image = graph.inputs[-1]
    return Network(graph, _Grouping(graph, image).operations(wholes), image, output), flat


def _name_layers(graph: Graph) -> None:
    layer = None
    for node in reversed(graph.nodes):
        if node.name == "name":
            layer = node.params["name"]
        node.layer = layer


class _Grouping:
    """Groups the nodes of a flat graph into operations."""

    def __init__(self, graph: Graph, image: int):
        self.graph, self.image = graph, image
        self.dependent = graph.dependents([image])
        self.uses = graph.uses()
        self.relus = find_relus(graph)
        self.users = graph.readers()
        self.varies = self._varying_axes()
        self.taken: set[int] = set()

    def depends(self, ref: Ref) -> TypeGuard[int]:
        return not isinstance(ref, Constant) and ref in self.dependent

    def operations(self, wholes: bool) -> list[Operation]:
        found: list[Operation] = []
        for whole in find_wholes(self.graph, self.image) if wholes else ():
            self.taken.update(map(id, (*whole.nodes, *whole.statistics)))
            last = whole.nodes[-1]
            operation = Operation(
                whole.kind, whole.kind, (whole.x,), last.outputs, whole.nodes, layer=last.layer
            )
            operation.statistics, operation.axes = whole.statistics, whole.axes
            found.append(operation)
        live = [n for n in self.graph.nodes if any(map(self.depends, n.inputs)) and self._is_float(n)]
        for node in live:
            if id(node) not in self.taken and (operation := self._layer(node)) is not None:
                found.append(operation)
        rest = [node for node in live if id(node) not in self.taken]
        found += self._activations(rest)
        found += [self._single(node) for node in rest if id(node) not in self.taken]
        position = {id(node): i for i, node in enumerate(self.graph.nodes)}
        found.sort(key=lambda operation: position[id(operation.nodes[-1])])
        self._mark_signs(found)
        return found

    def _is_float(self, node: Node) -> bool:
        return any(jnp.issubdtype(self.graph.avals[out].dtype, jnp.floating) for out in node.outputs)

    def _inputs(self, nodes: Sequence[Node]) -> tuple[int, ...]:
        inner = {out for node in nodes for out in node.outputs}
        read = [ref for node in nodes for ref in node.inputs if self.depends(ref) and ref not in inner]
        return tuple(read if len(nodes) == 1 else dict.fromkeys(read))

    def _operation(self, kind: str, nodes: list[Node], linear: Linear | None = None) -> Operation:
        self.taken.update(map(id, nodes))
        last = nodes[-1]
        return Operation(
            kind, nodes[0].name, self._inputs(nodes), last.outputs, nodes, linear, layer=last.layer
        )

    def _only_user(self, ref: int) -> Node | None:
        users = self.users.get(ref, [])
        return users[0] if self.uses.get(ref) == 1 and len(users) == 1 else None

    def _layer(self, node: Node) -> Operation | None:
        """Return the linear layer or mean that starts at this node."""
        if fact(node.name).sums:
            return self._pool(node)
        linear = self._linear(node)
        if linear is None:
            return None
        nodes, axis, shape = [node], linear.axis, linear.shape
        while (user := self._only_user(nodes[-1].outputs[0])) is not None:
            step = self._step(user, nodes[-1].outputs[0], axis)
            if step is None or id(user) in self.taken:
                break
            if step.kind == "shape":
                new = self.graph.shape(user.outputs[0])
                axis = _moved_axis(user, shape, new, axis)
                shape = new
            linear.steps.append(step)
            nodes.append(user)
        while linear.steps and linear.steps[-1].kind == "shape":
            linear.steps.pop()
            nodes.pop()
        kind = "dense" if node.name == "dot_general" else "conv"
        return self._operation(kind, nodes, linear)

    def _linear(self, node: Node) -> Linear | None:
        if node.name not in ("conv_general_dilated", "dot_general"):
            return None
        left, right = node.inputs
        if self.depends(left) == self.depends(right):
            return None
        shape = self.graph.shape(node.outputs[0])
        if node.name == "dot_general":
            x, kernel = (left, right) if self.depends(left) else (right, left)
            axis, kernel_axis = self._dense_axes(node, kernel is right or kernel == right)
            return Linear(node, x, kernel, axis, kernel_axis, shape)
        if not self.depends(left) or node.params["batch_group_count"] != 1:
            return None
        numbers = node.params["dimension_numbers"]
        return Linear(node, left, right, numbers.out_spec[1], numbers.rhs_spec[0], shape)

    def _dense_axes(self, node: Node, kernel_second: bool) -> tuple[int | None, int | None]:
        (contracted, batch) = node.params["dimension_numbers"]
        kernel = self.graph.shape(node.inputs[1 if kernel_second else 0])
        side = 1 if kernel_second else 0
        used = {*contracted[side], *batch[side]}
        free = [axis for axis in range(len(kernel)) if axis not in used]
        if len(free) != 1 or batch[side]:
            return None, None
        output = len(self.graph.shape(node.outputs[0]))
        return (output - 1 if kernel_second else 0), free[0]

    def _step(self, node: Node, before: int, axis: int | None) -> Step | None:
        # A product and its bias may be layers of their own, as in ONNX files.
        still = ("reshape", "squeeze", "expand_dims", "transpose", "convert_element_type", "copy", "name")
        if node.name in still:
            return Step("shape", node, None, None) if self._is_float(node) else None
        if node.name == "neg":
            return Step("neg", node, None, None)
        if node.name not in ("add", "sub", "mul", "div") or self.graph.shape(node.outputs[0]) != (
            self.graph.shape(before)
        ):
            return None
        left, right = node.inputs
        first = left == before
        constant = right if first else left
        if self.depends(constant):
            return None
        if node.name == "add":
            return Step("add", node, constant, None)
        if node.name == "sub":
            return Step("sub" if first else "from", node, constant, None)
        varies = self._varies(constant)
        if (node.name == "div" and not first) or not varies <= {axis}:
            return None
        return Step(node.name, node, constant, axis if varies else None)

    def _pool(self, node: Node) -> Operation:
        """Return a sum over positions together with the division that makes it a mean."""
        nodes = [node]
        while (user := self._only_user(nodes[-1].outputs[0])) is not None:
            left = user.inputs[0]
            divides = user.name == "div" and left == nodes[-1].outputs[0] and not self.depends(user.inputs[1])
            scales = user.name == "mul" and sum(map(self.depends, user.inputs)) == 1
            if not (divides or scales) or id(user) in self.taken:
                break
            nodes.append(user)
        return self._operation("pool", nodes)

    def _activations(self, nodes: Sequence[Node]) -> list[Operation]:
        """Group elementwise operations that are functions of one value into activations."""
        root: dict[int, int] = {}
        members: dict[int, Node] = {}
        everything = [n for n in self.graph.nodes if any(map(self.depends, n.inputs))]
        for node in everything:
            if id(node) in self.taken or not fact(node.name).elementwise or len(node.outputs) != 1:
                continue
            if node.name == "select_n" and not self.depends(node.inputs[0]):
                # A fixed mask selects values, like a change of shape.
                continue
            shape = self.graph.shape(node.outputs[0])
            inputs = [ref for ref in node.inputs if self.depends(ref)]
            roots = {root.get(ref, ref) for ref in inputs}
            if len(roots) == 1 and all(self.graph.shape(ref) == shape for ref in inputs):
                root[node.outputs[0]] = roots.pop()
                members[node.outputs[0]] = node
        found = []
        for out, node in members.items():
            inside = all(user.outputs and user.outputs[0] in members for user in self.users.get(out, []))
            if (inside and out not in self.graph.outputs) or not self._is_float(node):
                continue
            chain = self._chain(out, root[out], members)
            found.append(
                Operation(
                    self._activation_kind(out, root[out], chain),
                    node.name,
                    (root[out],),
                    (out,),
                    chain,
                    layer=node.layer,
                )
            )
        self.taken.update(id(node) for node in members.values() if self._is_float(node))
        return found

    def _chain(self, out: int, root: int, members: dict[int, Node]) -> list[Node]:
        needed, chain = {out}, []
        for value, node in reversed(members.items()):
            if value in needed:
                chain.append(node)
                needed.update(ref for ref in node.inputs if self.depends(ref) and ref != root)
        return chain[::-1]

    def _activation_kind(self, out: int, root: int, chain: list[Node]) -> str:
        names = {node.name for node in chain}
        if "stop_gradient" in names:
            # `stop_gradient` stops derivatives, but not values.
            return "activation"
        if all(fact(name).rearranges for name in names):
            return "shape"
        if all(map(self._is_affine, chain)):
            return "affine"
        plain = [node for node in chain if not fact(node.name).rearranges]
        relu: Relu | None = self.relus.get(plain[-1].outputs[0]) if plain else None
        return "relu" if relu is not None and relu.x == root else "activation"

    def _is_affine(self, node: Node) -> bool:
        """Return whether a node is an affine map of its one operand that depends on the images."""
        moving = [place for place, ref in enumerate(node.inputs) if self.depends(ref)]
        known = fact(node.name)
        if len(moving) != 1 or (node.name == "select_n" and moving == [0]):
            return False
        return known.linear or moving[0] in known.linear_in

    def _single(self, node: Node) -> Operation:
        return self._operation(self._single_kind(node), [node])

    def _single_kind(self, node: Node) -> str:
        count = sum(map(self.depends, node.inputs))
        known = fact(node.name)
        if node.name in ("add", "sub", "add_any"):
            return "sum"
        if known.picks:
            return "max"
        if known.rearranges or node.name == "select_n":
            return "shape"
        if count == 1 and self._is_affine(node):
            # A scale that changes the shape.
            return "sum"
        return "product" if known.linear_in and count == 2 else "other"

    def _varies(self, ref: Ref) -> frozenset[int]:
        if isinstance(ref, Constant):
            return frozenset(i for i, size in enumerate(self.graph.shape(ref)) if size > 1)
        return self.varies.get(ref, frozenset(i for i, s in enumerate(self.graph.shape(ref)) if s > 1))

    def _varying_axes(self) -> dict[int, frozenset[int]]:
        """Return the axes along which values independent of the images vary, where known."""
        self.varies = {}
        for node in self.graph.nodes:
            if any(map(self.depends, node.inputs)) or len(node.outputs) != 1:
                continue
            out = node.outputs[0]
            shape = self.graph.shape(out)
            if node.name == "broadcast_in_dim":
                axes = node.params["broadcast_dimensions"]
                self.varies[out] = frozenset(int(axes[i]) for i in self._varies(node.inputs[0]))
            elif fact(node.name).elementwise:
                parts = [self._varies(ref) for ref in node.inputs if self.graph.shape(ref)]
                self.varies[out] = frozenset().union(*parts)
            elif node.name in ("reshape", "squeeze", "expand_dims"):
                source = self.graph.shape(node.inputs[0])
                old = [i for i, size in enumerate(source) if size > 1]
                new = [i for i, size in enumerate(shape) if size > 1]
                if [source[i] for i in old] == [shape[i] for i in new]:
                    moved = dict(zip(old, new, strict=True))
                    self.varies[out] = frozenset(moved[i] for i in self._varies(node.inputs[0]))
        return self.varies

    def _mark_signs(self, operations: Sequence[Operation]) -> None:
        """Mark the operations whose input is nowhere negative."""
        known = {out for out, relu in self.relus.items()}
        for node in self.graph.nodes:
            signed = [ref for ref in node.inputs if not jnp.issubdtype(self.graph.dtype(ref), jnp.bool_)]
            keeps = fact(node.name).keeps_sign and all(self._not_negative(ref, known) for ref in signed)
            if fact(node.name).nonnegative or keeps:
                known.update(node.outputs)
        for operation in operations:
            operation.nonnegative = all(ref in known for ref in operation.inputs)

    def _not_negative(self, ref: Ref, known: set[int]) -> bool:
        if not isinstance(ref, Constant) and ref in known:
            return True
        number = self.graph.splat(ref)
        return number is not None and number >= 0


def _moved_axis(node: Node, old: tuple[int, ...], new: tuple[int, ...], axis: int | None) -> int | None:
    """Return the features' axis after a change of shape; None if unknown."""
    if axis is None:
        return None
    if node.name == "transpose":
        return list(node.params["permutation"]).index(axis)
    before = [i for i, size in enumerate(old) if size > 1]
    after = [i for i, size in enumerate(new) if size > 1]
    if [old[i] for i in before] != [new[i] for i in after]:
        return None
    if axis in before:
        return after[before.index(axis)]
    return axis if old == new else None
