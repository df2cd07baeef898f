"""Names of folders made from names of photos, and suggestions for misspelled names."""

import difflib
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

_UNNAMED = "photo"
# Bytes that most file systems allow in a name.
_LONGEST = 255
_DIGITS = 8
_ALIKE = 0.6


def folders(sources: Sequence[str]) -> list[str]:
    """Return the name of an output folder for each path, all different however upper case is taken.

    It is the file's name without its extension; with it, where files of a run would share a folder; and with
    a digest of the whole path where even that is shared. The order of photos does not matter.
    """
    levels = [_levels(source) for source in sources]
    chosen = [0] * len(sources)
    while True:
        names = [parts[level] for parts, level in zip(levels, chosen, strict=True)]
        count = Counter(map(_folded, names))
        again = [
            i for i, name in enumerate(names) if count[_folded(name)] > 1 and chosen[i] < len(levels[i]) - 1
        ]
        if not again:
            return names
        for i in again:
            chosen[i] += 1


def _levels(source: str) -> tuple[str, str, str]:
    stem, extension = os.path.splitext(os.path.basename(source))
    digest = hashlib.sha256(os.fsencode(os.path.abspath(source))).hexdigest()[:_DIGITS]
    return _safe(stem), _safe(stem + extension), f"{_cut(_safe(stem), _LONGEST - _DIGITS - 1)}-{digest}"


def _safe(name: str) -> str:
    """Return a name that is safe as a file name: no parent folder, not hidden, no control characters."""
    plain = "".join("_" if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in name)
    return plain.lstrip(". ").rstrip(". ") or _UNNAMED


def _cut(name: str, length: int) -> str:
    return os.fsencode(name)[:length].decode(errors="ignore") or _UNNAMED


def _folded(name: str) -> str:
    """Return a key that is equal for names that some file system considers equal."""
    return unicodedata.normalize("NFC", name).casefold()


def recorded(source: str) -> str:
    """Return a path as text that every JSON reader accepts, with escapes for bytes that are not UTF-8."""
    return os.fsencode(source).decode("utf-8", "backslashreplace")


def unknown(kind: str, word: object, known: Iterable[str], listing: str = "") -> str:
    """Return a message about an unknown name, with similar names or all names.

    Args:
        kind: What it should have been, as "layer".
        word: What was given.
        known: The names there are.
        listing: A command that lists them.
    """
    names = list(known)
    if not isinstance(word, str):
        return f"a {kind} is named by a word; got {shortened(repr(word))}"
    start = f"unknown {kind} {shortened(word)!r}"
    if close := near(word, names):
        more = f" (`{listing}` lists all)" if listing else ""
        return f"{start}; did you mean {either(close)}?{more}"
    return f"{start}; the {kind}s are {', '.join(names)}"


def near(word: str, known: Sequence[str], count: int = 3) -> list[str]:
    """Return the names most similar to a word, closest first, ignoring case and separators."""
    # Comparing takes time that grows with the square of the length.
    compare = difflib.SequenceMatcher(b=_plain(word[:100]))
    likeness = {}
    for name in known:
        compare.set_seq1(_plain(name))
        likeness[name] = compare.ratio()
    return sorted((name for name in likeness if likeness[name] >= _ALIKE), key=lambda name: -likeness[name])[
        :count
    ]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def either(words: Sequence[object]) -> str:
    """Return words as a choice: "a, b or c"."""
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def shortened(word: str, limit: int = 60) -> str:
    """Return a user's word, truncated if it is too long for a message."""
    return word if len(word) <= limit else f"{word[: limit - 3]}..."
