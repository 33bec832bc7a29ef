"""The site: `sphinx-build -W -b html docs docs/_build` makes it of these pages and of those that generate.py writes."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generate  # noqa: E402 - it lies beside this file

project = author = "lwmfw"
copyright = "the lwmfw authors, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_use_ivar = True  # attributes are told once
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say types in words where they are not plain
toc_object_entries = add_module_names = False
smartquotes = False  # it makes one dash of the two of an option

html_theme = "furo"
html_title = "lwmfw"
html_static_path = ["_static"]
html_css_files = ["lwmfw.css"]
html_math_renderer = "mathml"
html_copy_source = html_use_index = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches pages, which a browser refuses of files


def setup(app: Sphinx) -> None:
    """Have the pages written before they are looked for, and formulas as MathML, which needs nothing from elsewhere."""
    app.connect("builder-inited", lambda _: generate.write(HERE / "reference"))
    app.connect("autodoc-process-docstring", _code_of_markdown, priority=400)  # napoleon's is 500
    app.connect("source-read", _links_of_the_site)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


def _links_of_the_site(_: Sphinx, docname: str, source: list[str]) -> None:
    if not docname.startswith("reference/"):
        source[0] = generate.site_links(source[0], HERE)


def _code_of_markdown(_: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """Docstrings mark code as Markdown does; reStructuredText wants two backticks."""
    lines[:] = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n".join(lines)).splitlines()


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode
