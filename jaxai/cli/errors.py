"""How a command ends: with a line about the caller's mistake, and an exit code."""

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..report import _errors as messages
from ..report import _waiting
from . import terminal

# Handlers that nobody has chosen.
_NOBODYS = (signal.SIG_DFL, signal.default_int_handler)


@dataclass
class Outcome:
    """How a command ended."""

    code: int = 0
    signal: int = signal.SIGINT


@contextmanager
def reported() -> Iterator[Outcome]:
    """Turn expected exceptions into one line on the standard error and the exit code 2."""
    outcome = Outcome()
    terminal.open_streams()
    out = sys.stdout
    try:
        with terminal.warnings_as_lines(), _stoppable(outcome):
            yield outcome
    except KeyboardInterrupt:
        terminal.note("interrupted" if outcome.signal == signal.SIGINT else "terminated")
        outcome.code = 128 + outcome.signal
    except SystemExit as stop:
        # The parser exits like this when its help's reader has closed the pipe.
        if not _is_broken_pipe(stop.__context__):
            raise
        sys.stdout = out
        terminal.discard(out)
    except Exception as error:
        if _is_broken_pipe(error):
            terminal.discard(out)
        elif messages.debugging() or (line := messages.explain(error)) is None:
            raise
        else:
            terminal.note(f"error: {line}")
            outcome.code = 2


@contextmanager
def _stoppable(outcome: Outcome) -> Iterator[None]:
    """Make SIGTERM and SIGHUP act like Ctrl-C, unless other handlers are installed.

    An exception raised by the handler may be lost in a callback of the interpreter; a flag is not.
    """
    _waiting.asked_to_stop.clear()

    def stop(number: int, _: object) -> None:
        outcome.signal = number
        _waiting.asked_to_stop.set()
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in _NOBODYS:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        _waiting.asked_to_stop.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_broken_pipe(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE
