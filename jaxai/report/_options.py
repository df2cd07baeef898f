"""Values of methods' options as they are written on the command line: read and checked by their kind."""

import ast
import math
import types
from contextlib import suppress
from typing import Any, NamedTuple, Union, get_args, get_origin

from . import _names as names

_LONGEST = 200
# Numbers of steps and images are 32-bit integers in compiled programs.
MOST = 2**31 - 1


class Setting(NamedTuple):
    """`OWNER.NAME=VALUE`, as `--option` takes it.

    Attributes:
        shown: How messages name it.
        owner: The method or metric.
        name: The option.
        value: What it is set to, as text.
        whole: Nothing is missing.
    """

    shown: str
    owner: str
    name: str
    value: str
    whole: bool

    @classmethod
    def of(cls, text: str) -> "Setting":
        """Take a setting apart."""
        left, equals, value = text.partition("=")
        owner, dot, name = left.strip().replace("-", "_").partition(".")
        return cls(f"`--option {names.shortened(text)}`", owner, name, value.strip(), bool(equals and dot))

    def read(self, annotation: Any) -> Any:
        """Return the value as a kind of argument.

        Raises:
            ValueError: If it is of another kind.
        """
        try:
            return read(self.value, annotation)
        except ValueError as error:
            raise ValueError(f"{self.shown}: {error}") from error


def kinds(annotation: Any) -> tuple[type, ...]:
    """Return the kinds of an option's values that can be written: of what is an array, its numbers."""
    if annotation is Any:
        return (int, float, bool, str, tuple, type(None))
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(dict.fromkeys(kind for part in get_args(annotation) for kind in kinds(part)))
    kind = get_origin(annotation) or annotation
    return (kind,) if kind in (int, float, bool, str, tuple, type(None)) else ()


def read(text: str, annotation: Any) -> Any:
    """Read an option's value.

    Raises:
        ValueError: If it is not of the option's kind, not finite, or larger than compiled programs can count.
    """
    allowed = kinds(annotation)
    value = _literal(text, allowed)
    if str in allowed and isinstance(value, str):
        return value
    numbers = value if isinstance(value, tuple) and tuple in allowed else (value,)
    if tuple in allowed and isinstance(value, list):
        numbers = value = tuple(value)
    for number in numbers:
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if not (math.isfinite(number) and (isinstance(number, float) or abs(number) <= MOST)):
                raise ValueError("expected a finite number of at most 2147483647")
        elif value is not number:
            raise ValueError("expected numbers with commas between")
    if isinstance(value, int) and not isinstance(value, bool) and int not in allowed and float in allowed:
        return float(value)
    if type(value) not in allowed:
        listed = names.either([_NAMES[kind] for kind in allowed])
        raise ValueError(f"expected {listed}")
    return value


_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a word",
    tuple: "several numbers with commas between",
    type(None): "None",
}


def _literal(text: str, allowed: tuple[type, ...]) -> Any:
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters; got {len(text)}")
    if text.lower() in ("true", "false", "none"):
        text = text.capitalize()
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    # Such as "nan", which is then refused for what it is.
    with suppress(ValueError):
        return float(text) if float in allowed else text
    return text
