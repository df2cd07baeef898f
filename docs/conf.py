"""The site: `sphinx-build -W docs docs/_build/html`."""

import hashlib
import html
import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import elsewhere  # noqa: E402
import pages  # noqa: E402

pages.write(HERE)

project = "jaxai"
author = "the authors of jaxai"
copyright = author
version = release = version_of("jaxai-explain")

extensions = ["myst_nb", "sphinx.ext.intersphinx", "sphinx_copybutton", "mathml"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# The pages are read on GitHub too, where files beside docs/ have addresses.
suppress_warnings = ["myst.xref_missing"]
math_renderer = html_math_renderer = "mathml"
highlight_language = "none"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# The tutorials run when the site is built, and an error ends the build. What they returned is kept for as
# long as they and the library stay the same; a fresh checkout runs them all.
_sources = sorted(path for name in ("jaxai", "models") for path in (HERE.parent / name).rglob("*.py"))
_library = hashlib.sha256(b"".join(path.read_bytes() for path in _sources)).hexdigest()
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "executed" / _library[:16])
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
# Progress bars are over when a page is read; their scripts would come from other sites.
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

# Names of other libraries: no network is needed to build (docs/elsewhere.py).
intersphinx_mapping = elsewhere.mapping(HERE / "_build" / "inventories")
intersphinx_disabled_reftypes = ["std:*"]

# Where the site is published, for the list of versions; each lies in a folder of its own below it.
_site = os.environ.get("JAXAI_SITE", "").rstrip("/")

html_theme = "pydata_sphinx_theme"
html_title = "jaxai"
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {name: [] for name in ("index", "which_method", "coming_from", "experiments")}
toc_object_entries_show_parents = "hide"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navbar_persistent": ["search-button"],
    "navbar_end": ["version-switcher", "theme-switcher"],
    "switcher": {"json_url": f"{_site}/_static/versions.json", "version_match": release},
    # It lies beside the pages only once they are published.
    "check_switcher": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}


def _named(app, doctree) -> None:
    """Say what pictures are that cells returned, their section's title; let keys scroll what is wide."""
    from docutils import nodes

    outputs = [one for one in doctree.findall(nodes.Element) if "cell_output" in one.get("classes", ())]
    for output in outputs:
        section = output.parent
        while section is not None and not isinstance(section, nodes.section):
            section = section.parent
        title = section.next_node(nodes.title).astext() if section is not None else ""
        for image in output.findall(nodes.image):
            image["alt"] = f"{title}: the picture that the code above returns"
        for raw in output.findall(nodes.raw):
            if raw.get("format") == "html":
                around = (
                    f'<div class="wide" tabindex="0" role="group" aria-label="{html.escape(title)}: result">'
                )
                raw.children = [nodes.Text(f"{around}{raw.astext()}</div>")]


def setup(app) -> None:
    """Tell Sphinx."""
    app.connect("doctree-read", _named)
