"""Tables for papers and pages: LaTeX and Markdown, in which no cell says anything but its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lwmfw.errors import harmless

_LATEX = {
    **{letter: f"\\{letter}" for letter in "{}$&#_%"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",  # behind the end of a row these are arguments of it
}
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?: ± \d+\.\d+)?")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$])")


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str]) -> str:
    """A tabular with the rules of booktabs; numbers and their deviations are mathematics.

    Args:
        header: of its columns.
        rows: a text for each of them.
        texts: headers of columns whose numbers are parts of names, or of sentences.
    """
    align = "".join("l" if title in texts else "r" for title in header)
    lines = [_latex_row(map(_latex, header))]
    for row in rows:
        cells = zip(header, row, strict=True)
        lines.append(_latex_row(_latex(cell) if title in texts else _mathematics(cell) for title, cell in cells))
    head, *body = lines
    inside = ["\\toprule", head, "\\midrule", *body, "\\bottomrule"]
    return "\n".join([f"\\begin{{tabular}}{{{align}}}", *(f"  {line}" for line in inside), "\\end{tabular}"])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str]) -> str:
    """A table as GitHub and MyST read it; `texts` as `latex_table` has them."""
    rule = ["---" if title in texts else "---:" for title in header]
    lines = [list(map(_markdown, header)), rule, *(list(map(_markdown, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


def _mathematics(text: str) -> str:
    """A cell of numbers, such as 0.5 ± 0.1 or +0.1 [-0.2, +0.4] n=3, may be 0."""
    return _NUMBER.sub(lambda found: f"${found[0].replace('±', chr(92) + 'pm')}$", _latex(text))


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return harmless(" ".join(text.split()))
