"""Callers' mistakes as one line; errors of this program keep their traceback."""

import dis
import errno
import os

# Exceptions that the library raises for wrong arguments.
_ARGUMENTS = (ValueError, TypeError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DEBUG = "JAXAI_DEBUG"
_RAISE = dis.opmap["RAISE_VARARGS"]


def debugging() -> bool:
    """Return whether errors should show their traceback."""
    return bool(os.environ.get(_DEBUG))


def explain(error: Exception) -> str | None:
    """Return one line for a caller's mistake, None for an error of this program."""
    # The parser's own errors already name the option.
    if parsed := getattr(error, "format_message", None):
        return _line(parsed()).replace(": Value error, ", ": ")
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory: lower --batch-size"
    if isinstance(error, OSError) and error.errno in _FULL:
        return "no space left to write the output; only what was finished is kept"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}"
    if isinstance(error, (OSError, ImportError)) or isinstance(error, _ARGUMENTS) and _is_refusal(error):
        return _line(str(error)) or type(error).__name__
    return None


def described(error: Exception) -> str:
    """Return one line about an error after which a run continues; raise it when debugging."""
    if debugging():
        raise error
    line = explain(error)
    return line or _line(f"unexpected {type(error).__name__}: {error} (JAXAI_DEBUG=1 shows where)")


def _is_refusal(error: BaseException) -> bool:
    """Return whether a `raise` of this package made the error, rather than a failed operation."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return True
    package = last.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    return package == __name__.partition(".")[0] and last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE


def _line(text: str) -> str:
    return " ".join(text.split())
