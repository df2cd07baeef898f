"""Waiting for long computations with immediate response to Ctrl-C and a moving progress bar."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")
_PAUSE = 0.05  # seconds between two looks at Ctrl-C and the bar
_left: list[threading.Event] = []
# Set by who takes signals, and obeyed at the next look: an exception that a signal's handler raises is lost
# where it meets a callback of the interpreter, such as that of a weak reference.
asked_to_stop = threading.Event()


def patiently(work: Callable[[], Value], *, tick: Callable[[], None] | None = None) -> Value:
    """Return the result of `work`, computed in another thread while this one watches for Ctrl-C.

    Neither a compiled program nor the compiler can be interrupted from Python. After an interruption it does
    so in the background, and its result is dropped.

    Settings that hold in this thread only (`with jax.default_device(...)`) do not hold in another: with such
    settings, and outside the main thread, the work is done here.

    Args:
        work: What to do; it must wait for its results.
        tick: Called about every twentieth of a second.

    Raises:
        Exception: What `work` raises.
        KeyboardInterrupt: At once.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    if asked_to_stop.is_set():
        raise KeyboardInterrupt
    # The command's start does without JAX.
    from jax._src import config

    here = config.trace_context()
    found: dict[str, Any] = {}
    done = threading.Event()

    def run() -> None:
        try:
            found["same"] = config.trace_context() == here
            if found["same"]:
                found["value"] = work()
        except BaseException as error:
            found["error"] = error
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="jaxai", daemon=True).start()
        # `Thread.join` takes a thread for finished once it is interrupted.
        while not done.wait(_PAUSE):
            if asked_to_stop.is_set():
                raise KeyboardInterrupt
            if tick is not None:
                tick()
    except BaseException:
        if not done.is_set():
            _left.append(done)
        raise
    if "error" in found:
        raise found["error"]
    return found["value"] if found["same"] else work()


def abandoned() -> bool:
    """Return whether an interrupted computation still runs in the background."""
    return not all(done.is_set() for done in _left)
