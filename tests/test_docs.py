"""The examples on the pages of the documentation run: blocks of Python with prompts, as in docstrings."""

import doctest
import re
import shlex
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(>>> .*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(text):
    """Return the examples of a page as one doctest: each block sees the names of those before."""
    # The blocks keep their lines, so that a failure names the line of the page.
    kept, end = "", 0
    for block in BLOCK.finditer(text):
        kept += "\n" * text.count("\n", end, block.start(1)) + block[1]
        end = block.end(1)
    return kept


PAGES = {
    path.name: kept
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    if (kept := examples(path.read_text("utf-8")))
}


def failures(name, text):
    test = doctest.DocTestParser().get_doctest(text, {"__name__": name}, name, name, 0)
    report = []
    found = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    return found.attempted, found.failed, "".join(report)


def test_pages_with_examples_are_found():
    assert "write_a_rule.md" in PAGES


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_examples_of_a_page_run(name):
    attempted, failed, report = failures(name, PAGES[name])
    assert attempted > 0 and failed == 0, report


def test_a_wrong_page_fails():
    page = "Text\n\n```python\n>>> n = 1\n```\n\n```bash\nexit 1\n```\n\n```python\n>>> n + 1\n3\n```\n"
    attempted, failed, report = failures("page.md", examples(page))
    assert (attempted, failed) == (2, 1) and "line 12" in report


PASTED = re.compile(r"^```python\n((?!>>> ).*?)^```$", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [
    path for path in WRITTEN if path.parent.name not in ("methods", "api") and "_build" not in path.parts
]
# What a page's text says is there before a block, by the block's number on the page.
SMALL = """
import jax, jax.numpy as jnp, jaxai
import numpy as np
from flax import nnx
from docs_given import *
"""
GIVEN = {
    "README.md": {
        2: SMALL + "model, images = residual_net(), pictures(2)",
        3: SMALL + "apply, parameters = linear, weights",
        4: SMALL + "model, images = residual_net(), pictures(2)",
        5: SMALL + "onnx_file('net.onnx'); photo('cat.jpg')",
    },
    "datasets.md": {
        0: SMALL + "photo_folder('photos')",
        1: SMALL + "store = rated_store(jaxai, 'photos', 'rated'); rated_store(jaxai, 'photos', 'other')",
    },
    "metrics.md": {
        0: SMALL
        + "x, targets = pictures(4), jnp.array([1, 2, 3, 4])\n"
        + "model, masks = jaxai.layers.find(residual_net(), x), x[..., 0] > 0"
    },
    "own_models.md": {
        0: SMALL + "apply, parameters, images = linear, weights, pictures(2)",
        1: SMALL + "vit, images, cnn = transformer(), pictures(1, 128), mixed",
        2: SMALL + "equinox_model, model, images = channels_first(), with_logits, pictures(1)",
        3: SMALL + "stem, body, head, images = *parts(), pictures(2)",
        4: SMALL + "onnx_file('net.onnx'); photo('photo.jpg')",
        5: SMALL + "net, images, key = residual_net(), pictures(1), jax.random.key(0)\n"
        "segments = jaxai.segment(jnp.clip(images, 0, 1), method='grid', rows=2, columns=3)",
        6: SMALL + "images = pictures(1); net = jaxai.layers.find(residual_net(), images)",
    },
    "performance.md": {
        0: SMALL + "model, x, key = residual_net(), pictures(1), jax.random.key(0)",
        3: SMALL + "model, images = residual_net(), pictures(2)",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in WRITTEN if PASTED.search(p.read_text("utf-8"))], ids=lambda p: p.name
)
def test_examples_to_paste_run_as_they_are(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    settings = ("jax_compilation_cache_dir", "jax_default_matmul_precision")
    before = {name: getattr(jax.config, name) for name in settings}
    names = {"__name__": "page"}
    blocks = PASTED.findall(path.read_text("utf-8"))
    try:
        for number, block in enumerate(blocks):
            exec(GIVEN.get(path.name, {}).get(number, ""), names)
            exec(compile(block, f"{path.name}, block {number}", "exec"), names)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert set(GIVEN.get(path.name, ())) <= set(range(len(blocks)))
    if path.name in ("README.md", "index.md"):
        assert (tmp_path / "page.html").stat().st_size > 100_000


def test_every_block_is_run_by_something():
    """Examples and blocks to paste run above, cells when the site is built, and commands are parsed below."""
    seen = set()
    for path in WRITTEN:
        text = path.read_text("utf-8")
        runs = "file_format: mystnb" in text
        assert runs == (path.parent.name == "tutorials"), path
        for fence in re.findall(r"^```(\S*)", text, re.MULTILINE):
            assert fence in ("", "python", "bash", "{code-cell}", "{toctree}", "{include}"), (path, fence)
            assert not (runs and fence == "python") and not (fence == "{code-cell}" and not runs)
            seen.add(fence)
    assert {"python", "bash", "{code-cell}"} <= seen


def commands():
    for path in WRITTEN:
        text = path.read_text("utf-8")
        lines = [
            line
            for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
            for line in block.splitlines()
        ]
        inline = [
            span
            for span in re.findall(r"`(jaxai [a-z][^`]*)`", text)
            if not re.search(r"\.\.\.|[A-Z]{4,}", span)
        ]
        for line in [*lines, *inline]:
            line = re.sub(r"^sbatch .*--wrap \"(.*)\"", r"\1", re.sub(r"\s+#.*", "", line))
            for part in re.split(r";|&&", line):
                if part.split()[:1] == ["jaxai"]:
                    yield f"{path.name}: {part.strip()}"


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_are_taken(line):
    from jaxai.cli import facts

    words = shlex.split(line.partition(": ")[2])[1:]
    if words[0].startswith("-"):
        assert words[0] in ("--install-completion", "--help")
        return
    command, rest = facts.loaded(words[0]), words[1:]
    if rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    # In a sentence the photos may be left out.
    if rest and not (words[0] in ("explain", "dataset") and rest[0].startswith("-")):
        command.make_context(words[0], rest)
