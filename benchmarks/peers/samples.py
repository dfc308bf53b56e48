"""What was measured: samples, the CSV file of them, and what they say together."""

import csv
import math
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peers.plan import ENTRANTS, Entrant


class Sample(NamedTuple):
    """What a process found: a line of the CSV file."""

    workload: str
    peer: str
    variant: str
    round: int  # -1 where the memory was measured
    ms: float = math.nan  # the median of its steps
    least_ms: float = math.nan
    steps: int = 0
    foreign: float = math.nan  # processors that others used meanwhile
    memory: float = math.nan  # MiB
    error_y: float = math.nan
    error_dx: float = math.nan
    error_dc: float = math.nan
    void: bool = False
    failure: str = ""
    versions: str = ""

    @classmethod
    def of(cls, name: str, entrant: Entrant, number: int, result: dict[str, Any]):
        versions = result.pop("versions", {})
        text = " ".join(f"{k}={v}" for k, v in versions.items())
        return cls(name, *entrant, number, versions=text, **result)

    def line(self) -> str:
        name = f"{self.workload} {self.peer} {self.variant}"
        if self.failure:
            return f"{name}: FAILED, {self.failure}"
        if self.round < 0:
            return f"{name}: {self.memory:.1f} MiB"
        void = f", VOID: others used {self.foreign:.0%}" if self.void else ""
        errors = ", ".join(f"{e:.1e}" for e in (self.error_y, self.error_dx))
        return f"{name}: {self.ms:.2f} ms, errors {errors}{void}"


class Row(NamedTuple):
    """What all samples of an entrant say together."""

    ms: float  # the median of the rounds' medians
    spread: float  # of these, (largest - least) / median
    memory: float
    error_y: float
    error_dx: float
    error_dc: float
    failure: str


Rows = dict[str, dict[Entrant, Row]]


def rows(samples: Iterable[Sample]) -> Rows:
    groups: dict[str, dict[Entrant, list[Sample]]] = {}
    for sample in samples:
        entrant = Entrant(sample.peer, sample.variant)
        groups.setdefault(sample.workload, {}).setdefault(entrant, []).append(sample)
    return {
        name: {entrant: _row(own) for entrant, own in group.items()}
        for name, group in groups.items()
    }


def _row(samples: list[Sample]) -> Row:
    valid = [s.ms for s in samples if not s.void and not math.isnan(s.ms)]
    ms = statistics.median(valid) if valid else math.nan
    spread = (max(valid) - min(valid)) / ms if valid else math.nan

    def known(field: str) -> float:
        values = [getattr(s, field) for s in samples]
        return next((v for v in values if not math.isnan(v)), math.nan)

    failure = next((s.failure for s in samples if s.failure), "")
    if not valid and not failure:
        failure = "void: others used the processor in every round"
    return Row(
        ms,
        spread,
        *(known("memory"), known("error_y"), known("error_dx"), known("error_dc")),
        failure,
    )


def merge(path: Path, samples: list[Sample], append: bool) -> list[Sample]:
    """Writes the CSV file, with what is in it: of other workloads, or of all."""
    names = {sample.workload for sample in samples}
    samples = [s for s in read(path) if append or s.workload not in names] + samples
    order = list(ENTRANTS)
    samples.sort(key=lambda s: order.index(s.workload))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Sample._fields, *samples])
    return samples


def read(path: Path) -> Iterator[Sample]:
    if path.exists():
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                yield Sample(**{k: _parsed(k, text) for k, text in line.items()})


def _parsed(field: str, text: str) -> Any:
    kind = Sample.__annotations__[field]
    return text == "True" if kind is bool else kind(text)
