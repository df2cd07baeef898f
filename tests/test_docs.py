"""The examples on the pages of the documentation run: blocks of Python with prompts, as in docstrings."""

import doctest
import re
from pathlib import Path

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


@pytest.mark.slow
def test_examples_to_paste_run_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = (ROOT / "README.md").read_text("utf-8").split("## Your own model")[0]
    for page in (start, *((ROOT / "docs" / name).read_text("utf-8") for name in ("explain.md", "index.md"))):
        blocks = PASTED.findall(page)
        assert len(blocks) == 2
        names = {}
        for block in blocks:
            exec(compile(block, "block", "exec"), names)
    assert (tmp_path / "page.html").stat().st_size > 100_000 and (tmp_path / "out/maps.npz").exists()
