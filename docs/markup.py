"""Words and tables of the code as Markdown."""

import inspect
import re
from collections.abc import Iterable


def said(text: str) -> str:
    """Words of the code as Markdown that shows them as they are; what stands between backticks stays code."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        part if index % 2 else re.sub(r"([\\*_\[\]<>$#~])", r"\\\1", part) for index, part in enumerate(parts)
    )


def code(text: str) -> str:
    """Code within a line."""
    return f"`{text}`" if text else ""


def fenced(text: str, language: str = "text") -> str:
    """A block of code."""
    return f"```{language}\n{text}\n```"


def told(what: object) -> str:
    """A docstring without its indentation."""
    return inspect.cleandoc(getattr(what, "__doc__", None) or "")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown."""
    header = list(header)
    cells = ([cell.replace("|", r"\|") for cell in row] for row in (header, ["---"] * len(header), *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def toctree(*entries: str) -> str:
    """What Sphinx needs to know of the pages below one; their links stand on the page itself."""
    return fenced("\n".join([":hidden:", "", *entries]), "{toctree}")


def joined(*parts: str) -> str:
    """A page of parts, of which the empty ones are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"


def prose(text: str) -> str:
    """A plain text as Markdown: paragraphs, lists, and what is indented as it stands."""
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        is_list, block = paragraph.startswith("- "), False
        for line in paragraph.splitlines():
            indented = line.startswith("  ") and not is_list
            if block != indented:
                parts.append("```" if block else "\n```text")
                block = indented
            parts.append(line if indented else _line(line))
        parts.append("```\n" if block else "")
    return "\n".join(parts).strip()


def _line(line: str) -> str:
    return f"- {said(line[2:])}" if line.startswith("- ") else said(line)
