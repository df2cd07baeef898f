"""Pages of the site that are made from the library itself: one for each method, and the API reference."""

import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from elsewhere import names as elsewhere  # noqa: E402
from formulas import FORMULAS, LETTERS, SEE  # noqa: E402
from pictures import FEWER  # noqa: E402

import jaxai  # noqa: E402
from jaxai._frame import contract  # noqa: E402
from jaxai._frame.describe import SIZES, Description  # noqa: E402
from jaxai.cli import method_pages  # noqa: E402
from jaxai.report._methods import METHODS  # noqa: E402

FAMILIES = {
    "cam": ("Class activation maps", "Weighted channels of a layer: where the evidence is, coarsely."),
    "gradients": ("Gradients", "What small changes of the pixels would do, or changes along a path."),
    "rules": ("Rules", "Relevance handed back from layer to layer, by a rule for each operation."),
    "perturbation": (
        "Perturbation",
        "What the network says of changed images; any function will do.",
    ),
}
# Those inside others too.
NAMESPACES = (
    *("attention", "cam", "concepts", "concepts.counterfactuals", "dataset", "features", "gradients"),
    *("layers", "maps", "metrics", "models", "perturbation", "plots", "report", "rules", "targets"),
    "weights_convert",
)
# At most twelve superpixels, which no photo has by itself.
EXACT = """```python
import jaxai
from skimage import data

net = jaxai.models.load("efficientnet_lite0")
photos = net.crop(data.chelsea())
cells = jaxai.segment(photos, method="grid", rows=3, columns=4)
jaxai.exact_shapley(net.model, net.normalize(photos), 285, segments=cells).values  # [1, 12]
```""".splitlines()
# Its other functions are for methods.
_LAYERS = ("Tokens", "Tree", "find", "layer_names", "named", "resolve", "tree")
# Sections of docstrings in the order of the pages.
_SECTIONS = ("Returns", "Yields", "Raises", "Warns", "References")
ELSEWHERE = elsewhere()
_CODE = re.compile(r"(`[^`]*`)")


def pages() -> dict[str, str]:
    """Return all pages by their paths in docs/."""
    found = {f"methods/{name}.md": method_page(one) for name, one in METHODS.items()}
    found["methods/index.md"] = method_index()
    found["api/index.md"] = api_index()
    found["api/jaxai.md"] = api_page("", jaxai)
    for name in NAMESPACES:
        found[f"api/{name}.md"] = api_page(name, import_module(f"jaxai.{name}"))
    return found


def public() -> Iterator[tuple[str, Any]]:
    """Yield every public name with what it stands for, modules apart."""
    for prefix, module in (("", jaxai), *((name, import_module(f"jaxai.{name}")) for name in NAMESPACES)):
        for name in sorted(_names(module)):
            if not inspect.ismodule(value := getattr(module, name)):
                yield ".".join(part for part in ("jaxai", prefix, name) if part), value


def method_index() -> str:
    """Return the page that leads to the methods."""
    lines = ["# Methods, one by one", ""]
    lines += ["Each page says what a method computes, shows it, and has all its options."]
    lines += ["", "Letters in the formulas: " + LETTERS, ""]
    for family, (title, about) in FAMILIES.items():
        members = {name: one for name, one in METHODS.items() if one.family == family}
        lines += [f"## {title}", "", about, "", "| method | cost | |", "|---|---|---|"]
        for name, one in members.items():
            lines.append(f"| [{one.title}]({name}.md) | {one.passes()} | {_text(one.summary)} |")
        lines += ["", "```{toctree}", ":hidden:", "", *members, "```", ""]
    return "\n".join(lines)


def method_page(description: Description) -> str:
    """Return a method's page: picture, formula, text, options, cost, papers and neighbours."""
    name, cost = description.name, str(description.passes())
    letters = [f"{letter}: {what}" for letter, what in SIZES.items() if re.search(rf"\b{letter}\b", cost)]
    signs = "with signs" if description.has_signs() else "without signs"
    unit = f"; {description.unit}" if description.unit else ""
    meaning = f" ({', '.join(letters)})" if letters else ""
    neighbours = ", ".join(f"[{METHODS[one].title}]({one}.md)" for one in SEE[name])
    rest = description.sections[""].partition("\n")[2].strip()
    lines = [
        f"# {description.title}",
        "",
        _text(description.summary),
        "",
        *_picture(description),
        "$$",
        FORMULAS[name],
        "$$",
        "",
        "([letters](index.md))",
        "",
        *([_text(rest), ""] if rest else []),
        "| | |",
        "|---|---|",
        f"| result | {method_pages.RESULTS[description.result]}, {signs}{unit} |",
        f"| explains | {method_pages.EXPLAINED[description.explains]} |",
        f"| cost for one photo, in forward passes | {cost}{meaning} |",
        f"| paper | {_text(description.paper)} |",
        f"| see also | {neighbours} |",
        "",
        "## Use",
        "",
        *(EXACT if name == "exact_shapley" else _use(name, method_pages.example_setting(description))),
        "",
        "## Reference",
        "",
        *_entry(f"jaxai.{name}", description.function, summary=False),
    ]
    return "\n".join(lines)


def _picture(description: Description) -> list[str]:
    name = description.name
    if not (HERE / f"images/methods/{name}.webp").exists():
        return []
    fewer = [f"(with `{_shown(FEWER[name])}`)"] if name in FEWER else []
    return [f"![{description.title} of a photograph of a cat](../images/methods/{name}.webp)", *fewer, ""]


def _use(name: str, setting: str) -> list[str]:
    call = f'e = jaxai.explain("efficientnet_lite0", "cat", methods="{name}")'
    command = f"jaxai explain cat --method {name}{setting}"
    return ["```bash", command, "```", "", "```python", "import jaxai", "", call, f'e.maps["{name}"]', "```"]


def api_index() -> str:
    """Return the page that leads to the reference."""
    lines = ["# API reference", ""]
    lines += ["Methods stand in `jaxai`; everything else stands once, in its namespace.", ""]
    lines += ["| | |", "|---|---|", f"| [jaxai](jaxai.md) | {_first(jaxai)} |"]
    for name in NAMESPACES:
        lines.append(f"| [jaxai.{name}]({name}.md) | {_first(import_module(f'jaxai.{name}'))} |")
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", "jaxai", *NAMESPACES, "```", ""])


def api_page(prefix: str, module: ModuleType) -> str:
    """Return the reference of a namespace; methods that have pages are listed with links to them."""
    full = f"jaxai.{prefix}" if prefix else "jaxai"
    lines = [f"# {full}", "", "```{py:module} " + full, "```", "", _text(inspect.getdoc(module) or ""), ""]
    names = [name for name in sorted(_names(module)) if not inspect.ismodule(getattr(module, name))]
    own = {name: getattr(module, name) for name in names if name in METHODS}
    if linked := [name for name, value in own.items() if value is METHODS[name].function]:
        lines += ["## Methods with pages of their own", "", "| | |", "|---|---|"]
        for name in linked:
            lines.append(f"| [{name}](../methods/{name}.md) | {_text(METHODS[name].summary)} |")
        lines.append("")
    if rest := [name for name in names if name not in linked]:
        lines += ["## Reference", ""]
        for name in rest:
            lines += [*_entry(f"{full}.{name}", getattr(module, name)), ""]
    return "\n".join(lines)


def _names(module: ModuleType) -> list[str]:
    listed = _LAYERS if module is jaxai.layers else module.__all__
    return [name for name in listed if not name.startswith("_")]


def _entry(name: str, value: Any, *, summary: bool = True, depth: int = 5) -> list[str]:
    """Return the description of a function, a class or a value as a directive."""
    fence = ":" * depth
    inner: list[str] = []
    if inspect.isclass(value):
        kind, given = "class", _signature(value)
        for method, about in sorted(vars(value).items()):
            target = about.fget if isinstance(about, property) else getattr(about, "func", about)
            function = inspect.unwrap(target) if callable(target) else None
            if method.startswith("_") or function is None or not inspect.getdoc(function):
                continue
            if not inspect.isfunction(function):
                continue
            plain = about is target or isinstance(about, (staticmethod, classmethod))
            inner += _member(method, function, "method" if plain else "property", depth - 1)
    elif callable(value):
        kind, given = "function", _signature(value)
    else:
        return [f"{fence}{{py:data}} {name}", f"{_text(_shown(value))}", fence]
    body = _document(inspect.getdoc(value) or "", summary=summary)
    return [f"{fence}{{py:{kind}}} {name}{given}", "", *body, *inner, fence]


def _member(name: str, function: Any, kind: str, depth: int) -> list[str]:
    fence, given = ":" * depth, _signature(function) if kind == "method" else ""
    given = re.sub(r"^\(self(, )?", "(", given)
    return [f"{fence}{{py:{kind}}} {name}{given}", "", *_document(inspect.getdoc(function) or ""), fence, ""]


def _signature(value: Any) -> str:
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "()"
    parameters = []
    for one in found.parameters.values():
        default = one.default if one.default is one.empty else _Default(one.default)
        parameters.append(one.replace(annotation=one.empty, default=default))
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


class _Default:
    """A default as it is read, without addresses of functions."""

    def __init__(self, value: Any) -> None:
        self._text = _shown(value)

    def __repr__(self) -> str:
        return self._text


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_shown, value))
        return f"({inside}{',' if len(value) == 1 else ''})" if isinstance(value, tuple) else f"[{inside}]"
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return text if len(text) <= 400 else f"{text[:400]}..."


def _document(text: str, *, summary: bool = True) -> list[str]:
    """Return a docstring as Markdown."""
    sections = contract.sections(text)
    first = sections.get("", "")
    lines = [_text(first if summary else ""), ""]
    for heading in ("Args", "Attributes"):
        entries = contract.entries(sections.get(heading, ""))
        if entries:
            lines += [f"**{'Arguments' if heading == 'Args' else heading}**", ""]
            lines += [f"- `{name}`: {_text(' '.join(said.split()))}" for name, said in entries.items()]
            lines.append("")
    for heading in _SECTIONS:
        if heading in sections:
            lines += [f"**{heading}**", "", *_listed(sections[heading], heading), ""]
    if example := sections.get("Example") or sections.get("Examples"):
        lines += ["**Example**", "", "```pycon", example, "```", ""]
    return lines


def _listed(text: str, heading: str) -> list[str]:
    if heading not in ("Raises", "Warns"):
        return [_text(text)]
    found: list[str] = []
    for line in text.splitlines():
        if not line.startswith(" ") and re.match(r"\w+: ", line) or not found:
            name, _, said = line.partition(": ")
            found.append(f"- `{name}`: {_text(said)}")
        else:
            found[-1] += f" {_text(line.strip())}"
    return found


def _first(module: ModuleType) -> str:
    return _text((inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " "))


def _text(text: str) -> str:
    """Return text as Markdown that shows it as it is written; only `code` and lists mean something."""
    parts = _CODE.split(text)
    # Bars would end cells of tables, in code too.
    plain = [re.sub(r"([<>*_\\\[\]$#~|{}])", r"\\\1", part) for part in parts[::2]]
    code = [_linked(part).replace("|", r"\|") for part in parts[1::2]]
    found = "".join(a + b for a, b in zip(plain, [*code, ""], strict=True))
    return re.sub(r"^(\s*)\\\* ", r"\1* ", found, flags=re.MULTILINE)


def _linked(code: str) -> str:
    """Return a name that is described here or elsewhere with a link to that."""
    name = code.strip("`")
    known = name.startswith("jaxai.") and re.fullmatch(r"[\w.]+", name) and name in _described()
    return f"{{py:obj}}{code}" if known or name in ELSEWHERE else code


@cache
def _described() -> frozenset[str]:
    described = {name for name, _ in public()}
    return frozenset(described | {f"jaxai.{name}" for name in METHODS})


def write(folder: Path) -> None:
    """Write the pages that are new or have changed."""
    wanted = pages()
    for path, text in wanted.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text("utf-8") != text:
            target.write_text(text, "utf-8")
    for place in ("methods", "api"):
        for old in (folder / place).glob("*.md"):
            if f"{place}/{old.name}" not in wanted:
                old.unlink()


if __name__ == "__main__":
    write(HERE)
