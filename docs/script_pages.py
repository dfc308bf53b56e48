"""Tutorials as pages: a script whose bare strings are text."""

import ast
import inspect

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def read(text: str) -> nbformat.NotebookNode:
    """A script as a notebook: bare strings become text, and what is between them code.

    The first string is the head in keras.io's format, lines of `Name: value`.
    """
    lines, first, cells = text.splitlines(), 0, []
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Expr) or not _is_text(node.value):
            continue
        cells += _code(lines[first : node.lineno - 1])
        words = inspect.cleandoc(node.value.value)
        cells.append(new_markdown_cell(words if cells else _head(words)))
        first = node.end_lineno
    return new_notebook(cells=[_INLINE, *cells, *_code(lines[first:])])


def head(text: str) -> dict[str, str]:
    """The entries of a script's head by name, "Title" for example."""
    words = ast.get_docstring(ast.parse(text)) or ""
    pairs = (line.partition(": ") for line in words.splitlines())
    return {name: value for name, _, value in pairs}


# So that figures that pyplot does not know are shown, and warnings of TensorFlow, which
# writes them to stdout in a notebook, are not.
_INLINE = new_code_cell(
    "%matplotlib inline\n"
    'import logging; logging.getLogger("tensorflow").disabled = True',
    metadata={"tags": ["remove-cell"]},
)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _code(lines: list[str]) -> list[nbformat.NotebookNode]:
    source = "\n".join(lines).strip()
    return [new_code_cell(source)] if source else []


def _head(words: str) -> str:
    entries = head(f'"""{words}"""')
    title, *others = entries
    facts = (f"**{name}:** {entries[name]}" for name in others)
    return f"# {entries[title]}\n\n" + "<br>\n".join(facts)
