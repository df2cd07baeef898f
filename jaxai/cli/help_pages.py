"""The help of commands, stored when a command changes and shown without the command's imports."""

import inspect
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from . import facts

_MOST = 2**31 - 1
_KINDS = {int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}
# Example lines, in the order in which a new user needs them.
EXAMPLES = {
    "explain": (
        "jaxai explain cat",
        "jaxai explain photo.jpg holiday/ --target top3 --method grad_cam,lime",
        "jaxai explain cat --target tabby --method lime -o lime.num_samples=500",
        "jaxai explain cat --scores --html cat.html",
        "jaxai explain photo.jpg --model net.onnx --labels labels.txt --normalize imagenet",
    ),
    "compare": (
        "jaxai compare cat coffee rocket --method grad_cam,saliency",
        "jaxai compare holiday/ --method grad_cam,lime --metric relevance_gain,gini --out table",
    ),
    "dream": (
        "jaxai dream cat",
        "jaxai dream photo.jpg --layer conv4_3 --size 640 --pair pair.png",
        "jaxai dream noise --steps 20 --out noise.png",
    ),
    "visualize": (
        "jaxai visualize efficientnet_lite0 logits:tabby,espresso",
        "jaxai visualize vgg16_features conv4_3:0-11 --out sheets",
        "jaxai visualize vgg16_features conv4_3:7 --photos holiday/",
    ),
    "atlas": ("jaxai atlas holiday/", "jaxai atlas holiday/ --layer block5c --grid 12 --samples 16"),
    "concepts": (
        "jaxai concepts holiday/ --layer conv_head",
        "jaxai concepts holiday/ --method sae --concepts 500 --sheets 20",
    ),
    "models": ("jaxai models",),
    "layers": ("jaxai layers efficientnet_lite0", "jaxai layers --model net.onnx"),
    "methods": ("jaxai methods", "jaxai methods lime"),
    "convert": ("jaxai convert vgg16-397923af.pth --model vgg16",),
    "fetch": ("jaxai fetch vit_s14_focus",),
    "dataset plan": (
        "jaxai dataset plan photos/ --out store --method grad_cam,saliency",
        "jaxai dataset plan photos.csv --out store --target both --metric gini,insertion",
    ),
    "dataset run": ("jaxai dataset run store", "jaxai dataset run store --workers 4"),
    "dataset status": ("jaxai dataset status store",),
    "dataset verify": ("jaxai dataset verify store",),
    "dataset open": ("jaxai dataset open store --uncertain", "jaxai dataset open store --worst insertion"),
    "dataset page": ("jaxai dataset page store page", "jaxai dataset page store page --against other"),
}
_HELP = ["-h, --help", "Show this message and exit."]


def made(name: str, command: Any) -> dict[str, Any]:
    """Return a command's help without examples: usage, text, arguments and options.

    Args:
        name: Its words.
        command: As the parser takes it.
    """
    text = inspect.cleandoc(command.help or "")
    page: dict[str, Any] = {"text": text, "arguments": [], "options": []}
    if inside := getattr(command, "commands", None):
        page["usage"] = "COMMAND [ARGS]..."
        page["commands"] = {one: f"{name} {one}" for one in inside}
        return page
    function = inspect.unwrap(command.callback)
    hints = get_type_hints(function, include_extras=True)
    defaults = {one.name: one.default for one in inspect.signature(function).parameters.values()}
    words = ["[OPTIONS]"]
    for parameter in command.params:
        if parameter.name not in hints:
            continue
        kind, about = _annotation(hints[parameter.name])
        if parameter.param_type_name == "argument":
            shown = (about.metavar or parameter.name.upper()).strip("[]")
            words.append(shown if parameter.required else f"[{shown}]")
            page["arguments"].append([shown, _one_line(about.help)])
            continue
        names = ", ".join(sorted(parameter.opts, key=len))
        names += "".join(f" / {other}" for other in parameter.secondary_opts)
        value = "" if parameter.is_flag else f" {about.metavar or _value(kind)}"
        rest = _rest(about, defaults[parameter.name], flag=bool(parameter.is_flag))
        page["options"].append([f"{names}{value}", f"{_one_line(about.help)}{f'  [{rest}]' if rest else ''}"])
    page["usage"] = " ".join(words)
    return page


def _annotation(hint: Any) -> tuple[Any, Any]:
    """Return the type of a parameter's value, and its description."""
    kind, about = hint, None
    if get_origin(hint) is Annotated:
        kind, about = get_args(hint)
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    return kind, about


def _value(kind: Any) -> str:
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else _KINDS[kind]


def _rest(about: Any, default: Any, *, flag: bool) -> str:
    """Return the default and the bounds of an option in words."""
    said = []
    if default is inspect.Parameter.empty:
        said.append("required")
    elif isinstance(about.show_default, str):
        said.append(f"default: {about.show_default}")
    elif about.show_default and default not in (None, "") and not flag:
        said.append(f"default: {default}")
    low, high = about.min, about.max if about.max is None or about.max < _MOST else None
    if low is not None:
        said.append(f"at least {low}" if high is None else f"{low} to {high}")
    return "; ".join(said)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def asked(words: Sequence[str]) -> str | None:
    """Return the command whose help is requested by these words, or None.

    A word that is the value of an option is no request.

    Args:
        words: Those after `jaxai`.
    """
    known = facts.read()["commands"]
    name, rest = words[0] if words else "", list(words[1:])
    if name not in known:
        return None
    if rest and f"{name} {rest[0]}" in known:
        name = f"{name} {rest.pop(0)}"
    options: Mapping[str, Any] = known[name]["options"]
    waiting = False
    for word in rest:
        if word == "--":
            return None
        if not waiting and word in ("-h", "--help"):
            return name
        waiting = not waiting and word in options and not options[word]["flag"]
    return None


def shown(name: str, formatter: Any) -> str:
    """Return a command's help as text.

    Args:
        name: Its words.
        formatter: Of the parser, which knows how wide the terminal is.
    """
    known = facts.read()["commands"]
    page = known[name]["page"]
    formatter.write_usage(f"jaxai {name}", page["usage"])
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(page["text"])
    listed = {one: known[full]["help"] for one, full in page.get("commands", {}).items()}
    for title, rows in (
        ("Arguments", page["arguments"]),
        ("Commands", list(listed.items())),
        ("Options", [*page["options"], _HELP]),
    ):
        if rows:
            with formatter.section(title):
                formatter.write_dl([tuple(row) for row in rows])
    if examples := EXAMPLES.get(name):
        with formatter.section("Examples"):
            # Examples are not wrapped, however narrow the terminal is.
            formatter.write("".join(f"{' ' * formatter.current_indent}{line}\n" for line in examples))
    return formatter.getvalue().rstrip("\n")
