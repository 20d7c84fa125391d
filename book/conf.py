"""How Sphinx builds the book: offline, from notebooks that have run, with formulas as MathML."""

import sys
from pathlib import Path

from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parent))
import pages

project = "bvlib"
author = "the bvlib authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "off"
html_theme = "sphinx_book_theme"
html_title = "bvlib"
html_theme_options = {"use_download_button": False, "show_toc_level": 2}
html_extra_path = ["../figures"]  # pictures and tables, which pages name by their place there
html_math_renderer = "mathml"
html_static_path, html_css_files, html_favicon = ["static"], ["book.css"], "static/favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
autodoc_typehints = "description"
autodoc_member_order = "bysource"


def setup(app) -> None:
    from docutils import nodes

    def inline(translator, node):
        translator.body.append(convert(node.astext(), display="inline"))
        raise nodes.SkipNode

    def display(translator, node):
        formula = convert(node.astext(), display="block")
        translator.body.append(f'<div class="math">{formula}</div>')
        raise nodes.SkipNode

    def links(app, page, text):
        text[0] = pages.linked(text[0], page)

    pages.write()
    app.connect("source-read", links)
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
