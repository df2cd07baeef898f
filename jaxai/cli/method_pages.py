"""Descriptions of the methods as text: a list, one page per method, and a table."""

import re
import textwrap
from typing import Any

from .._frame.describe import SIZES, Description
from ..report._methods import METHODS, options_of
from ..report._supplies import preferred

_WIDTH = 80
EXPLAINED = {
    "score": "the raw score (logit) of a class",
    "probability": "the probability of a class",
    "nothing": "the photo as the network sees it; it is the same for all classes",
}
RESULTS = {
    "heatmap": "a map of the image",
    "pixels": "a value for each pixel and channel",
    "layer": "a value for each activation of a layer; the command shows their sum over channels as a map",
    "segments": "a value for each superpixel",
}
_SETTINGS = {"key": "--seed", "layer": "--layer", "segments": "--segments"}
_PASSES = (
    "Cost: plain numbers are forward passes of the network for one photo; a backward pass takes about twice"
    " the time of one; a head is a pass of the layers behind the one that is looked at."
)


def listing() -> list[str]:
    """Return all methods in lines of at most 80 characters."""
    lines = _wrapped(f"{_PASSES} {_letters()}")
    family = ""
    for description in METHODS.values():
        if description.family != family:
            family = description.family
            lines += ["", family.upper()]
        lines.append(f"{description.name:<30}{description.passes(**preferred(description))}")
        lines += _indented(f"{description.summary} {description.paper}.")
    return [*lines, "", "`jaxai methods METHOD` describes one with its options."]


def page(description: Description) -> list[str]:
    """Return a method's full description, in lines of at most 80 characters."""
    lines = [f"{description.name}: {description.title}", ""]
    own = preferred(description)
    cost = str(description.passes(**own))
    for paragraph in description.sections[""].split("\n\n"):
        lines += [*_wrapped(paragraph), ""]
    unit = f"; {description.unit}" if description.unit else ""
    signs = "with signs" if description.has_signs() else "without signs"
    lines += _indented(f"Result: {RESULTS[description.result]}, {signs}{unit}.", first="")
    lines += _indented(f"Explains: {EXPLAINED[description.explains]}.", first="")
    lines += _indented(f"Cost: {cost} ({_letters(cost)})", first="")
    used = [f"{word} ({option})" for word, option in _SETTINGS.items() if word in description.parameters]
    lines += _indented(f"Uses: {', '.join(used) or 'nothing but the photo and the class'}.", first="")
    if known := options_of(description):
        lines += ["", f"Options, set by -o {description.name}.NAME=VALUE:"]
        for name, parameter in known.items():
            default = _shown(parameter.default)
            here = f"{_shown(own[name])} (of jaxai.{description.name}: {default})" if name in own else default
            lines.append(f"  {name} = {here}")
            lines += _indented(description.arguments.get(name, ""), first="      ")
    lines += ["", "References:"]
    for reference in description.references:
        lines += _indented(reference, first="  ")
    example, setting = f"  jaxai explain cat --method {description.name}", example_setting(description)
    if len(example + setting) > _WIDTH:
        example, setting = f"{example} \\", f"   {setting}"
        return [*lines, "", "Example:", example, setting]
    return [*lines, "", "Example:", example + setting]


def table() -> list[str]:
    """Return the methods as rows of a Markdown table."""
    lines = ["| method | name | result | cost | paper |", "|---|---|---|---|---|"]
    for description in METHODS.values():
        result = f"signed {description.result}" if description.has_signs() else description.result
        row = (
            f"`{description.name}`",
            description.title,
            result,
            str(description.passes()),
            description.paper,
        )
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _letters(text: str | None = None) -> str:
    """Return the meaning of the letters in costs: of all, or of those that occur in a text."""
    meant = {
        letter: what for letter, what in SIZES.items() if text is None or re.search(rf"\b{letter}\b", text)
    }
    if not meant:
        return "passes for one photo"
    return ", ".join(f"{letter}: {what}" for letter, what in meant.items()) + ("." if text is None else "")


def _wrapped(text: str, first: str = "", then: str = "") -> list[str]:
    options = {"initial_indent": first, "subsequent_indent": then, "break_on_hyphens": False}
    return textwrap.wrap(text, _WIDTH, **options)


def _indented(text: str, first: str = "  ") -> list[str]:
    return _wrapped(text, first, first or "  ")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def example_setting(description: Description) -> str:
    """Return an example of setting an option, the first whose value is a number or a word."""
    for name, parameter in options_of(description).items():
        if isinstance(parameter.default, (int, float, str)) and not isinstance(parameter.default, bool):
            return f" -o {description.name}.{name}={parameter.default}"
    return ""
