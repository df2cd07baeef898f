r"""Relevance rules for layers, sums and activations: each is a class whose call is its formula.

A rule takes a layer z = W x + b and the relevance R of its output, and returns that of its input. Most are a
few calls of the layer with other inputs and weights, and of its transpose (the convolution's own), so that
the cost can be counted in convolutions. If the input is nowhere negative, as after a ReLU, the halves for
negative inputs are zero and are left out; if the output feeds a ReLU and no relevance arrives at dead units,
so is the half for negative outputs.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ._layer import Layer


class Rule:
    """Base class of all rules, which distribute the relevance of an operation's output over its inputs.

    A user's rule is a subclass with `__call__`, preferably a frozen dataclass of numbers: rules are compared
    and hashed by value, and each value compiles once. It is used like a built-in rule,
    `Composite(conv=Mine(), norm=Mine())`.

    Attributes:
        needs_bounds: Whether the rule reads `layer.low` and `layer.high`, which `lrp` then asks for.
        needs_kernel: Whether the rule reads `layer.kernel`, which restricts it to convolutions and dense
            layers.
        zero_gets_zero: Whether an input of zero never gets relevance, because the rule multiplies by it.
        follows_values: Whether relevance follows values: in a ReLU, a maximum or a rearrangement, an input of
            zero gets what arrives at outputs of zero. `lrp` derives `layer.dead_are_zero` from these two.

    Example:
        >>> from dataclasses import dataclass
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> @dataclass(frozen=True)
        ... class Half(jaxai.rules.Rule):
        ...     def __call__(self, layer, relevance):
        ...         return layer.input * layer.transpose(relevance / layer.output) / 2
        >>> net = lambda x: x.reshape(1, 2) @ jnp.array([[1.0], [3.0]])
        >>> halves = jaxai.rules.Composite(dense=Half())
        >>> jaxai.lrp(net, jnp.ones((1, 1, 2, 1)), 0, composite=halves).ravel().tolist()
        [0.125, 0.375]
    """

    needs_bounds: ClassVar[bool] = False
    needs_kernel: ClassVar[bool] = False
    zero_gets_zero: ClassVar[bool] = False
    follows_values: ClassVar[bool] = False

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        """Return the relevance of the operation's input.

        Args:
            layer: The operation with the values of its run.
            relevance: Relevance of its output, of the output's shape; a tuple for several outputs.

        Returns:
            An array of the input's shape. For several inputs a tuple of arrays, with None for an input that
            gets nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, layer, relevance)")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *sorted(vars(self).items())))


def stabilize(z: jax.Array, epsilon: float) -> jax.Array:
    """Return z + epsilon sign(z), with sign(0) = +1: values moved away from zero.

    In float16, which overflows at 65,504, an epsilon below 2^-10, the type's resolution, is replaced by
    2^-10.
    """
    if z.dtype == jnp.float16 and epsilon:
        epsilon = max(epsilon, float(jnp.finfo(z.dtype).eps))
    return z + jnp.where(z >= 0, epsilon, -epsilon).astype(z.dtype)


def divide(relevance: jax.Array, z: jax.Array, epsilon: float) -> jax.Array:
    """Return R / (z + epsilon sign(z)); with epsilon 0, an output of exactly zero passes nothing on."""
    z = stabilize(z, epsilon)
    return relevance / z if epsilon else jnp.where(z == 0, 0, relevance / jnp.where(z == 0, 1, z))


def positive(x: Any) -> Any:
    """Return max(x, 0), or None for None (layers without a bias)."""
    return None if x is None else jnp.where(x > 0, x, 0)


def negative(x: Any) -> Any:
    """Return min(x, 0), or None for None."""
    return None if x is None else jnp.where(x < 0, x, 0)


def plus(x: jax.Array, *terms: jax.Array | None) -> jax.Array:
    """Return the sum of the arguments that are not None."""
    for term in terms:
        x = x if term is None else x + term
    return x


@dataclass(frozen=True)
class Epsilon(Rule):
    r"""Distribute by contribution: $R_i = x_i \sum_j w_{ij} R_j / (z_j + \epsilon\, sign(z_j))$.

    sign(0) is +1, and z_j includes the bias, which absorbs its part. Bach et al. 2015, equation 58; epsilon 0
    is LRP-0.
    """

    epsilon: float = 1e-6
    zero_gets_zero = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        return layer.input * layer.transpose(divide(relevance, layer.output, self.epsilon))


@dataclass(frozen=True)
class Norm(Rule):
    """Distribute by contribution to the output, like `Epsilon`: for sums, pools, norms, any linear map."""

    stabilizer: float = 1e-6
    zero_gets_zero = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        return layer.share(divide(relevance, layer.output, self.stabilizer))


def _signed_half(layer: Layer, up, down, bias, relevance, stabilizer, where=None):
    """Distribute by max(x, 0) `up` + min(x, 0) `down` + bias, over the outputs in `where`."""

    def quotient(z):
        s = divide(relevance, plus(z, bias), stabilizer)
        return s if where is None else jnp.where(where, s, 0)

    if layer.nonnegative:
        return layer.input * layer.transpose(quotient(layer.forward(kernel=up)), up)
    above, below = positive(layer.input), negative(layer.input)
    s = quotient(layer.forward(above, kernel=up) + layer.forward(below, kernel=down))
    return above * layer.transpose(s, up) + below * layer.transpose(s, down)


@dataclass(frozen=True)
class ZPlus(Rule):
    """Distribute by positive contributions only, max(x, 0) max(w, 0) + min(x, 0) min(w, 0) (alpha 1, beta 0).

    Montavon et al. 2017, equation 13, for inputs of both signs.
    """

    stabilizer: float = 1e-6
    needs_kernel = True
    zero_gets_zero = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        w, b = layer.kernel, layer.bias
        return _signed_half(layer, positive(w), negative(w), positive(b), relevance, self.stabilizer)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """Distribute alpha by positive and minus beta by negative contributions; alpha - beta is 1.

    Bach et al. 2015, equation 60.
    """

    alpha: float = 2.0
    beta: float = 1.0
    stabilizer: float = 1e-6
    needs_kernel = True
    zero_gets_zero = True

    def __post_init__(self):
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(
                "`alpha` and `beta` must not be negative and alpha - beta must be 1;"
                f" got {self.alpha} and {self.beta}"
            )

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        w, b = layer.kernel, layer.bias
        result = _signed_half(layer, positive(w), negative(w), positive(b), relevance, self.stabilizer)
        if self.alpha != 1:
            result = self.alpha * result
        if self.beta:
            against = _signed_half(layer, negative(w), positive(w), negative(b), relevance, self.stabilizer)
            result -= self.beta * against
        return result


@dataclass(frozen=True)
class Gamma(Rule):
    """Epsilon that favours positive contributions: w + gamma max(w, 0). Montavon et al. 2019, equation 8.

    The generalised rule (Andeol et al. 2021) that also holds for negative inputs: outputs below zero favour
    negative contributions instead.
    """

    gamma: float = 0.25
    stabilizer: float = 1e-6
    needs_kernel = True
    zero_gets_zero = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        w, b, z = layer.kernel, layer.bias, layer.output
        more, less = w + self.gamma * positive(w), w + self.gamma * negative(w)
        up, down = (None, None) if b is None else (b + self.gamma * positive(b), b + self.gamma * negative(b))
        result = _signed_half(layer, more, less, up, relevance, self.stabilizer, where=z > 0)
        if layer.dead_are_zero:
            return result
        return result + _signed_half(layer, less, more, down, relevance, self.stabilizer, where=z < 0)


@dataclass(frozen=True)
class ZBox(Rule):
    """Distribute by x w - low max(w, 0) - high min(w, 0), for inputs between `low` and `high` of `lrp`.

    Montavon et al. 2017, equation 14. Biases cancel, b - max(b, 0) - min(b, 0) = 0.
    """

    stabilizer: float = 1e-6
    needs_bounds = True
    needs_kernel = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        x, low, high, w = layer.input, layer.low, layer.high, layer.kernel
        up, down = positive(w), negative(w)
        z = layer.forward() - layer.forward(low, kernel=up) - layer.forward(high, kernel=down)
        s = divide(relevance, z, self.stabilizer)
        return x * layer.transpose(s) - low * layer.transpose(s, up) - high * layer.transpose(s, down)


@dataclass(frozen=True)
class WSquare(Rule):
    """Distribute by the squared weights, regardless of the input. Montavon et al. 2017, equation 12."""

    stabilizer: float = 1e-6
    needs_kernel = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        squares, b = layer.kernel**2, layer.bias
        z = plus(layer.forward(layer.ones, kernel=squares), None if b is None else b**2)
        return layer.transpose(divide(relevance, z, self.stabilizer), squares)


@dataclass(frozen=True)
class Flat(Rule):
    """Distribute evenly over the connected inputs. Lapuschkin et al. 2019."""

    stabilizer: float = 1e-6
    needs_kernel = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        ones = layer.connections()
        return ones.transpose(divide(ones.gather(relevance), ones.count, self.stabilizer))


@dataclass(frozen=True)
class Pass(Rule):
    """Pass the relevance on unchanged; only if input and output have the same shape."""

    follows_values = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        if relevance.shape != layer.input.shape:
            raise ValueError(
                "Pass() must meet an operation that keeps the shape;"
                f" got {layer.input.shape} in and {relevance.shape} out"
            )
        return relevance


@dataclass(frozen=True)
class Gradient(Rule):
    """Multiply by the derivative, as backpropagation does; relevance is not conserved."""

    follows_values = True

    def __call__(self, layer: Layer, relevance: Any) -> Any:
        return layer.derivative(relevance)
