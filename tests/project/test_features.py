"""The documented table of features is that of the list, and its tests exist."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import features  # noqa: E402

PAGE = (ROOT / "docs" / "backends.md").read_text()


def rows(text):
    """The cells of each line of the table in a text, without the rule."""
    first, last = features.MARKS
    lines = text.partition(first)[2].partition(last)[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return cells[:1] + cells[2:]


def test_the_page_has_the_features_of_the_list():
    header, *found = rows(PAGE)
    assert header[1:] == [*features.BACKENDS.values()]
    assert [name for name, *_ in found] == [*features.FEATURES]
    for name, *cells in found:
        assert all(cells) and "fails" not in cells, name
        assert "yes" in cells, name


def test_every_named_test_exists():
    names = features.node_ids()
    assert len(names) == len(set(names))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-n",
        "0",
        "-m",
        "",
        *names,
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


CASES = ElementTree.fromstring("""
<testsuite>
  <testcase classname="tests.test_a" name="test_one[x]" />
  <testcase classname="tests.test_a" name="test_one[y]">
    <skipped message="no y here" />
  </testcase>
  <testcase classname="tests.test_a" name="test_two"><failure /></testcase>
  <testcase classname="tests.test_b" name="test_one"><error /></testcase>
</testsuite>
""")


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (["test_a.py::test_one"], "yes"),
        (["test_a.py::test_one[y]"], "no y here"),
        (["test_a.py::test_one", "test_a.py::test_two"], "fails"),
        (["test_b.py::test_one"], "fails"),
        (["test_a.py::test_three"], "fails"),
    ],
)
def test_a_cell_says_how_its_tests_ended(tests, expected):
    assert features.cell(CASES, tests) == expected


def test_the_table_is_written_between_the_marks():
    column = dict.fromkeys(features.FEATURES, "yes")
    text = features.replaced(PAGE, features.table(["JAX"], [column]))
    assert rows(text) == [["", "JAX"], *([name, "yes"] for name in column)]
    for part in re.split("(?s){}.*{}".format(*features.MARKS), PAGE):
        assert part in text
    with pytest.raises(SystemExit, match="has no lines"):
        features.replaced("nothing", "a table")
