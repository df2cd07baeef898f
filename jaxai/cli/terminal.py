"""Lines on the terminal that are safe to print whatever their content and destination."""

import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_LONGEST = 2000
# Control and format characters, among them escapes and those that turn the direction of writing; halves of
# pairs, with which Python writes bytes that are not UTF-8; line and paragraph separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def readable(text: object, limit: int = _LONGEST) -> str:
    r"""Return text safe for one line: characters that could control a terminal are escaped.

    A byte of a file name that is not UTF-8 becomes `\xe9`; text of more than `limit` characters is cut.
    """
    text = str(text)
    cut = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSAFE else c for c in cut)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def say(text: str) -> None:
    """Print a line of the command's output; nothing once its reader has closed the pipe."""
    _print(sys.stdout, text)


def note(text: str) -> None:
    """Print a line about the run on standard error; nothing if that cannot be written."""
    with suppress(OSError):
        _print(sys.stderr, f"jaxai: {text}")


def _print(stream: Any, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = readable(text).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        discard(stream)


def discard(stream: Any) -> None:
    """Discard further output to a stream, so that Python does not fail when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


def open_streams() -> None:
    """Replace closed standard streams by the null device.

    Otherwise the next opened files get their descriptors, and output of C code goes into them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free descriptor, which is this one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w"))


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show warnings as lines of the command."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
        yield
