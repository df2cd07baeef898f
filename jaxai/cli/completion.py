"""Shell completion from the stored facts, within milliseconds.

The shells' scripts are Typer's (`jaxai --install-completion`); their requests are answered here, before the
parser and JAX are imported. Names of classes are written with underscores, which `--target` takes for spaces.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from ..report._samples import SAMPLES
from . import facts

Answer = dict[str, str]
_TOP = ("top1", "top3", "top5")
# Of networks without classes.
_NUMBERS = ("mean", "length", "like=")
_LISTS = ("methods", "metrics", "references", "classes")
_DEFAULT_MODEL = "efficientnet_lite0"
# Too many names to list: a first letter is required.
_MANY = 200


def answer(asked: str) -> bool:
    """Answer a request of a shell's completion script.

    Args:
        asked: The script's request, such as "complete_bash".

    Returns:
        Whether this shell is supported here.
    """
    shell = asked.removeprefix("complete_")
    if shell == "bash":
        # Readline treats "=" as the end of a word.
        words = _split(os.environ.get("COMP_WORDS", ""))
        number = int(os.environ.get("COMP_CWORD", "0"))
        before, word = words[1:number], words[number] if number < len(words) else ""
        print("\n".join(_quoted(value) for value in complete(before, word)))
    elif shell in ("zsh", "fish"):
        text = os.environ.get("_TYPER_COMPLETE_ARGS", "")
        words = _split(text)[1:]
        word = words.pop() if words and not text.endswith(" ") else ""
        found = complete(words, word)
        if shell == "zsh":
            pairs = "\n".join(f'"{_zsh(value)}":"{_zsh(about or value)}"' for value, about in found.items())
            print(f"_arguments '*: :(({pairs}))'" if found else "_files")
        elif os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
            sys.exit(0 if found else 1)
        else:
            print("\n".join(f"{value}\t{about}" if about else value for value, about in found.items()))
    else:
        return False
    return True


def complete(words: Sequence[str], word: str) -> Answer:
    """Return the possible completions of a word, each with a description.

    File names are left to the shell.

    Args:
        words: The words before it, without the command's name.
        word: Its beginning.
    """
    known = facts.read()["commands"]
    name, rest = _command(words)
    if name not in known:
        return _starting(word, {one: known[one]["help"] for one in facts.COMMANDS})
    about = known[name]
    if inside := about.get("commands"):
        return _starting(word, {one: known[f"{name} {one}"]["help"] for one in inside})
    given, waiting, plain = _read(rest, about["options"])
    if word == "=" and waiting:
        word = ""
    model = given.get("--model") or _default(about["options"])
    if waiting:
        return _values(about["options"][waiting].get("kind"), word, model, given)
    option, equals, part = word.partition("=")
    if equals and option in about["options"]:
        found = _values(about["options"][option].get("kind"), part, model, given)
        return {f"{option}={value}": text for value, text in found.items()}
    if word.startswith("-"):
        free = {
            name: option["help"]
            for name, option in about["options"].items()
            if name not in given or option.get("repeated")
        }
        return _starting(word, {**free, "--help": "Show this message and exit."})
    arguments = about["arguments"]
    if plain and len(arguments) > 1 and arguments[0] == "models":
        model = plain[0]
    place = min(len(plain), len(arguments) - 1) if about["several"] else len(plain)
    return _values(arguments[place], word, model, given) if place < len(arguments) else {}


def _split(line: str) -> list[str]:
    """Return a line's words; unclosed quotes end with the line."""
    import shlex

    reader = shlex.shlex(line, posix=True)
    reader.whitespace_split, reader.commenters = True, ""
    found = []
    try:
        found.extend(reader)
    except ValueError:
        found.append(reader.token)
    return found


def _command(words: Sequence[str]) -> tuple[str, list[str]]:
    known, rest = facts.read()["commands"], [word for word in words if word != "--version"]
    for count in (2, 1):
        if len(rest) >= count and (name := " ".join(rest[:count])) in known:
            return name, rest[count:]
    return "", rest


def _read(words: Sequence[str], options: Mapping[str, Mapping]) -> tuple[dict[str, str], str, list[str]]:
    """Return the options that are set, the one that waits for its value, and the other words."""
    given: dict[str, str] = {}
    waiting, plain = "", []
    for word in words:
        if waiting and word == "=":
            continue
        option, equals, value = word.partition("=")
        if waiting:
            given[waiting], waiting = word, ""
        elif option in options:
            given[option] = value
            waiting = "" if equals or options[option]["flag"] else option
        elif not word.startswith("-"):
            plain.append(word)
    return given, waiting, plain


def _default(options: Mapping[str, Mapping]) -> str:
    return options.get("--model", {}).get("default") or _DEFAULT_MODEL


def _values(kind: str | Sequence[str] | None, word: str, model: str, given: Mapping[str, str]) -> Answer:
    """Return the values of a kind that begin as the word does."""
    known = facts.read()
    if kind is None or not isinstance(kind, str):
        return _starting(word, kind or ())
    if kind in _LISTS:
        done, comma, part = word.rpartition(",")
        listed = _listed(kind, model, part)
        used = done.split(",")
        fresh = [name for name in listed if name not in used]
        return {f"{done}{comma}{name}": _about(kind, name) for name in fresh}
    if kind == "settings":
        return _settings(word, given)
    if kind in ("photos", "photo_or_noise"):
        return _photos(word, [*SAMPLES, *(("noise",) if kind == "photo_or_noise" else ())])
    if kind == "layers":
        return _starting(word, facts.layers_of(model), ignore_case=True)
    if kind == "models":
        return _starting(word, {name: one["source"] for name, one in known["models"].items()})
    return _starting(word, known[kind])


def _listed(kind: str, model: str, part: str) -> Iterable[str]:
    if kind != "classes":
        return _starting(part, facts.read()[kind])
    names = [name.replace(" ", "_") for name in facts.classes_of(model)]
    if not names and model in facts.read()["models"]:
        return _starting(part, _NUMBERS)
    count = Counter(name.lower() for name in names)
    if not part and len(names) > _MANY:
        return _TOP
    # Classes with the same name are offered only by number.
    return _starting(part, [*_TOP, *(name for name in names if count[name.lower()] == 1)], ignore_case=True)


def _about(kind: str, name: str) -> str:
    found = facts.read().get(kind, {})
    return found[name] if isinstance(found, dict) and isinstance(found.get(name), str) else ""


def _settings(word: str, given: Mapping[str, str]) -> Answer:
    """Return METHOD.NAME= for the methods that are chosen, or for all."""
    known = facts.read()
    owners = {**known["settings"], **known["metrics"]}
    chosen = [name.replace("-", "_") for name in given.get("--method", "").split(",") if name]
    names = [name for name in chosen if name in owners] or owners
    return _starting(word, [f"{name}.{option}=" for name in names for option in owners[name]])


def _photos(word: str, samples: Sequence[str]) -> Answer:
    """Return the samples, and the files beside them, which a shell would leave out then."""
    found = _starting(word, samples)
    if not found:
        return {}
    with suppress(OSError):
        for entry in sorted(os.scandir("."), key=lambda one: one.name):
            if entry.name.startswith(word) and not (entry.name.startswith(".") and not word):
                found[f"{entry.name}/" if entry.is_dir() else entry.name] = ""
    return found


def _starting(word: str, names: Iterable[str], *, ignore_case: bool = False) -> Answer:
    lower = word.lower() if ignore_case else word
    about = names if isinstance(names, Mapping) else {}
    return {
        name: str(about.get(name, ""))
        for name in names
        if (name.lower() if ignore_case else name).startswith(lower)
    }


def _quoted(value: str) -> str:
    """Return a word as bash puts it on the line."""
    return re.sub(r"([\s'\"\\()&;|<>$`!*?#\[\]])", r"\\\1", value)


def _zsh(text: str) -> str:
    text = text.replace('"', '""').replace("'", "''").replace("$", "\\$").replace("`", "\\`")
    return text.replace(":", r"\\:")
