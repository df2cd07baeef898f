"""Nodes of an ONNX graph, and the table of the operators."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .values import Value

Result = Value | tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """An operation of a graph.

    Attributes:
        op: The operator's name.
        name: The node's own name, or that of its first result.
        inputs: What it reads; empty for an optional input that is left out.
        outputs: What it computes.
        attributes: Its attributes, with text as str and tensors as NumPy arrays.
        opset: The version of the operators.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute; `default` if the node does not state it, else of the default's kind."""
        value = self.attributes.get(name, default)
        kinds = (int, float) if isinstance(default, float) else type(default)
        if default is not None and not isinstance(value, kinds):
            raise ValueError(f"attribute {name} must be {_KINDS[type(default)]}")
        return value

    def whole(self, name: str) -> list[int] | None:
        """Return an attribute of integers; None if the node does not state it."""
        value = self.attributes.get(name)
        if value is not None and not (
            isinstance(value, (list, tuple)) and all(type(each) is int for each in value)
        ):
            raise ValueError(f"attribute {name} must be integers")
        return None if value is None else list(value)


_KINDS = {int: "a whole number", float: "a number", str: "a word", list: "numbers"}

Operator = Callable[..., Result]
# How the graph's arrays are stored for an operator: by the place among its inputs, an order by rank.
Storage = Mapping[int, Callable[[Node, int], Sequence[int]]]


@dataclass(frozen=True)
class Entry:
    """What is known of an operator.

    Attributes:
        run: Computes its results of a node and the values that it reads, None for those left out.
        storage: The order in which it takes its weights.
        settings: Which of its inputs are numbers that are not weights.
    """

    run: Operator
    storage: Storage = field(default_factory=dict)
    settings: tuple[int, ...] = ()


OPERATORS: dict[str, Entry] = {}


def operator(*names: str, storage: Storage | None = None, settings: tuple[int, ...] = ()) -> Any:
    """Register a function as the operators of these names."""

    def enter(run: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, Entry(run, storage or {}, settings)))
        return run

    return enter
