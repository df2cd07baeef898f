"""Formulas as MathML, which browsers draw themselves: no script, no network, and readable aloud."""

from latex2mathml.converter import convert


def _inline(writer, node) -> None:
    from docutils import nodes

    writer.body.append(convert(node.astext(), display="inline"))
    raise nodes.SkipNode


def _block(writer, node) -> None:
    from docutils import nodes

    formula = convert(node.astext(), display="block")
    writer.body.append(f'<div class="formula" tabindex="0" role="group" aria-label="formula">{formula}</div>')
    raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
