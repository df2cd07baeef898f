"""Relevance rules, and which layer gets which: values to choose from, the formulas are in `relevance`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Epsilon:
    """Share by contribution: R_i = sum_j x_i w_ij R_j / (z_j + epsilon sign(z_j)), with sign(0) = +1.

    z_j includes the bias, which keeps its share. Bach et al. 2015, equation 58; epsilon 0 is LRP-0.
    """

    epsilon: float = 1e-6


@dataclass(frozen=True)
class Gamma:
    """Epsilon with positive contributions favoured: w + gamma max(w, 0). Montavon et al. 2019, equation 8.

    The generalised rule (Andeol et al. 2021) that also holds for negative inputs: outputs below zero favour
    negative contributions instead.
    """

    gamma: float = 0.25
    stabilizer: float = 1e-6


@dataclass(frozen=True)
class ZPlus:
    """Share by the positive contributions alone, max(x, 0) max(w, 0) + min(x, 0) min(w, 0) (alpha 1, beta 0).

    Montavon et al. 2017, equation 13, for inputs of both signs.
    """

    stabilizer: float = 1e-6


@dataclass(frozen=True)
class AlphaBeta:
    """Alpha times the share by positive, minus beta times that by negative contributions; alpha - beta is 1.

    Bach et al. 2015, equation 60.
    """

    alpha: float = 2.0
    beta: float = 1.0
    stabilizer: float = 1e-6

    def __post_init__(self):
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(
                "`alpha` and `beta` must not be negative and alpha - beta must be 1;"
                f" got {self.alpha} and {self.beta}"
            )


@dataclass(frozen=True)
class ZBox:
    """Share by x w - low max(w, 0) - high min(w, 0), for inputs between `low` and `high` of `lrp`.

    Montavon et al. 2017, equation 14.
    """

    stabilizer: float = 1e-6


@dataclass(frozen=True)
class WSquare:
    """Share by the squared weights, whatever the input is. Montavon et al. 2017, equation 12."""

    stabilizer: float = 1e-6


@dataclass(frozen=True)
class Flat:
    """Share evenly over the inputs that are connected. Lapuschkin et al. 2019."""

    stabilizer: float = 1e-6


@dataclass(frozen=True)
class Pass:
    """Hand the relevance on as it is; only where input and output have the same shape."""


@dataclass(frozen=True)
class Norm:
    """Share by contribution to the output, as `Epsilon`: for sums, pools, any linear map."""

    stabilizer: float = 1e-6


@dataclass(frozen=True)
class SignalTakesAll:
    """Give a product's relevance to its signal, and nothing to its gate, which only says how much passes.

    A gate is a divisor, a factor that is broadcast over positions or channels (squeeze-and-excitation, the
    scale of a layer norm), or the result of a sigmoid, a softmax or another bounded function. Products
    without one of these, as of queries and keys, are shared as under `Uniform`. Arras et al. 2017, arXiv
    1706.07206.
    """

    stabilizer: float = 1e-6


@dataclass(frozen=True)
class Uniform:
    """Give each factor of a product, or of a quotient, half of it. Achtibat et al. 2024, arXiv 2402.05602.

    For networks of products without softmaxes and layer norms, whose inner sums cancel: relevance that enters
    them through a gate is not bounded. Their paper has a rule of its own for softmaxes, which is not here.
    """

    stabilizer: float = 1e-6


@dataclass(frozen=True)
class Gradient:
    """Multiply by the derivative, as backpropagation does; relevance is not conserved."""


Rule = Epsilon | Gamma | ZPlus | AlphaBeta | ZBox | WSquare | Flat | Pass | Norm | Gradient
_RULES = (Epsilon, Gamma, ZPlus, AlphaBeta, ZBox, WSquare, Flat, Pass, Norm, Gradient)
_OTHERS = {
    "activation": (Pass,),
    "residual": (Norm,),
    "pool": (Norm,),
    "product": (SignalTakesAll, Uniform),
}
Kind = Literal["conv", "dense"]


@dataclass(frozen=True)
class Composite:
    """Which operation gets which rule; a value, to be given to `lrp`.

    The most particular choice wins: `layers`, then `first`, then the kind of operation. Max-pools always
    send the relevance to the winner, changes of shape always along with the values.

    Attributes:
        conv: For convolutions, depthwise ones too.
        dense: For dense layers.
        first: For the first layer in execution order whose kind is in `first_kinds`; None means no exception.
        first_kinds: `("conv", "dense")` or one of them.
        layers: For layers by name, a mapping or pairs: `{"conv1_1": Flat()}`. Names are those of the model's
            `layer_names`, or marks of `jax.ad_checkpoint.checkpoint_name`; all convolutions and dense layers
            of that layer get the rule.
        activation: For elementwise functions and for scales and shifts that follow no layer: `Pass()` or
            `Gradient()`. A ReLU6 passes relevance even where it is saturated, under `Pass()`.
        residual: For sums of two values that both depend on the image: `Norm()` or `Gradient()`.
        pool: For sums and means over positions: `Norm()` or `Gradient()`.
        product: For products of two values that both depend on the image: `SignalTakesAll()`, `Uniform()` or
            `Gradient()`, which is what zennit leaves there and does not conserve relevance.
    """

    conv: Rule = ZPlus()
    dense: Rule = Epsilon()
    first: Rule | None = None
    first_kinds: tuple[Kind, ...] = ("conv", "dense")
    layers: Any = ()
    activation: Pass | Gradient = Pass()
    residual: Norm | Gradient = Norm()
    pool: Norm | Gradient = Norm()
    product: SignalTakesAll | Uniform | Gradient = SignalTakesAll()

    def __post_init__(self):
        pairs = self.layers.items() if isinstance(self.layers, Mapping) else self.layers
        object.__setattr__(self, "layers", tuple((str(name), rule) for name, rule in pairs))
        object.__setattr__(self, "first_kinds", tuple(self.first_kinds))
        if not set(self.first_kinds) <= {"conv", "dense"}:
            raise ValueError(f'`first_kinds` must be of "conv" and "dense"; got {self.first_kinds!r}')
        chosen = {"conv": self.conv, "dense": self.dense, **dict(self.layers)}
        if self.first is not None:
            chosen["first"] = self.first
        for name, rule in chosen.items():
            if not isinstance(rule, _RULES):
                raise TypeError(f"`{name}` must be a rule of jaxai.rules, such as Epsilon(); got {rule!r}")
        for name, allowed in _OTHERS.items():
            got = getattr(self, name)
            if not isinstance(got, (*allowed, Gradient)):
                known = ", ".join(f"{kind.__name__}()" for kind in allowed)
                raise TypeError(f"`{name}` must be {known} or Gradient(); got {got!r}")


# The layer maps of zennit's composites of the same names.
COMPOSITES: dict[str, Composite] = {
    "epsilon_plus": Composite(conv=ZPlus(), dense=Epsilon()),
    "epsilon_plus_flat": Composite(conv=ZPlus(), dense=Epsilon(), first=Flat()),
    "epsilon_gamma_box": Composite(conv=Gamma(0.25), dense=Epsilon(), first=ZBox(), first_kinds=("conv",)),
    "epsilon_alpha2_beta1": Composite(conv=AlphaBeta(2.0, 1.0), dense=Epsilon()),
    "epsilon_alpha2_beta1_flat": Composite(conv=AlphaBeta(2.0, 1.0), dense=Epsilon(), first=Flat()),
}

# Zhang et al. 2016: probabilities of winning flow along positive weights; ReLUs keep their derivative.
EXCITATION = Composite(conv=ZPlus(), dense=ZPlus(), activation=Gradient())
