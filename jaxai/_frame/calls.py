"""Marks for calls of modules while a model is traced, which tell the module that computed a value.

No object of a user or of a library is changed. Flax NNX and Equinox modules are called as copies whose
classes are subclasses made here; a call marks its result. The class travels with the copy through every
transformation that flattens modules and rebuilds them. Flax Linen and Haiku can intercept the methods that
the current thread calls. Traces made meanwhile have their own entries in JAX's caches, which other calls do
not find.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from .._program.marks import ModulePath
from . import foreign


class _SlashedPath(ModulePath):
    separator = "/"


# Part of the key of JAX's caches, so that functions are traced again; local to the thread.
_recording = jax.make_user_context(False)


def is_recording() -> bool:
    """Return whether calls of modules are being marked."""
    return bool(_recording.value)


@contextmanager
def recording() -> Iterator[None]:
    """Mark the results of watched models' modules and of Linen and Haiku modules."""
    with _recording(True), _intercepted():
        yield


# Modules that are called as they are: Flax NNX, Equinox


def watched(tree: Any, unpacked: Callable[[Any], Any]) -> Any:
    """Return a copy of a pytree in which calls of NNX and Equinox modules mark their results.

    Args:
        tree: The model.
        unpacked: Returns the model that a node holds outside its children; None for other nodes.
    """
    if (inner := unpacked(tree)) is not None:
        return watched(inner, unpacked)
    if is_module(tree):
        return watched_modules({"": tree})[""]

    def is_node(node):
        return node is not tree and (is_module(node) or unpacked(node) is not None)

    nodes, structure = jax.tree.flatten(tree, is_leaf=is_node)
    modules = {place: node for place, node in enumerate(nodes) if is_module(node)}
    names = distinct([type(module).__name__ for module in modules.values()])
    copies = watched_modules(dict(zip(names, modules.values(), strict=True)))
    for place, name in zip(modules, names, strict=True):
        nodes[place] = copies[name]
    nodes = [node if unpacked(node) is None else watched(node, unpacked) for node in nodes]
    return jax.tree.unflatten(structure, nodes)


def is_module(node: Any) -> bool:
    """Return whether this is a module whose calls are marked by its class."""
    return foreign.is_nnx(node) or foreign.is_equinox(node)


def distinct(names: Sequence[str]) -> list[str]:
    """Return names made distinct: repetitions get a number."""
    counts = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name}_{count}" if count else name for name, count in zip(names, counts, strict=True)]


def watched_modules(modules: dict[str, Any]) -> dict[str, Any]:
    """Return copies of modules that mark their results; with several modules, their names start the paths."""
    copies = {name: foreign.rebuilt(module) for name, module in modules.items()}
    for name, copy in copies.items():
        prefix = (name,) if len(copies) > 1 else ()
        for path, module in [*_parts(copy)]:
            kind, path = type(module), ".".join(map(str, (*prefix, *path)))
            if path and any("__call__" in vars(base) for base in kind.__mro__):
                # Only this function holds the copy.
                object.__setattr__(module, "__class__", _watching(kind, path))
    return copies


def _parts(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Return a module and all modules inside it, with their paths."""
    if foreign.is_nnx(node):
        yield from sys.modules["flax.nnx"].iter_modules(node)
        return
    if foreign.is_equinox(node):
        yield path, node
        fields = [f.name for f in dataclass_fields(node) if not f.metadata.get("static", False)]
        children = [(name, getattr(node, name)) for name in fields if hasattr(node, name)]
    elif isinstance(node, (list, tuple)):
        children = list(enumerate(node))
    else:
        children = list(node.items()) if isinstance(node, dict) else []
    for name, child in children:
        yield from _parts(child, (*path, name))


@lru_cache(maxsize=4096)
def _watching(kind: type, path: str) -> type:
    """Return a subclass whose calls are marked; cached by path, because it is registered with JAX."""

    def __call__(self, *args, **keywords):
        return marked(ModulePath(path), kind.__call__, self, *args, **keywords)

    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind)(kind.__name__, (kind,), {**names, "__call__": __call__})


def marked(path: ModulePath, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Call a function and mark its results as those of a module.

    Several arrays are marked by their places: `path[0]`, `path['logits']`.
    """
    with jax.named_scope(path):
        out = function(*args, **keywords)
    leaves, structure = jax.tree_util.tree_flatten_with_path(out)
    several = sum(_is_floating(leaf) for _, leaf in leaves) > 1
    found = [
        checkpoint_name(leaf, path.at(jax.tree_util.keystr(keys) if several else ""))
        if _is_floating(leaf)
        else leaf
        for keys, leaf in leaves
    ]
    return jax.tree.unflatten(structure, found)


def _is_floating(value):
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)


# Modules of libraries that intercept methods: Flax Linen, Haiku


@contextmanager
def _intercepted() -> Iterator[None]:
    with ExitStack() as stack:
        if (linen := sys.modules.get("flax.linen")) is not None:
            stack.enter_context(linen.intercept_methods(_linen))
        if (haiku := sys.modules.get("haiku")) is not None:
            stack.enter_context(haiku.intercept_methods(_haiku))
        yield


def _linen(function, args, keywords, context):
    path = getattr(context.module, "path", ()) if context.module.scope is not None else ()
    if context.method_name != "__call__" or not path:
        return function(*args, **keywords)
    return marked(_SlashedPath("/".join(path)), function, *args, **keywords)


def _haiku(function, args, keywords, context):
    if context.method_name != "__call__":
        return function(*args, **keywords)
    return marked(_SlashedPath(context.module.module_name), function, *args, **keywords)
