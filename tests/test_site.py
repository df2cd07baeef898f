"""The site: every public name is in the reference, every method has its page, and what pages name exists."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

import jaxai
from jaxai.report._methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# A name of the library, with the parts behind it.
NAME = re.compile(r"(?<![\w./])jaxai((?:\.[A-Za-z]\w*)+)")
WRITTEN = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def made():
    sys.path.insert(0, str(DOCS))
    try:
        import pages

        yield pages
    finally:
        sys.path.remove(str(DOCS))
        for name in ("pages", "formulas", "pictures"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def texts(made):
    return made.pages()


def test_every_public_name_is_in_the_reference(made, texts):
    everything = "\n".join(texts.values())
    described = set(re.findall(r"^:+\{py:\w+\} (jaxai[\w.]+)", everything, re.MULTILINE))
    linked = {f"jaxai.{name}" for name in METHODS}
    assert linked <= described
    missing = []
    for name, value in made.public():
        if name not in described and getattr(jaxai, name.rpartition(".")[2], None) is not value:
            missing.append(name)
    assert missing == []
    for name in jaxai.__all__:
        if inspect.ismodule(getattr(jaxai, name)):
            assert f"api/{name}.md" in texts and f"(jaxai.{name})" not in texts["api/index.md"]
        else:
            assert f"jaxai.{name}" in described, name


def test_namespaces_within_namespaces_are_there(made):
    for name in jaxai.__all__:
        space = getattr(jaxai, name)
        for inside in getattr(space, "__all__", ()) if inspect.ismodule(space) else ():
            if inspect.ismodule(getattr(space, inside)):
                assert f"{name}.{inside}" in made.NAMESPACES


def test_every_method_has_its_page_with_formula_picture_and_neighbours(made, texts):
    from formulas import FORMULAS, SEE

    assert set(FORMULAS) == set(SEE) == set(METHODS)
    for name, method in METHODS.items():
        page = texts[f"methods/{name}.md"]
        assert page.startswith(f"# {method.title}\n") and f"\n$$\n{FORMULAS[name]}\n$$\n" in page
        assert (DOCS / f"images/methods/{name}.webp").stat().st_size > 4000, name
        assert f"(../images/methods/{name}.webp)" in page
        assert set(SEE[name]) <= set(METHODS) - {name}
        for option in method.options:
            assert f"- `{option}`: " in page, (name, option)


def test_formulas_can_be_drawn():
    pytest.importorskip("latex2mathml.converter")
    sys.path.insert(0, str(DOCS))
    try:
        from formulas import FORMULAS
        from mathml import drawn
    finally:
        sys.path.remove(str(DOCS))
    for formula in FORMULAS.values():
        found = drawn(formula, "block")
        assert found.startswith("<math") and "\\" not in found, found


def test_text_of_docstrings_is_shown_as_it_is_written(made):
    assert made._text("a <b> *c* `d | <e>` [f] |g| 2^S $h") == (
        "a \\<b\\> \\*c\\* `d \\| <e>` \\[f\\] \\|g\\| 2^S \\$h"
    )
    assert made._text("two:\n* one\n* two") == "two:\n* one\n* two"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_names_on_pages_exist(path):
    missing = []
    for match in NAME.finditer(path.read_text("utf-8")):
        found = jaxai
        for part in match[1].strip(".").split("."):
            if not hasattr(found, part):
                missing.append(match[0])
                break
            found = getattr(found, part)
            if not inspect.ismodule(found):
                break
    # Modules that are run, files and hosts are no attributes.
    assert [name for name in missing if not name.startswith(("jaxai.weights_convert.", "jaxai.cli"))] == []


def calls():
    text = (DOCS / "coming_from.md").read_text("utf-8")
    return [span for span in re.findall(r"`([^`]+)`", text) if "jaxai." in span and "(" in span]


def test_calls_for_those_who_come_from_elsewhere_are_right():
    assert len(calls()) > 50
    for span in calls():
        for node in ast.walk(ast.parse(span, mode="eval")):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("jaxai."):
                found = jaxai
                for part in ast.unparse(node.func).split(".")[1:]:
                    found = getattr(found, part)
                words = {word.arg: None for word in node.keywords if word.arg}
                signature = inspect.signature(found)
                if any(word.arg is None for word in node.keywords):
                    signature.bind_partial(*node.args, **words)
                else:
                    signature.bind(*node.args, **words)
