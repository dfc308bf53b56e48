"""The tutorials have the format of keras.io. The build of the site runs them."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
HEAD = ("Title", "Author", "Date created", "Last modified", "Description")
# Nothing in them is downloaded, and nothing is a result by chance.
SEED = "set_random_seed("


def test_there_are_tutorials():
    assert TUTORIALS


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_a_short_script_with_a_head(path):
    text = path.read_text()
    assert len(text.splitlines()) < 300
    compile(text, path, "exec", dont_inherit=True)
    pairs = [line.partition(": ") for line in head(text).splitlines()]
    assert tuple(name for name, _, _ in pairs) == HEAD
    entries = {name: value for name, _, value in pairs}
    assert all(entries.values())
    for name in ("Date created", "Last modified"):
        assert re.fullmatch(r"\d{4}/\d\d/\d\d", entries[name])
    assert SEED in text


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_a_page(path):
    pytest.importorskip("nbformat")
    cells = reader().read(path.read_text()).cells
    first, title, *rest = cells
    assert first.source.startswith("%matplotlib")
    assert title.source.startswith("# ")
    assert {cell.cell_type for cell in rest} == {"code", "markdown"}
    # No statement is lost, and none is made of text.
    code = "\n".join(cell.source for cell in rest if cell.cell_type == "code")
    statements = [ast.dump(x) for x in ast.parse(path.read_text()).body if not bare(x)]
    assert [ast.dump(x) for x in ast.parse(code).body] == statements


def head(text: str) -> str:
    return ast.get_docstring(ast.parse(text)) or ""


def bare(node: ast.stmt) -> bool:
    """Whether it is a string alone."""
    value = getattr(node, "value", None) if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def reader():
    spec = importlib.util.spec_from_file_location(
        "script_pages", DOCS / "script_pages.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
