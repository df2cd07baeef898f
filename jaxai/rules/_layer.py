"""Operations as rules receive them: with their values and parameters, to be run with others too."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ._operations import Merged, Operation


@runtime_checkable
class Facts(Protocol):
    """Facts about the network around an operation."""

    def dead_are_zero(self, operation: Operation) -> bool: ...

    def bounds(self, operation: Operation) -> tuple[jax.Array, jax.Array]: ...

    def gate(self, operation: Operation) -> int | None: ...


def finite(x: jax.Array) -> jax.Array:
    """Return the lowest number in place of minus infinity, which times zero is NaN."""
    return jnp.maximum(x, jnp.finfo(x.dtype).min)


def unbroadcast(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum over the axes along which `shape` has length one."""
    axes = tuple(i for i, size in enumerate(shape) if size == 1 and x.shape[i] != 1)
    return x.sum(axes, keepdims=True)


class Connections(NamedTuple):
    """A layer with all weights one.

    Attributes:
        count: Number of inputs that each output reads.
        gather: Brings relevance of the output into the shape of `count`, or one to which it broadcasts.
        transpose: The transpose, from that shape to the inputs.
    """

    count: jax.Array
    gather: Callable[[jax.Array], jax.Array]
    transpose: Callable[[jax.Array], jax.Array]


class Layer:
    """An operation of the network with the values of its run, which a rule uses to distribute relevance.

    Convolutions and dense layers, with the bias and the batch norm that follow them folded in, have a
    `kernel` and a `bias`; their output is `forward(x) + bias`, and `transpose` is the exact transpose. Other
    operations (sums, pools, activations, products, norms) have neither; their `transpose` is that of their
    derivative at the inputs. A norm divides by statistics of its input: `forward` and `transpose` treat these
    as constants, so that it is linear too.

    Attributes:
        operation: The operation in the program.
        inputs: Its inputs that depend on the images, one or more arrays.
        output: Its result; a tuple if there are several.
    """

    def __init__(
        self,
        operation: Operation,
        env: dict[int, Any],
        facts: Facts | None = None,
        parameters: Merged | None = None,
    ):
        self.operation = operation
        self.inputs = tuple(env[ref] for ref in operation.inputs)
        outputs = tuple(env[ref] for ref in operation.outputs)
        self.output: Any = outputs[0] if len(outputs) == 1 else outputs
        self._env, self._facts, self._given = env, facts, parameters

    @property
    def input(self) -> jax.Array:
        """The only input.

        Raises:
            TypeError: If there are several.
        """
        if len(self.inputs) != 1:
            raise TypeError(
                f"{self.operation.name} has {len(self.inputs)} inputs: its rule must use `layer.inputs`"
                " and return a tuple"
            )
        return self.inputs[0]

    @cached_property
    def _parameters(self) -> Merged:
        if self._given is not None:
            return self._given
        if self.operation.linear is None:
            raise TypeError(f"{self.operation.name} has no kernel: its rule must do without")
        return self.operation.linear.merged(self._env)

    @property
    def kernel(self) -> Any:
        """The weights, in the layout of the operation; TypeError if it has none."""
        return self._parameters.kernel

    @property
    def bias(self) -> jax.Array | None:
        """The bias added to the output, broadcast along its features; None if there is none."""
        return self._parameters.bias if self.operation.linear is not None else None

    def with_parameters(self, kernel: jax.Array, bias: jax.Array | None = None) -> "Layer":
        """Return the layer with another kernel and bias, and the resulting output."""
        layer = Layer(
            self.operation, self._env, self._facts, self._parameters._replace(kernel=kernel, bias=bias)
        )
        z = layer.forward()
        layer.output = z if bias is None else z + bias
        return layer

    def _function(self, kernel) -> Callable[..., Any]:
        if self.operation.linear is None:
            if kernel is not None:
                raise TypeError(f"{self.operation.name} has no kernel: its rule must do without")
            return self.operation.call(self._env)
        merged = self._parameters
        kernel = merged.kernel if kernel is None else kernel
        return lambda x: merged.fn(x, kernel)

    def forward(self, *inputs: jax.Array, kernel: jax.Array | None = None) -> Any:
        """Return the operation's result for other inputs or another kernel; its own inputs are the default.

        The bias is not added: for a convolution or dense layer this is only the linear part.
        """
        return self._function(kernel)(*(inputs or self.inputs))

    def transpose(self, s: jax.Array, kernel: jax.Array | None = None) -> Any:
        """Return the transpose of the operation applied to `s` [output], one array per input.

        An array for one input, a tuple for several.
        """
        return self.one_or_all(self._pull(s, kernel))

    def _pull(self, s, kernel=None) -> tuple:
        y, pullback = jax.vjp(self._function(kernel), *self.inputs)
        return pullback(s.astype(y.dtype))

    def one_or_all(self, parts: Sequence[Any]) -> Any:
        """Return `parts`, one per input, in the form that a rule returns: the only one, or all as a tuple."""
        return parts[0] if len(self.inputs) == 1 else tuple(parts)

    def share(self, s: jax.Array) -> Any:
        """Return the inputs times `transpose(s)`: each input's contribution.

        For an input of minus infinity, as in masks before a softmax, it is zero where no relevance arrives.
        In a quotient both inputs contribute the quotient itself, so that the divisor is a factor like any
        other.
        """
        if self.operation.kind == "product" and self.operation.name == "div":
            kept = self.output * s
            return tuple(unbroadcast(kept, x.shape) for x in self.inputs)
        parts = zip(self.inputs, self._pull(s), strict=True)
        return self.one_or_all([finite(x) * part for x, part in parts])

    def operands(self, *inputs: jax.Array) -> list[Any]:
        """Return all operands of a single primitive, in its order, for these inputs."""
        return self.operation.operands(self._env, inputs)

    def derivative(self, relevance: Any) -> Any:
        """Return the relevance pulled back by the derivative; values that are not real numbers get none."""
        y, pullback = jax.vjp(self.operation.call(self._env, whole=True), *self.inputs)
        leaves = y if isinstance(y, tuple) else (y,)
        given = relevance if isinstance(y, tuple) else (relevance,)
        cotangents = tuple(
            jnp.zeros(leaf.shape, jax.dtypes.float0)
            if not jnp.issubdtype(leaf.dtype, jnp.floating)
            else jnp.zeros_like(leaf)
            if r is None
            else r.astype(leaf.dtype)
            for leaf, r in zip(leaves, given, strict=True)
        )
        return self.one_or_all(pullback(cotangents if isinstance(y, tuple) else cotangents[0]))

    @property
    def ones(self) -> jax.Array:
        """Inputs of ones; for a single image if all images give the same results."""
        linear, x = self.operation.linear, self.input
        if linear is not None and linear.is_batched:
            return jnp.ones((1, *x.shape[1:]), x.dtype)
        return jnp.ones_like(x)

    def connections(self) -> Connections:
        """Return the layer with all weights one."""
        linear, x = self.operation.linear, self.input
        if linear is not None and linear.mixes_all_channels:
            return _one_channel(self)
        ones = jnp.ones_like(self.kernel)
        count = self.forward(jnp.ones_like(x), kernel=ones)
        return Connections(count, lambda r: r, lambda s: self.transpose(s, ones))

    @property
    def nonnegative(self) -> bool:
        """Whether the input is known to be nowhere negative."""
        return self.operation.nonnegative

    @property
    def dead_are_zero(self) -> bool:
        """Whether no relevance arrives where the output is negative, because only a ReLU reads it."""
        return self._facts is not None and self._facts.dead_are_zero(self.operation)

    @property
    def gate(self) -> int | None:
        """Which factor of a product is a gate that scales the other, 0 or 1; None if neither is."""
        return None if self._facts is None else self._facts.gate(self.operation)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes over which a softmax sums."""
        return self.operation.axes

    @property
    def low(self) -> jax.Array:
        """The lowest values of the input, from `lrp(low=)`; for rules with `needs_bounds`."""
        return self._bounds[0]

    @property
    def high(self) -> jax.Array:
        """The highest values of the input, from `lrp(high=)`; for rules with `needs_bounds`."""
        return self._bounds[1]

    @property
    def _bounds(self):
        if self._facts is None:
            raise TypeError("a rule that reads the bounds of its input must set needs_bounds = True")
        low, high = self._facts.bounds(self.operation)
        return jnp.broadcast_to(low, self.input.shape), jnp.broadcast_to(high, self.input.shape)


def _one_channel(layer: Layer) -> Connections:
    """Return a convolution of ones with one channel in and out: all channels of a position are equal."""
    linear, x = layer.operation.linear, layer.input
    assert linear is not None
    numbers = linear.node.params["dimension_numbers"]
    channels, features = numbers.lhs_spec[1], numbers.out_spec[1]
    window = [1 if axis in numbers.rhs_spec[:2] else n for axis, n in enumerate(layer.kernel.shape)]
    shape = [1 if axis == channels else n for axis, n in enumerate(x.shape)]
    kernel, one = jnp.ones(window, x.dtype), jnp.ones(shape, x.dtype)

    def gather(relevance):
        # Back in the convolution's own shape, where its affine steps are the identity.
        shaped = jnp.zeros(linear.shape, relevance.dtype)
        return jax.vjp(linear.after, shaped)[1](relevance)[0].sum(features, keepdims=True)

    def transpose(s):
        back = jax.vjp(lambda v: linear.base(v, kernel), one)[1](s.astype(x.dtype))[0]
        return jnp.broadcast_to(back, x.shape)

    return Connections(linear.base(one, kernel) * x.shape[channels], gather, transpose)
