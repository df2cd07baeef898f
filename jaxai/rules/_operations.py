"""The operations of relevance rules: linear layers with everything folded into them, and all others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._program.graph import Constant, Graph, Node, Ref, values_of
from .._program.run import evaluate, values
from ._dense import product
from ._loop_safe import convolution


@dataclass(eq=False)
class Operation:
    """A step of the network that depends on the images.

    Attributes:
        kind: conv, dense, pool, max, relu, activation, affine, sum, shape, product, norm, softmax,
            log_softmax, or other.
        name: The primitive's name.
        inputs: The image-dependent values that it reads; for a single node one per operand.
        outputs: Its results.
        nodes: Its nodes, in order.
        linear: The structure of a conv or dense layer in these nodes.
        layer: Name of the layer it belongs to.
        nonnegative: Whether its input is known to be nowhere negative.
        statistics: For a norm, the nodes before `nodes` that compute the statistics, which `call` holds
            constant.
        axes: For a softmax, the axes of the sum.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: list[Node]
    linear: "Linear | None" = None
    layer: str | None = None
    nonnegative: bool = False
    statistics: list[Node] = field(default_factory=list)
    axes: tuple[int, ...] = ()

    def operands(self, env: dict[int, Any], inputs: Sequence[Any]) -> list[Any]:
        """Return all operands of the only node, including literals and parameters, for these inputs."""
        given: dict[int, list[Any]] = {}
        for ref, value in zip(self.inputs, inputs, strict=True):
            given.setdefault(ref, []).append(value)

        def read(ref):
            if isinstance(ref, Constant):
                return ref.value
            values = given.get(ref)
            return env[ref] if values is None else values.pop(0) if len(values) > 1 else values[0]

        return [read(ref) for ref in self.nodes[0].inputs]

    def call(self, env: dict[int, Any], *, whole: bool = False) -> Callable[..., Any]:
        """Return the operation as a function of `inputs`; all other values are read from `env`.

        Args:
            env: All values of a run.
            whole: Whether the statistics of a norm are also computed from the inputs.
        """
        if len(self.nodes) == 1 and not self.statistics:

            def single(*inputs):
                outputs = self.nodes[0].run(*self.operands(env, inputs))
                return outputs[0] if len(outputs) == 1 else tuple(outputs)

            return single
        nodes = (
            [*self.statistics, *(n for n in self.nodes if n not in self.statistics)] if whole else self.nodes
        )
        graph = Graph(nodes, inputs=list(self.inputs), outputs=list(self.outputs))
        computed = {out for node in nodes for out in node.outputs}
        read = {ref for node in nodes for ref in values_of(node.inputs)} - computed
        known = {ref: env[ref] for ref in read}

        def fn(*operands):
            outputs = evaluate(graph, operands, known=known)
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        return fn


class Step(NamedTuple):
    """A step after a convolution or dense layer: `shape`, or an affine map with a constant."""

    kind: str
    node: Node
    constant: Ref | None
    axis: int | None


class Merged(NamedTuple):
    """A linear layer at run time: `fn(x, kernel) + bias`."""

    fn: Callable[[jax.Array, jax.Array], jax.Array]
    kernel: jax.Array
    bias: jax.Array | None


@dataclass(eq=False)
class Linear:
    """A convolution or dense layer, and the affine steps that follow it.

    Attributes:
        node: The convolution or product.
        x: The images.
        kernel: The weights.
        axis: The features' axis of the output, as `kernel_axis` is of the kernel; None if there are several.
        shape: Shape of the output before the steps.
        steps: What follows.
    """

    node: Node
    x: Ref
    kernel: Ref
    axis: int | None
    kernel_axis: int | None
    shape: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)

    def base(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return only the convolution or product."""
        if self.node.name == "conv_general_dilated":
            return convolution(x, kernel, params=self.node.params)
        first = self.node.inputs[0] is self.x or self.node.inputs[0] == self.x
        return product(*((x, kernel) if first else (kernel, x)), params=self.node.params)

    @property
    def is_batched(self) -> bool:
        """Whether one image can represent all: a convolution with the images on its first axis."""
        if self.node.name != "conv_general_dilated" or self.steps:
            return False
        numbers = self.node.params["dimension_numbers"]
        return numbers.lhs_spec[0] == 0 and numbers.out_spec[0] == 0

    @property
    def mixes_all_channels(self) -> bool:
        """Whether it is a convolution whose outputs all read every channel."""
        return self.node.name == "conv_general_dilated" and self.node.params["feature_group_count"] == 1

    def after(self, y: jax.Array) -> jax.Array:
        """Return the output in the shape of the layer's result, without affine steps."""
        for step in self.steps:
            if step.kind == "shape":
                y = step.node.run(y)[0]
        return y

    def merged(self, env: dict[int, Any]) -> Merged:
        """Return the layer with its affine steps folded into kernel and bias."""

        def read(ref):
            return ref.value if isinstance(ref, Constant) else env[ref]

        kernel, bias, shape = read(self.kernel), None, self.shape
        for step in self.steps:
            if step.kind == "shape":
                if bias is not None:
                    bias = step.node.run(jnp.broadcast_to(bias, shape))[0]
                shape = jax.eval_shape(lambda y, n=step.node: n.run(y)[0], jnp.zeros(shape)).shape
                continue
            c: Any = None if step.constant is None else jnp.asarray(read(step.constant))
            if step.kind in ("add", "sub"):
                c = c if step.kind == "add" else -c
                bias = c if bias is None else bias + c
            elif step.kind == "from":
                kernel, bias = -kernel, c if bias is None else c - bias
            else:
                factor = -1 if step.kind == "neg" else c if step.kind == "mul" else 1 / c
                bias = None if bias is None else bias * factor
                kernel = self._scale(kernel, factor, step.axis)
        return Merged(lambda x, k: self.after(self.base(x, k)), kernel, bias)

    def _scale(self, kernel, factor, axis):
        if jnp.ndim(factor) == 0 or axis is None:
            return (kernel * jnp.ravel(jnp.asarray(factor))[0]).astype(kernel.dtype)
        values = factor[tuple(slice(None) if i == axis else 0 for i in range(factor.ndim))]
        shape = [1] * kernel.ndim
        shape[self.kernel_axis] = -1
        return (kernel * values.reshape(shape)).astype(kernel.dtype)


@dataclass(eq=False)
class Network:
    """A function as operations.

    Attributes:
        graph: The nodes.
        operations: The steps that depend on the images, in order.
        image: Number of the images.
        output: Number of the result.
    """

    graph: Graph
    operations: list[Operation]
    image: int
    output: int

    def forward(self, flat: Sequence[Any]) -> dict[int, Any]:
        """Return every value of the function."""
        return values(self.graph, flat)

    def head(self) -> list[Operation]:
        """Return the softmax or log-softmax that ends the network and the steps after it, or nothing.

        Elementwise functions, such as a logarithm, and changes of shape may follow.
        """
        produced = {out: operation for operation in self.operations for out in operation.outputs}
        head, ref = [], self.output
        while (operation := produced.get(ref)) is not None and len(operation.inputs) == 1:
            head.append(operation)
            if operation.kind in ("softmax", "log_softmax"):
                return head[::-1]
            if operation.kind not in ("activation", "relu", "affine", "shape"):
                break
            ref = operation.inputs[0]
        return []

    def backward(self, arriving: jax.Array, steps: Sequence[Callable[[Any], tuple]]) -> jax.Array | None:
        """Walk back from the result and return what arrives at the images; None for nothing.

        Args:
            arriving: What starts at the result.
            steps: Per operation, a function from what arrives at its output to a tuple of what its inputs
                get, None for nothing. Several outputs are a tuple.
        """
        total: dict[int, Any] = {self.output: arriving}
        for operation, step in zip(reversed(self.operations), reversed(steps), strict=True):
            arrived = tuple(total.pop(out, None) for out in operation.outputs)
            if all(each is None for each in arrived):
                continue
            parts = step(arrived[0] if len(arrived) == 1 else arrived)
            for ref, part in zip(operation.inputs, parts, strict=True):
                if part is not None and jnp.issubdtype(self.graph.dtype(ref), jnp.floating):
                    total[ref] = total[ref] + part if ref in total else part
        return total.get(self.image)
