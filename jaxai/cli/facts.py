"""Facts that the command needs without JAX: its options, methods, metrics and networks, stored in facts.json.

Listings, help and completion read the file, which takes milliseconds, while collecting the facts takes
seconds. `python -m jaxai.cli.facts` rewrites it after a change of a command or a method, with `--all` also
after a change of a network; a test fails when that is needed.
"""

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

FILE = Path(__file__).with_name("facts.json")
# The commands in the order of the help, with their modules and names there.
COMMANDS = {
    "explain": "explain.explain",
    "compare": "compare.compare",
    "dream": "dream.dream",
    "visualize": "visualize.visualize",
    "atlas": "atlas.atlas",
    "concepts": "concepts.concepts",
    "models": "listing.models",
    "layers": "listing.layers",
    "methods": "listing.methods",
    "convert": "convert.convert",
    "fetch": "listing.fetch",
    "dataset": "dataset.dataset",
}
# What completes the values of parameters, by the names of those.
_KINDS = {
    **dict.fromkeys(("model", "network"), "models"),
    **dict.fromkeys(("images", "folder"), "photos"),
    "image": "photo_or_noise",
    **dict.fromkeys(("target", "targets"), "classes"),
    "method": "methods",
    "metric": "metrics",
    "references": "references",
    "layer": "layers",
    "features_wanted": "layers",
    "segments": "segments",
    "option": "settings",
}


@cache
def read() -> dict[str, Any]:
    """Return the stored facts."""
    return json.loads(FILE.read_text("utf-8"))


def loaded(name: str) -> Any:
    """Return a command in the parser's form, with its imports."""
    import typer
    from typer.main import get_command

    module, _, attribute = COMMANDS[name].partition(".")
    found = getattr(import_module(f".{module}", __package__), attribute)
    alone = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
        group: Any = get_command(alone)
        return group.commands[name]
    alone.command(name)(found)
    return get_command(alone)


def made(networks: Sequence[str] | None = None) -> dict[str, Any]:
    """Collect the facts that `read` should return.

    Args:
        networks: The networks to include, for tests; all by default.
    """
    from ..metrics._references import ALL as REFERENCES
    from ..perturbation._segments import METHODS as SEGMENTATIONS
    from ..report import _methods as methods
    from ..report import _scores as scores
    from . import method_pages as pages

    return {
        "commands": _commands({name: loaded(name) for name in COMMANDS}),
        "methods": {name: one.summary for name, one in methods.METHODS.items()},
        "settings": {name: list(methods.options_of(one)) for name, one in methods.METHODS.items()},
        "metrics": {name: list(scores.options_of(one)) for name, one in scores.METRICS.items()},
        "segments": list(SEGMENTATIONS),
        "references": list(REFERENCES),
        "listing": pages.listing(),
        "markdown": pages.table(),
        "pages": {name: pages.page(one) for name, one in methods.METHODS.items()},
        "models": _models(networks),
    }


def _commands(found: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    from . import help_pages

    listed: dict[str, Any] = {}
    for name, command in found.items():
        inside = getattr(command, "commands", None)
        options, arguments, several = {}, [], False
        choices = _choices(inspect.unwrap(command.callback)) if command.callback else {}
        for parameter in command.params:
            kind = _KINDS.get(parameter.name) or choices.get(parameter.name)
            if parameter.param_type_name == "argument":
                arguments.append("methods" if f"{prefix}{name}" == "methods" else kind)
                several = several or parameter.nargs == -1
                continue
            about = {"help": _line(parameter.help or ""), "flag": bool(parameter.is_flag)}
            about |= {"kind": kind} if kind else {}
            about |= {"repeated": True} if getattr(parameter, "multiple", False) else {}
            if isinstance(parameter.default, str) and kind == "models":
                about["default"] = parameter.default
            for option in (*parameter.opts, *parameter.secondary_opts):
                options[option] = about
        listed[f"{prefix}{name}"] = {
            "help": _line(command.get_short_help_str(200)),
            "arguments": arguments,
            "several": several,
            "options": options,
            "page": help_pages.made(f"{prefix}{name}", command),
        }
        if inside:
            listed[f"{prefix}{name}"]["commands"] = list(inside)
            listed |= _commands(inside, f"{prefix}{name} ")
    return listed


def _choices(function: Callable[..., Any]) -> dict[str, list[str]]:
    """Return the choices of parameters that have a fixed set."""
    hints = get_type_hints(function)
    return {name: list(get_args(hint)) for name, hint in hints.items() if get_origin(hint) is Literal}


def _line(text: str) -> str:
    return " ".join(text.split())


def shapes_of(network: Any, side: int) -> tuple[dict[str, str], str | None]:
    """Return a network's layers in forward order with their shapes as text, and the default of layer methods.

    Args:
        network: The model; its weights may be shapes.
        side: Of its photos.
    """
    import jax
    import numpy as np

    from ..layers import tree

    photo: Any = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    listed = tree(network, photo)
    shapes = {layer: "x".join(map(str, aval.shape[1:])) for layer, aval in listed.shapes.items()}
    return shapes, listed.default


def _models(wanted: Sequence[str] | None) -> dict[str, Any]:
    import jax
    import numpy as np

    from ..models import labels, parameters, zoo

    found = {}
    for name, known in zoo.ZOO.items():
        if wanted is not None and name not in wanted:
            continue
        network = parameters.abstract(known.make)
        shapes, default = shapes_of(network, known.input_size)
        classes = list(known.labels()) if known.labels else None
        source = known.source
        found[name] = {
            "input": known.input_size,
            "parameters": sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(network)),
            "source": str(source or "your own file"),
            "file": [source.package, source.file] if isinstance(source, zoo.Wheel) else None,
            "classes": "imagenet" if classes == list(labels.imagenet()) else classes,
            "default": default,
            "layers": " ".join(f"{layer}={shape}" for layer, shape in shapes.items()),
        }
    return found


def layers_of(model: str) -> dict[str, str]:
    """Return a network's layers in forward order, with the shapes of their activations as text."""
    known = read()["models"].get(model, {"layers": ""})
    return dict(pair.rsplit("=", 1) for pair in known["layers"].split())


def classes_of(model: str) -> list[str]:
    """Return the names of a network's classes; none if it has no classifier."""
    found = read()["models"].get(model, {}).get("classes")
    if found == "imagenet":
        path = FILE.parents[1] / "models" / "imagenet_labels.txt"
        return path.read_text("utf-8").splitlines()
    return found or []


def write(*, everything: bool) -> None:
    """Collect the facts and store them.

    Args:
        everything: Trace networks again that are stored already, which takes minutes.
    """
    from .. import _files
    from ..models.zoo import ZOO

    old = {} if everything or not FILE.exists() else read()["models"]
    found = made([name for name in ZOO if name not in old])
    found["models"] = {name: found["models"].get(name) or old[name] for name in ZOO}
    _files.write(FILE, [f"{json.dumps(found, indent=0, ensure_ascii=False)}\n".encode()])


if __name__ == "__main__":
    write(everything="--all" in sys.argv)
