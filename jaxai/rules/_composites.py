"""Composites: assignments of rules to the operations of a network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .._program.named import unknown
from ._operations import Network
from ._products import SignalTakesAll, Softmax, Uniform
from ._relevance import AlphaBeta, Epsilon, Flat, Gamma, Gradient, Norm, Pass, Rule, ZBox, ZPlus
from ._winner import Winner

Kind = Literal["conv", "dense"]
# The attribute that holds the rule of each kind of operation without a kernel; others keep their derivative.
_CHOSEN_BY = {
    "relu": "activation",
    "activation": "activation",
    "affine": "activation",
    "sum": "residual",
    "pool": "pool",
    "max": "max",
    "product": "product",
    "norm": "norm",
    "softmax": "softmax",
    "log_softmax": "activation",
}


@dataclass(frozen=True)
class Composite:
    """An assignment of rules to operations: an immutable value for `lrp(composite=)`.

    A rule is one of `jaxai.rules` or an instance of a user's subclass of `Rule`. The most specific choice
    wins: `layers`, then `first`, then the kind of operation. Changes of shape always move relevance along
    with the values.

    Attributes:
        conv: For convolutions, including depthwise ones.
        dense: For dense layers.
        first: For the first layer in execution order whose kind is in `first_kinds`; None means no exception.
        first_kinds: `("conv", "dense")` or one of them.
        layers: For layers by name, a mapping or pairs: `{"conv1_1": Flat()}`. Names are those of the model's
            `layer_names`, or marks of `jax.ad_checkpoint.checkpoint_name`; all convolutions and dense layers
            of that layer, or of modules within it, get the rule.
        activation: For elementwise functions and for scales and shifts that do not follow a layer. Under
            `Pass()`, a ReLU6 passes relevance even where it is saturated.
        residual: For sums of two values that both depend on the image.
        pool: For sums and means over positions.
        max: For maxima and minima: pools, of two values, over axes.
        product: For products of two values that both depend on the image: `SignalTakesAll()`, `Uniform()`, or
            `Gradient()`, zennit's behaviour, which does not conserve relevance.
        norm: For layer, group, instance and RMS norms and other divisions by a root of sums over the input,
            with the scale and shift that follow. Rules treat their statistics as constants.
        softmax: For softmaxes inside the network; at its end `lrp` starts from the logits.
    """

    conv: Rule = ZPlus()
    dense: Rule = Epsilon()
    first: Rule | None = None
    first_kinds: tuple[Kind, ...] = ("conv", "dense")
    layers: Any = ()
    activation: Rule = Pass()
    residual: Rule = Norm()
    pool: Rule = Norm()
    max: Rule = Winner()
    product: Rule = SignalTakesAll()
    norm: Rule = Norm()
    softmax: Rule = Pass()

    def __post_init__(self):
        pairs = self.layers.items() if isinstance(self.layers, Mapping) else self.layers
        object.__setattr__(self, "layers", tuple((str(name), rule) for name, rule in pairs))
        object.__setattr__(self, "first_kinds", tuple(self.first_kinds))
        if not set(self.first_kinds) <= {"conv", "dense"}:
            raise ValueError(f'`first_kinds` must be of "conv" and "dense"; got {self.first_kinds!r}')
        for name in ("conv", "dense", "first"):
            if name != "first" or self.first is not None:
                _check(name, getattr(self, name))
        for name, rule in self.layers:
            _check(f"layers[{name!r}]", rule)
        for name in dict.fromkeys(_CHOSEN_BY.values()):
            if _check(name, getattr(self, name)).needs_kernel:
                rule = type(getattr(self, name)).__name__
                raise TypeError(f"`{name}` must be a rule for operations without a kernel; got {rule}()")

    @property
    def needs_bounds(self) -> bool:
        """Whether any rule reads the bounds of its layer's input."""
        by_layer = [rule for _, rule in self.layers]
        return any(
            rule is not None and rule.needs_bounds for rule in (self.conv, self.dense, self.first, *by_layer)
        )

    def choose(self, net: Network) -> list[Rule]:
        """Return each operation's rule.

        Raises:
            ValueError: If a named layer does not exist.
        """
        by_layer = dict(self.layers)
        existing = dict.fromkeys(node.params["name"] for node in net.graph.nodes if node.name == "name")
        for name in by_layer:
            if name not in existing:
                none = "; the layers are none (mark them or use a layered model)"
                found = unknown(name, tuple(existing)) if existing else f"unknown layer {name!r}{none}"
                raise ValueError(found.replace(repr(name), f"{name!r} in the composite", 1))
        rules: list[Rule] = []
        first = self.first
        for operation in net.operations:
            if operation.linear is None:
                chosen = _CHOSEN_BY.get(operation.kind)
                rules.append(Gradient() if chosen is None else getattr(self, chosen))
                continue
            rule = getattr(self, operation.kind)
            if first is not None and operation.kind in self.first_kinds:
                rule, first = first, None
            # A layer absorbs what follows it, which may be layers of their own.
            parts = dict.fromkeys(node.layer for node in operation.nodes)
            names = (*parts, *_around(operation.layer))
            within = next((name for name in names if name in by_layer), None)
            rules.append(rule if within is None else by_layer[within])
        return rules


def _around(layer: str | None) -> Iterator[str]:
    """Yield a layer's name, then those of the modules around it, innermost first."""
    while layer:
        yield layer
        layer = layer[: max(layer.rfind("."), layer.rfind("/"), 0)]


def _check(name: str, rule: Any) -> Rule:
    if not isinstance(rule, Rule):
        raise TypeError(
            f"`{name}` must be a rule of jaxai.rules, such as Epsilon(), or a subclass of Rule; got {rule!r}"
        )
    try:
        hash(rule)
    except TypeError:
        raise TypeError(
            f"`{name}` must be a rule of hashable values, numbers rather than arrays; got {rule!r}"
        ) from None
    return rule


# The layer maps of zennit's composites of the same names, and those for transformers.
COMPOSITES: dict[str, Composite] = {
    "epsilon_plus": Composite(conv=ZPlus(), dense=Epsilon()),
    "epsilon_plus_flat": Composite(conv=ZPlus(), dense=Epsilon(), first=Flat()),
    "epsilon_gamma_box": Composite(conv=Gamma(0.25), dense=Epsilon(), first=ZBox(), first_kinds=("conv",)),
    "epsilon_alpha2_beta1": Composite(conv=AlphaBeta(2.0, 1.0), dense=Epsilon()),
    "epsilon_alpha2_beta1_flat": Composite(conv=AlphaBeta(2.0, 1.0), dense=Epsilon(), first=Flat()),
    # Achtibat et al. 2024, arXiv 2402.05602: softmaxes by their Taylor expansion, products in halves, the
    # statistics of norms held constant. Ali et al. 2022, arXiv 2202.07304: attention matrices held constant
    # too.
    "attn_lrp": Composite(conv=Epsilon(), dense=Epsilon(), product=Uniform(), softmax=Softmax()),
    "cp_lrp": Composite(conv=Epsilon(), dense=Epsilon(), product=SignalTakesAll()),
}

# Zhang et al. 2016: probabilities of winning flow along positive weights; ReLUs keep their derivative.
EXCITATION = Composite(conv=ZPlus(), dense=ZPlus(), activation=Gradient())
