"""What the benchmarks share: the machine in words, and Markdown tables."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence

PACKAGES = ("keras", "tensorflow", "keras_nanode")


def environment() -> str:
    """The date, the machine and the versions that a result belongs to."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return (
        f"{datetime.date.today()}, CPU only ({os.cpu_count()} cores, "
        f"{platform.machine()}, {memory:.0f} GiB), Python "
        f"{platform.python_version()}, {', '.join(versions)}."
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table that is readable as plain text too: numbers right-aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (n - 1) + ":" for n in widths[1:])]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])
