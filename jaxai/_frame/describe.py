"""Descriptions of methods, made of facts declared at the method, its docstring and its signature.

`describes` declares the few facts that docstring and signature do not hold, and returns the function
unchanged. The command, its list of methods and the table in the documentation are made from `table`.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

from . import contract

Function = TypeVar("Function", bound=Callable[..., Any])
Result = Literal["heatmap", "pixels", "layer", "segments"]
Explains = Literal["score", "probability", "nothing"]
# The start of a reference: authors, then a colon.
_AUTHORS = re.compile(r"^(?:[A-Z][\w'-]+(?:, [A-Z][\w'-]+)*(?: et al\.)?): ")


class Size:
    """A number not known yet, such as k for the number of classes; arithmetic on it builds a formula."""

    def __init__(self, text: str, *, simple: bool = True) -> None:
        self._text = text
        self._simple = simple

    def __str__(self) -> str:
        return self._text

    def _factor(self) -> str:
        return self._text if self._simple else f"({self._text})"

    def __add__(self, other: Any) -> "Size":
        return Size(f"{self} + {other}", simple=False)

    def __radd__(self, other: Any) -> "Size":
        return Size(f"{other} + {self}", simple=False)

    def __sub__(self, other: Any) -> "Size":
        return Size(f"{self} - {other}", simple=False)

    def __mul__(self, other: Any) -> "Size":
        if isinstance(other, Size):
            return Size(f"{self._factor()} {other._factor()}")
        return self if other == 1 else Size(f"{other:g} {self._factor()}")

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Size":
        return Size(f"{self._factor()} / {other}")

    def __pow__(self, other: Any) -> "Size":
        return Size(f"{self._factor()}^{other}")

    def __rpow__(self, other: Any) -> "Size":
        return Size(f"{other}^{self._factor()}")


Number = int | float | Size


@dataclass(frozen=True)
class Passes:
    """The cost of explaining one image, in runs of the network, as numbers or as formulas of sizes.

    Attributes:
        forward: Forward passes.
        backward: Backward passes; each takes about twice the time of a forward pass.
        heads: Passes, forward or backward, of the layers after the explained one.
        rough: Whether the numbers are approximate, because they depend on more than is known.
    """

    forward: Number = 1
    backward: Number = 0
    heads: Number = 0
    rough: bool = False

    def __str__(self) -> str:
        # Rough numbers are whole ones, such as 2 S^2 / 3 rounded.
        parts = [f"{round(self.forward) if isinstance(self.forward, float) else self.forward}"]
        for number, what in ((self.backward, "backward"), (self.heads, "heads")):
            if isinstance(number, Size) or number:
                parts.append(f"{number._factor() if isinstance(number, Size) else number} {what}")
        return ("about " if self.rough else "") + " + ".join(parts)


# The letters in cost formulas.
SIZES = {
    "k": "classes",
    "S": "superpixels",
    "C": "channels of the layer",
    "P": "positions of the layer",
    "L": "layers",
    "B": "baselines",
}
_SYMBOLS = {
    "targets": Size("k"),
    "segments": Size("S"),
    "channels": Size("C"),
    "positions": Size("P"),
    "layers": Size("L"),
    "num_baselines": Size("B"),
    "height": 224,
    "width": 224,
}


@dataclass(frozen=True)
class Description:
    """The description of a method.

    Attributes:
        function: The method itself.
        title: Its name in figures and tables.
        result: What it returns: `"heatmap"`, [batch, height, width]; `"pixels"`, [batch, height, width,
            channels]; `"layer"`, values of a layer's activations; `"segments"`, an object with `weights` or
            `values` [batch, S] and a `heatmap`.
        cost: From the options (as attributes, with the sizes `targets`, `segments`, `channels`, `positions`,
            `layers`, `num_baselines`, `height` and `width`) to `Passes`.
        explains: What is explained about a class: its raw score (logit), its probability, or nothing.
        unit: The quantity of the values, such as "change of probability"; empty if it has no name.
        signed: Whether negative values are evidence against the target: always, never, or depending on the
            options.
        left_out: Why the command does not offer the method; empty if it does.
    """

    function: Callable[..., Any]
    title: str
    result: Result
    cost: Callable[[Any], Passes]
    explains: Explains = "score"
    unit: str = ""
    signed: bool | Callable[[Any], bool] = False
    left_out: str = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def label(self) -> str:
        """The quantity of the values, as the label of a colour bar."""
        return self.unit or ("a pixel's channels summed, no unit" if self.result == "pixels" else "no unit")

    @property
    def family(self) -> str:
        """The namespace of the function: cam, gradients, rules, perturbation."""
        return contract.family(self.function)

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The function's parameters by name."""
        return inspect.signature(self.function).parameters

    @cached_property
    def options(self) -> dict[str, Any]:
        """The keywords that have a default, with their defaults."""
        return {
            name: parameter.default
            for name, parameter in self.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
        }

    def passes(self, **given: Any) -> Passes:
        """Return the cost with these options and sizes; options that are not given have their defaults."""
        return self.cost(SimpleNamespace(**{**_SYMBOLS, **self.options, **given}))

    def has_signs(self, **given: Any) -> bool:
        """Return whether values are signed with these options; the others have their defaults."""
        if callable(self.signed):
            return self.signed(SimpleNamespace(**{**self.options, **given}))
        return self.signed

    @cached_property
    def sections(self) -> dict[str, str]:
        """The docstring in parts: "" before the first heading, then "Args", "Returns", "References", ..."""
        return contract.sections(self.function.__doc__)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.sections[""].partition("\n")[0]

    @cached_property
    def references(self) -> list[str]:
        """The papers, the method's own first, with the equations used."""
        found: list[str] = []
        for line in self.sections.get("References", "").splitlines():
            if not found or _AUTHORS.match(line):
                found.append(line)
            else:
                found[-1] += f" {line}"
        return found

    @property
    def paper(self) -> str:
        """The method's own paper in short: authors, year, identifier."""
        if not self.references:
            return ""
        text = self.references[0]
        if not (start := _AUTHORS.match(text)):
            return text.rstrip(".")
        authors = start[0].rstrip(": ").split(", ")
        named = ", ".join(authors) if len(authors) < 3 else f"{authors[0]} et al."
        year = re.search(r"\b(?:19|20)\d\d\b(?!\.\d)", text)
        number = re.search(r"(arXiv|doi) (10\.\S+?|\d{4}\.\d{4,5})(?=[.,;]?(?:\s|$))", text)
        return f"{named}{f' {year[0]}' if year else ''}{f', {number[0]}' if number else ''}"

    @cached_property
    def arguments(self) -> dict[str, str]:
        """The docstring's description of each parameter."""
        return contract.entries(self.sections.get("Args", ""))


_FAMILIES = ("cam", "gradients", "rules", "perturbation", "attention", "features")
_TABLE: dict[str, Description] = {}


def describes(
    *,
    title: str,
    result: Result,
    cost: Callable[[Any], Passes],
    explains: Explains = "score",
    unit: str = "",
    signed: bool | Callable[[Any], bool] = False,
    left_out: str = "",
) -> Callable[[Function], Function]:
    """Describe a method where it is defined; the arguments are the attributes of `Description`.

    The docstring is completed with the entries that all methods share (`contract.completed`).
    """

    def note(function: Function) -> Function:
        contract.completed(function, result, explains)
        _TABLE[function.__name__] = Description(
            function, title, result, cost, explains, unit, signed, left_out
        )
        return function

    return note


def table() -> Mapping[str, Description]:
    """Return the descriptions of all methods, by name."""
    for family in _FAMILIES:
        importlib.import_module(f"...{family}", __name__)
    return _TABLE


def one_forward(options: Any) -> Passes:
    """Cost of a method that reads activations."""
    return Passes()


def one_backward(options: Any) -> Passes:
    """Cost of one gradient per class."""
    return Passes(backward=options.targets)


def backward_for_each(option: str) -> Callable[[Any], Passes]:
    """Return the cost of a forward pass and, per class, as many gradients as an option says."""

    def cost(options: Any) -> Passes:
        number = getattr(options, option)
        return Passes(1 + number, backward=number * options.targets)

    return cost


def one_head(options: Any) -> Passes:
    """Cost of one gradient per class at a layer."""
    return Passes(heads=options.targets)


def unless_relu(options: Any) -> bool:
    """Whether maps are signed: not if `relu` keeps only the positive values."""
    return not options.relu
