"""ONNX files to graphs: nodes in order, constants, inputs and outputs; every operator is known, or named."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..._files import shown
from ...weights_convert.onnx_file import parsed
from ...weights_convert.stored import Refused
from . import elementwise, images, norms, products, reductions, shapes  # noqa: F401
from .node import OPERATORS, Node

OPSETS = (9, 22)
# Operators of later versions that are known, because exporters write them with few changes.
_NEWEST = 25
_LOOPS = ("If", "Loop", "Scan")
_QUANTIZED = "Quant", "quant", "Integer", "QLinear"


@dataclass(frozen=True, eq=False)
class Graph:
    """An ONNX graph.

    Attributes:
        nodes: What the outputs need, in order.
        constants: Numbers by name.
        input: The name of the images.
        shape: Their shape as the file states it, None for sizes that are free.
        outputs: The names of the results.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    input: str
    shape: tuple[int | None, ...]
    outputs: tuple[str, ...]


def read(path: str | os.PathLike) -> Graph:
    """Read a file.

    Raises:
        Refused: If it is damaged, or holds what is not supported.
        OSError: If it cannot be read.
        ImportError: If the `onnx` package is missing.
    """
    model = parsed(Path(path).read_bytes())
    import onnx
    from onnx import inliner

    if not model.graph.node or not model.graph.output:
        raise Refused("truncated, or not an ONNX file: it has no graph")
    if not all(isinstance(word, str) for word in _words(model)):
        raise Refused("damaged: a name in it is not UTF-8")
    if model.functions:
        model = _guarded(inliner.inline_local_functions, model, about="its functions")
    opset = _opset(model)
    nodes = _needed(model.graph)
    _check_operators(nodes)
    folder = str(Path(path).absolute().parent)

    def numbers(tensor: Any) -> np.ndarray:
        # Reads what lies beside the file, too.
        return np.asarray(onnx.numpy_helper.to_array(tensor, folder))

    def array(tensor: Any, name: str) -> np.ndarray:
        return _guarded(numbers, tensor, about=f"the array {shown(name)!r}")

    read = {name for node in nodes for name in node.input} | {each.name for each in model.graph.output}
    constants = {}
    for tensor in model.graph.initializer:
        if tensor.name in constants:
            raise Refused(f"damaged: the array {shown(tensor.name)!r} appears twice in it")
        if tensor.name in read:
            constants[tensor.name] = array(tensor, tensor.name)
    if model.graph.sparse_initializer:
        raise Refused("sparse arrays are not supported")
    made = tuple(_node(node, opset, onnx.helper.get_attribute_value, array) for node in nodes)
    name, shape = _input(model.graph, constants, read)
    return Graph(made, constants, name, shape, tuple(each.name for each in model.graph.output))


def _words(model: Any) -> Iterator[Any]:
    """Yield the names in a file, which its reader gives as bytes where they are damaged."""
    graph = model.graph
    yield from (each.domain for each in model.opset_import)
    for node in graph.node:
        yield from (node.op_type, node.name, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
    yield from (each.name for each in (*graph.initializer, *graph.input, *graph.output))


def _guarded(function: Callable[..., Any], *arguments: Any, about: str) -> Any:
    """Call a reader of a part of a file; whatever it raises means that the part is damaged."""
    try:
        return function(*arguments)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise Refused(f"{about} is damaged or not supported: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return shown(" ".join(str(error).split()) or type(error).__name__, 200)


def _opset(model: Any) -> int:
    found = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if not found:
        raise Refused("it does not state the version of its operators (opset)")
    if not OPSETS[0] <= found[0] <= _NEWEST:
        raise Refused(f"opset {found[0]}; expected {OPSETS[0]} to {OPSETS[1]}")
    return found[0]


def _needed(graph: Any) -> list[Any]:
    """Return the nodes that the outputs need, in order."""
    wanted, found = {each.name for each in graph.output}, []
    for node in reversed(graph.node):
        if wanted.intersection(filter(None, node.output)):
            found.append(node)
            wanted.update(filter(None, node.input))
    return found[::-1]


def named(node: Any) -> str:
    """Return the name of a node; if it has none, that of its first result."""
    return node.name or next(filter(None, node.output), node.op_type)


def _check_operators(nodes: Sequence[Any]) -> None:
    """Refuse the first unknown operator before anything is computed."""
    missing = {}
    for node in nodes:
        own = node.domain in ("", "ai.onnx")
        if not (own and node.op_type in OPERATORS):
            missing.setdefault(node.op_type if own else f"{node.domain}.{node.op_type}", node)
    if not missing:
        return
    kind, node = next(iter(missing.items()))
    more = f", nor {', '.join(shown(each, 40) for each in [*missing][1:6])}" if len(missing) > 1 else ""
    why = "is not supported"
    if kind in _LOOPS:
        why = "is not supported: export the network without control flow"
    elif any(word in kind for word in _QUANTIZED):
        why = "is not supported: pass the network before quantization"
    raise Refused(f"operator {shown(kind)} of node {shown(named(node))!r} {why}{more}")


def _node(node: Any, opset: int, value_of: Callable[[Any], Any], array: Callable) -> Node:
    name = named(node)

    def value(attribute):
        if attribute.ref_attr_name:
            raise ValueError("it belongs to a function")
        found = value_of(attribute)
        if isinstance(found, bytes):
            return found.decode()
        if hasattr(found, "raw_data") and hasattr(found, "dims"):
            return array(found, name)
        if isinstance(found, (list, tuple)):
            return [each.decode() if isinstance(each, bytes) else each for each in found]
        if not isinstance(found, (int, float)):
            raise ValueError(f"a {type(found).__name__}")
        return found

    attributes = {}
    for attribute in node.attribute:
        about = f"attribute {shown(attribute.name)!r} of node {shown(name)!r}"
        attributes[attribute.name] = _guarded(value, attribute, about=about)
    if not node.output:
        raise Refused(f"node {shown(name)!r} has no results")
    return Node(node.op_type, name, tuple(node.input), tuple(node.output), attributes, opset)


def _input(graph: Any, constants: Mapping[str, Any], read: set[str]) -> tuple[str, tuple[int | None, ...]]:
    """Return the name and the shape of the images: the only input that is not a constant."""
    inputs = [each for each in graph.input if each.name not in constants]
    used = [each for each in inputs if each.name in read]
    if len(used) != 1:
        listed = ", ".join(repr(shown(each.name, 40)) for each in used[:6]) or "none"
        raise Refused(f"expected one input, the images; got {listed}")
    tensor = used[0].type.tensor_type
    if tensor.elem_type not in (1, 10, 11, 16):
        raise Refused(f"input {shown(used[0].name)!r} must be floating; its type is {tensor.elem_type}")
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if not tensor.HasField("shape") or len(sizes) not in (3, 4, 5):
        raise Refused(f"expected images of four axes; input {shown(used[0].name)!r} has {len(sizes)}")
    return used[0].name, tuple(size if size and size > 0 else None for size in sizes)
