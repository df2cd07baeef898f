"""What a caller did wrong, in one line; what is our own fault keeps its traceback."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# What the library raises for wrong arguments, files and missing packages.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError)
_DEBUG = "JAXAI_DEBUG"
INTERRUPTED = 130


@dataclass
class Outcome:
    """How a command ended."""

    code: int = 0


@contextmanager
def reported() -> Iterator[Outcome]:
    """Turn expected exceptions into one line on the standard error and the exit code 2."""
    outcome = Outcome()
    try:
        yield outcome
    except KeyboardInterrupt:
        print("jaxai: interrupted", file=sys.stderr)
        outcome.code = INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome.code = 0
    except Exception as error:
        if os.environ.get(_DEBUG) or (line := explain(error)) is None:
            raise
        print(f"jaxai: error: {line}", file=sys.stderr)
        outcome.code = 2


def explain(error: Exception) -> str | None:
    """Return one line for a caller's mistake, None for an error of this program."""
    # The parser's own errors know how to say which option is meant.
    if hasattr(error, "format_message"):
        return _line(error.format_message())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory: lower --batch-size"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "no space left to write the output; nothing of it was kept"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}"
    if isinstance(error, _EXPECTED):
        return _line(str(error)) or type(error).__name__
    return None


def _line(text: str) -> str:
    return " ".join(text.split())
