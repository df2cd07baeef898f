"""Descriptions of the shared arguments, results and errors, which complete every docstring.

A docstring in the source describes what is specific to its function; `completed` adds the entries that all
methods, or all methods of a family, share, in the order of the signature. `help` therefore shows the whole
contract, in the same words everywhere.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_HEADING = re.compile(r"^([A-Z]\w+):$")
_ENTRY = re.compile(r"\**(\w+): ")
_WIDTH = 96

_PLAIN = "Callable pytree, `model(images) -> scores`"
_LAYERED = "A layered model (`jaxai.layers.find` of any model, `jaxai.models`, `jaxai.chain`)."
_ANY = (
    "Model input, float [batch, height, width, channels]; signals [batch, time, channels] and volumes "
    "[batch, depth, height, width, channels] where a method needs no plane."
)
_IN_FLIGHT = "At most this many {} in flight"
_CHOSEN = "; None chooses by size."
_TOP = "; None is the top class of the image itself."

# Keys: a name; "family: name" or "what is explained: name"; "name + other" if a function also takes the
# other. The second part of a pair is added for arguments whose default is None.
Entry = str | tuple[str, str]
_ARGUMENTS: Mapping[str, Entry] = {
    "model": f"{_PLAIN}.",
    "model + layer": _LAYERED,
    "perturbation: model": f"{_PLAIN}, or `jaxai.perturbation.black_box(predict)`.",
    "features: model": "Callable pytree or layered model.",
    "images": "Model input, float [batch, height, width, channels].",
    "gradients: images": _ANY,
    "rules: images": _ANY,
    "images + segments": _ANY,
    "targets": ("What to explain (see `jaxai.targets`)", _TOP),
    "score: targets": ("What to explain (see `jaxai.targets`), classes by their raw score (logit)", _TOP),
    "probability: targets": (
        "What to explain (see `jaxai.targets`), classes by their probability; a callable receives raw scores",
        _TOP,
    ),
    "nothing: targets": "Not used, except that k classes per image repeat the map k times.",
    "layer": (
        "A name of `model.layer_names`",
        "; None picks the last layer that is not a pool and has more than one position.",
    ),
    "queries": (
        'Whose tokens\' view is mapped: `"class"`, the first token, or `"mean"`, all tokens of the grid',
        "; None is the first token if it is before the grid and the network reads it after its last attention"
        " layer. A pool by attention has its own.",
    ),
    "tokens": (
        "Layout of the tokens on the image, `jaxai.layers.Tokens(grid=(rows, columns), prefix=n)`",
        "; None reads it from the program.",
    ),
    "relu": "Keep only evidence for the target.",
    "upsample": "Resize the map to the image, bilinear between half-pixel centres.",
    "batch_size": (_IN_FLIGHT.format("images"), _CHOSEN),
    "perturbation: batch_size": (_IN_FLIGHT.format("changed images"), _CHOSEN),
    "key": "Typed PRNG key (`jax.random.key`); sample i depends only on it and i; images share the samples.",
    "features: key": "Typed PRNG key; run i draws from `fold_in(key, i)`.",
    "baseline": ("Value or array that broadcasts to `images`", "; None means zero."),
    "num_samples + noise": "Noisy copies per image.",
    "noise": "Standard deviation of the Gaussian noise added to the images.",
    "noise_unit": (
        "`\"range\"`: a fraction of each image's maximum minus minimum, as in the paper and PAIR's library; "
        '`"absolute"`: in units of the input, as Captum\'s `stdevs`.'
    ),
    "perturbation: steps": "Number of gradient steps.",
    "gradients: steps": "Number of gradients along the path.",
    "features: steps": "Number of steps of gradient ascent.",
    "strict": "Whether an operation without a rule raises an error.",
    "segments": "Labels of `jaxai.segment`, int [batch, height, width] (or [height, width] for all images).",
    "num_segments": "Static S, needed under `jit` and `vmap`; images with fewer superpixels are padded.",
    "fill": (
        "Values of hidden parts, in the model's input space: a value that broadcasts to the images (0 is the "
        'mean colour after ImageNet normalisation), `"image_mean"`, `"blur"` or `"noise"`.'
    ),
    "fill + segments": (
        'Values of hidden superpixels, in the model\'s input space: `"mean"`, their own mean colour; '
        '`"image_mean"`, `"blur"`, `"noise"` or `"neighbours"`; or a value that broadcasts to the images.'
    ),
    "key + fill": 'Typed PRNG key for `fill="noise"`.',
    "photos": "Float in [0, 1], [batch, height, width, channels].",
    "normalize": (
        "Maps images in [0, 1] to the model's input",
        "; None if the model takes images in [0, 1].",
    ),
    "size": "Side of the images in pixels, or (rows, columns).",
    "objective": "One or several objectives, as for `visualize`.",
    "features: options": "Other keywords of `visualize`.",
    "options": "Keywords of `method`, such as `layer=`.",
}

_RESULTS: Mapping[str, str] = {
    "heatmap": "Maps [batch, height, width]; [batch, k, ...] for k classes per image.",
    "heatmap + upsample": (
        "Maps [batch, height, width] ([batch, h, w] of the layer without `upsample`); [batch, k, ...] for k "
        "classes per image."
    ),
    "pixels": "Signed values [batch, height, width, channels]; [batch, k, ...] for k classes per image.",
    "layer": "An array like the layer's activations; [batch, k, ...] for k classes per image.",
}

_WRONG_KIND = "If an argument is of the wrong kind."
# What can be wrong with a value, if the function takes one of these parameters.
_WRONG_VALUES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("shapes do not fit", ("images", "photos", "maps", "masks")),
    ("a class does not exist", ("targets",)),
    ("a layer does not exist", ("layer",)),
    ("an image has a single superpixel or labels with gaps", ("segments",)),
    ("an objective names what does not exist", ("objective",)),
    ("`strict` finds an operation without a rule", ("strict",)),
)
_NO_OPTION = "an option does not exist"
_NUMBERS_OUT_OF_RANGE = "a number is out of range"
_NAN = "the model returns NaN"


def sections(text: str | None) -> dict[str, str]:
    """Split a docstring into parts: "" before the first heading, then "Args", "Returns", "References", ..."""
    found: dict[str, list[str]] = {"": []}
    lines = found[""]
    for line in inspect.cleandoc(text or "").splitlines():
        if heading := _HEADING.match(line):
            lines = found.setdefault(heading[1], [])
        else:
            lines.append(line)
    return {name: inspect.cleandoc("\n".join(lines)) for name, lines in found.items()}


def entries(section: str) -> dict[str, str]:
    """Return the description of each name in a section such as "Args", each on one line."""
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if start := _ENTRY.match(line):
            name = start[1]
            found[name] = " ".join(filter(None, [found.get(name), line[start.end() :]]))
        elif name:
            found[name] += f" {line.strip()}"
    return found


def family(function: Callable[..., Any]) -> str:
    """Return the namespace of a function: cam, gradients, rules, perturbation, features, metrics."""
    return [*function.__module__.split("."), ""][1]


def completed(function: Function, result: str = "", explains: str = "") -> Function:
    """Complete a function's docstring with the shared entries and return the function unchanged.

    Args:
        function: Its own docstring takes precedence over the shared text; `ValueError` entries are combined.
        result: What it returns (see `Description.result`), for a docstring without `Returns`.
        explains: What it explains of a class, as in `Description.explains`.

    Raises:
        ValueError: If a parameter is described neither in the docstring nor here, or the docstring describes
            one that does not exist.
    """
    # Python has no docstrings under -OO.
    if function.__doc__ is None:
        return function
    parameters = inspect.signature(function).parameters
    parts = sections(function.__doc__)
    parts["Returns"] = parts.get("Returns", "") or _returned(result, parameters)
    raised = _raised(function, parameters)

    def argument(name: str) -> str | None:
        return _argument(function, name, parameters, explains)

    return _complete(function, parts, argument, raised)


def like(other: Callable[..., Any]) -> Callable[[Function], Function]:
    """Complete a function's docstring with another's descriptions of the same arguments and of errors.

    Args:
        other: A function of the same family whose docstring is complete.
    """

    def complete(function: Function) -> Function:
        if function.__doc__ is None or other.__doc__ is None:
            return function
        known = sections(other.__doc__)
        said = entries(known.get("Args", ""))
        return _complete(function, sections(function.__doc__), said.get, entries(known.get("Raises", "")))

    return complete


def _complete(
    function: Function,
    parts: dict[str, str],
    argument: Callable[[str], str | None],
    raised: Mapping[str, str],
) -> Function:
    """Write the completed docstring: its own arguments take precedence, errors are combined."""
    parameters = inspect.signature(function).parameters
    own = entries(parts.get("Args", ""))
    if unknown := own.keys() - parameters.keys():
        raise ValueError(f"{function.__name__} describes {sorted(unknown)}, which it does not take")
    items = []
    for name, parameter in parameters.items():
        said = own.get(name) or argument(name)
        if said is None:
            raise ValueError(f"{function.__name__} does not say what {name!r} is")
        items.append(_item(_stars(parameter) + name, said))
    errors = entries(parts.get("Raises", ""))
    added = {name: " ".join(filter(None, [text, errors.pop(name, "")])) for name, text in raised.items()}
    parts |= {
        "Args": "\n".join(items),
        "Raises": "\n".join(_item(name, text) for name, text in {**added, **errors}.items()),
    }
    # The usual parts in this order, then any others.
    ordered = {name: parts.pop(name, "") for name in ("", "Args", "Returns", "Warns", "Raises")} | parts
    function.__doc__ = (
        "\n\n".join(
            f"{name}:\n{textwrap.indent(text, '    ')}" if name else text
            for name, text in ordered.items()
            if text
        )
        + "\n"
    )
    return function


def _stars(parameter: inspect.Parameter) -> str:
    return {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")


def _item(name: str, text: str) -> str:
    return textwrap.fill(
        f"{name}: {text}",
        _WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _entry(
    table: Mapping[str, Entry], name: str, homes: tuple[str, ...], others: Mapping[str, Any]
) -> Entry | None:
    """Return the most specific entry: of one family before all, of a pair before a single name."""
    with_others = [key for key in table if key.startswith(f"{name} + ") and key.split(" + ")[1] in others]
    for key in (*(f"{home}: {name}" for home in homes), *with_others, name):
        if key in table:
            return table[key]
    return None


def _argument(
    function: Callable[..., Any], name: str, parameters: Mapping[str, inspect.Parameter], explains: str
) -> str | None:
    homes = (explains, family(function))
    entry = _entry(_ARGUMENTS, name, homes, {other: None for other in parameters if other != name})
    if entry is None or isinstance(entry, str):
        return entry
    text, otherwise = entry
    return text + otherwise if parameters[name].default is None else f"{text}."


def _returned(result: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    found = _entry(_RESULTS, result, (), parameters) if result else None
    return textwrap.fill(found, _WIDTH) if isinstance(found, str) else ""


def _raised(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    wrong = [what for what, names in _WRONG_VALUES if any(name in parameters for name in names)]
    if any(isinstance(parameter.default, str) for parameter in parameters.values()):
        wrong.append(_NO_OPTION)
    if any(type(parameter.default) in (int, float) for parameter in parameters.values()):
        wrong.append(_NUMBERS_OUT_OF_RANGE)
    if family(function) == "perturbation" and "model" in parameters:
        wrong.append(_NAN)
    listed = wrong[0] if len(wrong) == 1 else f"{', '.join(wrong[:-1])}, or {wrong[-1]}" if wrong else ""
    return {"TypeError": _WRONG_KIND, **({"ValueError": f"If {listed}."} if listed else {})}
