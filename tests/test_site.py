"""The site: every public name is in the reference, every method has its page, and what pages name exists."""

import ast
import inspect
import json
import os
import re
import sys
import threading
import tomllib
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import jaxai
from jaxai.report._methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# A name of the library, with the parts behind it.
NAME = re.compile(r"(?<![\w./])jaxai((?:\.[A-Za-z]\w*)+)")
WRITTEN = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("tutorials/*.md"))]
TUTORIALS = [path.stem for path in sorted(DOCS.glob("tutorials/*.md"))]


@pytest.fixture(scope="module")
def made():
    sys.path.insert(0, str(DOCS))
    try:
        import pages

        yield pages
    finally:
        sys.path.remove(str(DOCS))
        for name in ("pages", "formulas", "pictures", "elsewhere"):
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
    assert made._text("see `jax.Array`, `jaxai.lime` and `jaxai.no`") == (
        "see {py:obj}`jax.Array`, {py:obj}`jaxai.lime` and `jaxai.no`"
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


def test_the_list_of_versions_has_this_one():
    listed = json.loads((DOCS / "_static/versions.json").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] in [one["version"] for one in listed]
    assert all(set(one) >= {"name", "version", "url"} for one in listed)


@pytest.fixture(scope="module")
def site():
    """The address of the site that has been built into the folder JAXAI_HTML."""
    folder = os.environ.get("JAXAI_HTML")
    if not folder:
        pytest.skip("JAXAI_HTML names no site that has been built")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials_show_what_their_cells_returned(site, name):
    with urllib.request.urlopen(f"{site}/tutorials/{name}.html") as answer:
        page = answer.read().decode()
    pictures = re.findall(r"<img [^>]*>", page.partition("<article")[2])
    assert pictures and all(re.search(r'alt="[^"]{12,}"', one) for one in pictures), pictures
    assert "Traceback" not in page and "cell_output" in page


SEEN = [
    "index",
    "which_method",
    "coming_from",
    "tutorials",
    "methods/index",
    "methods/lime",
    "api/jaxai",
    "search",
]


@pytest.mark.slow
@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 390)])
def test_pages_can_be_used_by_everybody(site, browser, axe, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in [*SEEN, *(f"tutorials/{name}" for name in TUTORIALS)]:
        page.goto(f"{site}/{name}.html")
        page.wait_for_timeout(300)
        assert said == [], name
        assert axe(page) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        # axe-core looks for style sheets where there are none.
        said.clear()
    context.close()
