"""Formulas as MathML, which browsers draw themselves: no script, no network, and readable aloud."""

import re

from latex2mathml.converter import convert

_LEFT, _RIGHT = re.compile(r"\\[bB]ig(?=[(\[])"), re.compile(r"\\[bB]ig(?=[)\]])")


def drawn(formula: str, display: str) -> str:
    r"""Return a formula as MathML; `\big(` and `\big)` are taken for a pair, which powers then belong to."""
    return convert(_RIGHT.sub(r"\\right", _LEFT.sub(r"\\left", formula)), display=display)


def _inline(writer, node) -> None:
    from docutils import nodes

    writer.body.append(drawn(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(writer, node) -> None:
    from docutils import nodes

    formula = drawn(node.astext(), "block")
    writer.body.append(f'<div class="formula" tabindex="0" role="group" aria-label="formula">{formula}</div>')
    raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
