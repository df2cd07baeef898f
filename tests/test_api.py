"""Rules that every public name keeps."""

import ast
import doctest
import importlib
import importlib.metadata
import inspect
import json
import operator
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaxai
from jaxai._frame import contract

ROOT = Path(jaxai.__file__).parent
# What may import Flax, Matplotlib and file formats; the rest is JAX, optax and NumPy.
OUTER = ("models", "weights_convert", "plots", "report", "dataset", "_explain.py", "cli")
NAMESPACES = (
    *(
        "cam",
        "concepts",
        "concepts.counterfactuals",
        "features",
        "gradients",
        "maps",
        "metrics",
        "models",
        "perturbation",
        "plots",
        "rules",
        "targets",
    ),
    "weights_convert",
)


def public():
    """Every public name with what it stands for: the library's own and those of its namespaces."""
    for prefix, module in [
        ("", jaxai),
        *((f"{name}.", operator.attrgetter(name)(jaxai)) for name in NAMESPACES),
    ]:
        for name in module.__all__:
            yield f"{prefix}{name}", getattr(module, name)


def functions():
    found = {value: name for name, value in public() if inspect.isfunction(inspect.unwrap(value))}
    return [pytest.param(value, id=name) for value, name in found.items()]


def modules():
    """Every module but those that run when imported."""
    found = pkgutil.walk_packages(jaxai.__path__, "jaxai.")
    return sorted({"jaxai", *(info.name for info in found if not info.name.endswith("__main__"))})


def test_public_names_are_listed_once():
    assert len(jaxai.__all__) == len(set(jaxai.__all__))
    assert dir(jaxai) == sorted(jaxai.__all__)
    assert len(jaxai.__all__) <= 95
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = jaxai.nope


def test_no_function_hides_a_module():
    # The command is no library: its modules are called like its subcommands.
    for name in modules():
        importlib.import_module(name)
        parent, _, last = name.rpartition(".")
        if parent and not name.startswith("jaxai.cli."):
            assert inspect.ismodule(getattr(importlib.import_module(parent), last)), name


def test_the_version_is_that_of_the_package():
    assert jaxai.__version__ == importlib.metadata.version("jaxai-explain")


def test_public_names_are_documented():
    documented = (name for name, value in public() if callable(value) or inspect.ismodule(value))
    values = dict(public())
    missing = [name for name in documented if not (values[name].__doc__ or "").strip()]
    assert missing == []


@pytest.mark.parametrize("function", functions())
def test_options_are_keywords(function):
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    optional = [p.name for p in parameters if p.default is not p.empty and p.kind in positional]
    # A source and where it goes read as in `cp`.
    allowed = {"out"} if function is jaxai.weights_convert.convert else {"targets"}
    assert set(optional) <= allowed


@pytest.mark.parametrize("function", functions())
def test_signatures_and_arguments_are_described(function):
    signature, text = inspect.signature(function), inspect.getdoc(function) or ""
    assert signature.return_annotation is not signature.empty
    summary = text.splitlines()[0]
    assert summary[0].isupper() and summary.endswith("."), summary
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter.name
    described = contract.entries(contract.sections(text).get("Args", ""))
    assert list(described) == list(signature.parameters)
    assert all(said.strip() for said in described.values())


@pytest.mark.slow
def test_importing_loads_no_more_than_is_used():
    code = """
import json, sys
import jaxai
heavy = ("flax", "matplotlib", "skimage", "onnx", "typer", "rich")
heavy += ("jaxai.models", "jaxai.plots", "jaxai.report", "jaxai.cli")
first = [name for name in ("jax", "numpy", *heavy) if name in sys.modules]
jaxai.grad_cam, jaxai.lime, jaxai.lrp
from jaxai._cpu import configure
print(json.dumps([first, [name for name in heavy if name in sys.modules], configure.backend_started()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], [], False]


def test_all_cams_are_names_of_the_library():
    assert set(jaxai.cam.__all__) <= set(jaxai.__all__)


def imports(path):
    """The modules that a file imports anywhere, with dots for relative ones, and where it says so."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            yield from (f"{base.rstrip('.')}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] not in OUTER
        and path not in (ROOT / "__init__.py", ROOT / "__main__.py")
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_methods_import_neither_flax_nor_models(path):
    for name in imports(path):
        words = set(name.split("."))
        assert not words & {"flax", "matplotlib", "typer"}, name
        if name.startswith(("jaxai", ".")):
            # A function of `features` is called report, too.
            assert not words & {*OUTER, "_explain"} - {"report"}, name
            assert not name.lstrip(".").removeprefix("jaxai.").startswith("report"), name


def test_models_do_not_import_methods():
    methods = {"cam", "gradients", "rules", "perturbation", "features", "metrics", "plots", "report", "cli"}
    for path in (ROOT / "models").glob("*.py"):
        for name in imports(path):
            if name.startswith(("jaxai", "..")):
                assert not set(name.split(".")) & methods, f"{path.name}: {name}"


@pytest.mark.sampled
@pytest.mark.parametrize("name", modules())
def test_examples_run(name, capsys):
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    results = doctest.testmod(module, optionflags=options)
    assert results.failed == 0, capsys.readouterr().out


def test_every_function_of_the_library_itself_has_an_example():
    own = {name: getattr(jaxai, name) for name in jaxai.__all__}
    functions = {name: value for name, value in own.items() if inspect.isfunction(inspect.unwrap(value))}
    assert len(functions) > 70
    assert [name for name, value in functions.items() if ">>>" not in (value.__doc__ or "")] == []
