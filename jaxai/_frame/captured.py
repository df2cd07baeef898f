"""The state that a plain function can see, which is the cache key of its compiled program.

The arrays that a function closes over become constants of its compiled program, and so does everything that
controls its tracing. A program may be reused only while all of that is unchanged. `capture` reads it: closure
cells, defaults, the globals that a function names, bound objects and their attributes, at any depth. JAX
arrays are immutable and compared by identity, NumPy arrays by their contents. A function whose weights have
changed is therefore a different function; a new `lambda` with the same code and the same state is not.
"""

import dis
import functools
import hashlib
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from . import calls, foreign

# With more objects than this, a function counts as new at every call: correct, but slow.
_MOST_OBJECTS = 200_000
_MOST_CAPTURED = 64
# The globals of their functions are not weights.
_LIBRARIES = frozenset(
    "jax jaxlib numpy scipy flax haiku equinox keras optax jaxtyping jaxai orbax chex".split()
).union(sys.stdlib_module_names)
_PLAIN = (type(None), bool, int, complex, str, bytes, type(Ellipsis), range)
_BY_IDENTITY = (type, types.ModuleType, types.BuiltinFunctionType, np.ufunc)


class Captured:
    """A value and the state it could see when captured; a key for compiled programs, equal only to itself.

    Attributes:
        value: The latest value with this state.
        states: What it saw before and after it was traced.
    """

    def __init__(self, value: Any, state: tuple):
        self.value, self.states = value, [state]

    def matches(self, state: tuple) -> bool:
        try:
            return any(state == known for known in self.states)
        except Exception:  # Comparing users' objects may raise.
            return False

    def call(self, *args: Any, **keywords: Any) -> Any:
        """Call the value, with fresh copies of the NNX modules that it closes over."""
        function, copies = _fresh(self.value)
        with foreign.checked(copies):
            out = function(*args, **keywords)
        # A function that counts or stores its own traces is still the same function.
        after = _read(self.value)
        if not self.matches(after) and _arrays(after) == _arrays(self.states[0]):
            self.states[1:] = [*self.states[1:][-7:], after]
        return out


_known: OrderedDict[int, Captured] = OrderedDict()
_lock = Lock()


def capture(value: Any) -> Captured:
    """Return the `Captured` shared by all values that are the same function with the same state."""
    state = _read(value)
    with _lock:
        for key, found in reversed(_known.items()):
            if found.matches(state):
                found.value = value
                _known.move_to_end(key)
                return found
        new = Captured(value, state)
        _known[id(new)] = new
        if len(_known) > _MOST_CAPTURED:
            _known.popitem(last=False)
        return new


class _Same:
    """An object that equals only itself."""

    __slots__ = ("object",)

    def __init__(self, value):
        self.object = value

    def __eq__(self, other):
        return isinstance(other, _Same) and self.object is other.object

    def __hash__(self):
        return id(self.object)


def _arrays(state):
    return [token for token in state if isinstance(token, _Same) and isinstance(token.object, jax.Array)]


def _read(value: Any) -> tuple:
    """Return everything that `value` can see as a flat sequence of tokens."""
    tokens: list[Any] = []
    stack, seen = [value], {}
    while stack:
        node = stack.pop()
        if isinstance(node, _PLAIN):
            tokens.append((type(node), node))
        elif isinstance(node, float):
            tokens.append((type(node), node.hex()))
        elif id(node) in seen:
            tokens.append(seen[id(node)][0])
        elif len(seen) > _MOST_OBJECTS:
            return (_Same(object()),)
        else:
            # The object is kept alive, so that its id is not reused.
            seen[id(node)] = (("seen", len(seen)), node)
            found, children = _parts(node)
            tokens.append(found)
            tokens.append(len(children))
            stack.extend(reversed(children))
    return tuple(tokens)


def _parts(node: Any) -> tuple[Any, list[Any]]:
    """Return a token that identifies an object, and the objects that it can see."""
    kind = type(node)
    if isinstance(node, jax.Array):
        return _Same(node), []
    if isinstance(node, (np.ndarray, np.generic)):
        return _contents(node), []
    if isinstance(node, _BY_IDENTITY):
        return _Same(node), []
    if isinstance(node, types.FunctionType):
        return (kind, node.__code__, node.__module__), _seen_by(node)
    if isinstance(node, types.MethodType):
        return kind, [node.__func__, node.__self__]
    if isinstance(node, Captured):
        return kind, [node.value]
    if isinstance(node, (functools.partial, Partial)):
        return kind, [node.func, *node.args, *node.keywords, *node.keywords.values()]
    if kind in (list, tuple, deque):
        return kind, list(node)
    if kind in (set, frozenset):
        return (kind, frozenset(map(hash, node))), []
    if kind in (dict, OrderedDict):
        return kind, [*node.keys(), *node.values()]
    special = foreign.parts(node)
    if special is not None:
        return (kind, *map(_Same, special[0])), special[1]
    if not jax.tree_util.all_leaves([node]):
        leaves, structure = jax.tree.flatten(node)
        return (kind, structure), leaves
    if isinstance(getattr(node, "__wrapped__", None), types.FunctionType):
        return kind, [node.__wrapped__]
    if kind.__module__.partition(".")[0] in _LIBRARIES and not callable(node) and _hashable(node):
        return (kind, node), []
    attributes = _attributes(node)
    if attributes is None:
        return _Same(node), []
    return kind, [*attributes.keys(), *attributes.values()]


def _contents(array):
    if array.dtype.hasobject:
        return _Same(array)
    data = np.ascontiguousarray(array)
    digest = hashlib.sha256(data.reshape(-1).view(np.uint8).data, usedforsecurity=False).digest()
    return array.shape, array.dtype, digest


def _hashable(node):
    try:
        hash(node)
    except Exception:
        return False
    return True


def _attributes(node) -> dict[str, Any] | None:
    found = dict(getattr(node, "__dict__", None) or {})
    slots = False
    for base in type(node).__mro__:
        names = base.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            slots = True
            if name not in ("__dict__", "__weakref__") and hasattr(node, name):
                found[name] = getattr(node, name)
    return found if slots or hasattr(node, "__dict__") else None


def _seen_by(function: types.FunctionType) -> list[Any]:
    found: list[Any] = [function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # Not assigned yet.
            found.append(None)
    if (function.__module__ or "").partition(".")[0] in _LIBRARIES:
        return found
    names, attributes = _names(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, types.ModuleType):
            found.append(value)
        elif value.__name__.partition(".")[0] not in _LIBRARIES:
            found.extend(vars(value).get(attribute) for attribute in attributes)
    return found


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the globals and the attributes that code names."""
    found: dict[str, None] = {}
    attributes: dict[str, None] = {}
    for line in dis.get_instructions(code):
        if line.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found[str(line.argval)] = None
        elif line.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes[str(line.argval)] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _names(constant)
            found |= dict.fromkeys(inner[0])
            attributes |= dict.fromkeys(inner[1])
    return tuple(found), tuple(attributes)


def _fresh(value: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Return a function that sees copies of its modules, and the NNX modules among these copies.

    NNX modules are copied; Equinox modules too while calls are recorded.
    """
    recording = calls.is_recording()
    if not (recording or foreign.nnx_is_loaded()):
        return value, []
    copied = calls.is_module if recording else foreign.is_nnx
    seen: dict[int, tuple[str, Any]] = {}
    _look(value, lambda name, module: seen.setdefault(id(module), (name, module)) if copied(module) else None)
    if not seen:
        return value, []
    if recording:
        names = calls.distinct([name for name, _ in seen.values()])
        copies = calls.watched_modules(dict(zip(names, (module for _, module in seen.values()), strict=True)))
        made = dict(zip(seen, copies.values(), strict=True))
    else:
        made = {key: foreign.rebuilt(module) for key, (_, module) in seen.items()}
    return _exchanged(value, made), [copy for copy in made.values() if foreign.is_nnx(copy)]


# Functions within functions are searched to this depth.
_DEEPEST = 4


def _look(value: Any, found: Callable[[str, Any], Any], depth: int = 0) -> None:
    """Yield the objects that a function sees in its closure, as globals and as its owner, by name."""
    if isinstance(value, types.MethodType):
        found("self", value.__self__)
    if not isinstance(value, types.FunctionType) or depth > _DEEPEST:
        return
    for name, content in _directly(value).items():
        found(name, content)
        if name in value.__code__.co_freevars:
            _look(content, found, depth + 1)


def _exchanged(value: Any, made: dict[int, Any], depth: int = 0) -> Any:
    """Return a function in which some of the objects that it sees are replaced."""
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, types.MethodType):
        return types.MethodType(value.__func__, made.get(id(value.__self__), value.__self__))
    if not isinstance(value, types.FunctionType) or depth > _DEEPEST:
        return value
    seen = _directly(value)
    new = {}
    for name, old in seen.items():
        new[name] = (
            _exchanged(old, made, depth + 1) if name in value.__code__.co_freevars else made.get(id(old), old)
        )
    if all(new[name] is old for name, old in seen.items()):
        return value
    free = value.__code__.co_freevars
    cells = tuple(
        types.CellType(new[name]) if name in seen and new[name] is not seen[name] else cell
        for name, cell in zip(free, value.__closure__ or (), strict=True)
    )
    scope = {name: x for name, x in new.items() if name not in free and x is not seen[name]}
    scope = {**value.__globals__, **scope} if scope else value.__globals__
    function = types.FunctionType(value.__code__, scope, value.__name__, value.__defaults__, cells)
    function.__kwdefaults__ = value.__kwdefaults__
    return function


def _directly(function: types.FunctionType) -> dict[str, Any]:
    """Return the objects that a function sees in its closure and as globals, by name."""
    found = {name: function.__globals__.get(name) for name in _names(function.__code__)[0]}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # Not assigned yet.
            continue
    return found
