"""Shared code of the benchmarks: measurements in separate processes, a description of
the machine, Markdown tables, CSV files."""

import csv
import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("keras", "tensorflow", "keras_nanode")


class Failed(Exception):
    """A process that measures ended with an error; the message is what it wrote."""

    @property
    def reason(self) -> str:
        """The line of a traceback that names the error, else the last."""
        lines = [x for x in str(self).splitlines() if x.strip()] or ["no message"]
        named = [x for x in lines if re.match(r"[\w.]*(Error|Exception)\b", x)]
        return (named or lines)[-1][:200]


def from_process(
    command: Sequence[str],
    settings: Mapping[str, str] | None = None,
    timeout: float | None = None,
    cwd: Path | None = None,
) -> Any:
    """What a command prints in its last line, as JSON.

    Args:
        command: The program and its arguments.
        settings: Environment variables beside those that are set.
        timeout: Seconds that it may take.
        cwd: The folder that it runs in.

    Raises:
        Failed: if it ends with an error.
        subprocess.TimeoutExpired: if it takes too long.
    """
    process = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(settings or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if process.returncode:
        raise Failed(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])


def environment(packages: Sequence[str] = PACKAGES, device: str = "CPU only") -> str:
    """The date, the machine and the versions that a result belongs to."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return (
        f"{datetime.date.today()}, {device} ({os.cpu_count()} cores, "
        f"{platform.machine()}, {memory:.0f} GiB), Python "
        f"{platform.python_version()}, {', '.join(versions)}."
    )


def mean_and_farthest(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the distance of the farthest value from it."""
    mean = statistics.mean(values)
    return mean, max(abs(value - mean) for value in values)


def or_dash(number: float) -> str:
    """The number, or "-" for 0, where there is none."""
    return f"{number:g}" if number else "-"


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


def read_csv(path: Path, *kinds: type) -> list[tuple]:
    """The lines of a file as tuples of one NamedTuple of each kind; none without it."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [tuple(_parsed(kind, line) for kind in kinds) for line in lines]


def _parsed(kind: Any, line: dict[str, str]) -> Any:
    types = kind.__annotations__
    return kind(**{name: types[name](line[name]) for name in types})


def write_csv(path: Path, lines: Iterable[tuple]) -> None:
    """Writes tuples of NamedTuples, under the names of their fields."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, line in enumerate(lines):
            if not number:
                writer.writerow([name for part in line for name in part._fields])
            writer.writerow([value for part in line for value in part])
