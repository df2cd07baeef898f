"""Pillow without its warnings, libtiff's messages and its limit of pixels, while photos are read."""

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from PIL import Image

_lock = threading.Lock()
# Of all threads that read photos, the first enters and the last leaves: restoring what another thread has
# changed meanwhile would make the changes last.
_readers = 0
_restore: list[Any] = []
# Errors that a library logs are printed where nobody has set a handler.
_nowhere = logging.NullHandler()


@contextmanager
def quiet(limit: float) -> Iterator[None]:
    """Keep Pillow and libtiff from printing, and from refusing up to `limit` pixels."""
    global _readers
    with _lock:
        if _readers == 0:
            _enter()
        _readers += 1
        if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = None if limit == float("inf") else -(-int(limit) // 2)
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _leave()


def _enter() -> None:
    caught = warnings.catch_warnings()
    caught.__enter__()
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(_nowhere)
    handlers = [(function, function(None)) for function in _libtiff_handlers()]
    _restore.extend((caught, handlers, Image.MAX_IMAGE_PIXELS))


def _leave() -> None:
    caught, handlers, Image.MAX_IMAGE_PIXELS = _restore
    _restore.clear()
    logging.getLogger("PIL").removeHandler(_nowhere)
    for function, handler in handlers:
        function(handler)
    caught.__exit__(None, None, None)


@cache
def _libtiff_handlers() -> tuple[Any, ...]:
    """Return libtiff's functions that set what prints its messages; none where it is built into Pillow."""
    try:
        library = ctypes.CDLL(Image.core.__file__)
        functions = tuple(getattr(library, f"TIFFSet{kind}Handler") for kind in ("Error", "Warning"))
    except (AttributeError, OSError, TypeError):
        return ()
    for function in functions:
        function.restype, function.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    return functions
