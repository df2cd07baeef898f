"""The `jaxai` command."""

import gc
import os
import signal
import sys
from collections.abc import Sequence

from . import errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `jaxai` command.

    A caller's mistake gives one line on standard error and exit code 2; `JAXAI_DEBUG=1` in the environment
    shows its traceback. Closing the output early (`| head`) is not an error.

    Args:
        arguments: Words after the command's name; None takes them from the command line.

    Returns:
        The exit code: 0, 2 after mistakes, 130 after Ctrl-C and 143 after SIGTERM.
    """
    if arguments is None and (asked := os.environ.get("_JAXAI_COMPLETE")):
        from . import completion

        if completion.answer(asked):
            return 0
    if arguments is None:
        # Until `session.start`: looking through all objects again and again while modules are imported takes
        # a tenth of a short run's time, and finds nothing.
        gc.disable()
    words = list(sys.argv[1:] if arguments is None else arguments)
    with errors.reported() as outcome:
        from .app import app

        code = app(words or ["--help"], prog_name="jaxai", standalone_mode=False)
        sys.stdout.flush()
        outcome.code = code if isinstance(code, int) else 0
        # The parser turns an interruption into this code.
        if outcome.code == 128 + signal.SIGINT:
            raise KeyboardInterrupt
    if arguments is None:
        _leave(outcome.code)
    return outcome.code


def _leave(code: int) -> None:
    """End the process now if an interrupted computation still runs: Python would wait for it."""
    waiting = sys.modules.get("jaxai.report._waiting")
    if waiting is not None and waiting.abandoned():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
