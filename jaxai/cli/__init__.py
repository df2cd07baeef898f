"""The `jaxai` command."""

import sys
from collections.abc import Sequence

from . import errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `jaxai` command.

    A mistake of the caller's gives one line on the standard error and code 2; `JAXAI_DEBUG=1` in the
    environment shows where it came from.

    Args:
        arguments: Words after the command's name; None takes them from the command line.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with errors.reported() as outcome:
        from .app import app

        code = app(words or ["--help"], prog_name="jaxai", standalone_mode=False)
        sys.stdout.flush()
        outcome.code = code if isinstance(code, int) else 0
        if outcome.code == errors.INTERRUPTED:
            raise KeyboardInterrupt
    return outcome.code
