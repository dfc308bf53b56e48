"""From what was measured to Markdown tables and a picture."""

import functools
import math
from pathlib import Path

from reporting import environment, markdown_table

from peers import samples as samples_of
from peers import targets
from peers.plan import DEPTH_NAME, FLOORS, PICTURED, Entrant
from peers.samples import Row, Rows, Sample
from peers.workloads import DEPTHS

HEADER = (
    *("peer", "variant", "ms", "spread", "MiB"),
    *("error of y", "of dL/dx", "of dL/dalpha"),
)
# Whose time is drawn over the number of steps.
OVER_DEPTH = ("nanode", "keras_resnet")
ABOUT = """\
Milliseconds of a training step: the median of the rounds' medians, each from a process
of its own, and beside it by how much these differ, (largest - least) / median. MiB is
the largest memory of a step above what was occupied before. Errors are relative, in the
Euclidean norm, against float64; of the coefficients the largest. `bare` is the floor,
and `bare_jax` and `bare_torch` those of the other engines: f as often as this library
evaluates it, and its vjp as often, with ready weights. `all states` is
`Checkpoint(num=steps)`. `XLA` is `jit_compile=True`, which Keras leaves off on a CPU by
itself. `reversible` is reversible Heun: the difference between it and Euler's method is
not an error of its gradient."""


def report(samples: list[Sample]) -> str:
    """Targets, tables of all workloads, and versions in Markdown."""
    rows = samples_of.rows(samples)
    verdicts = "\n".join(f"- {line}" for line in targets.judge(rows))
    parts = [environment(), ABOUT]
    parts += ["## Targets", verdicts] if verdicts else []
    for name, group in rows.items():
        parts += [f"## {name}", markdown_table(HEADER, map(_cells, group.items()))]
        parts += [
            f"- {_name(entrant)}: {row.failure}"
            for entrant, row in group.items()
            if row.failure
        ]
    return "\n\n".join([*parts, "## Versions", _versions(samples)]) + "\n"


def _cells(item: tuple[Entrant, Row]) -> list[str]:
    entrant, row = item

    def cell(value: float, form: str) -> str:
        return "-" if math.isnan(value) else format(value, form)

    errors = (cell(e, ".1e") for e in (row.error_y, row.error_dx, row.error_dc))
    return [
        *(entrant.peer, entrant.variant, cell(row.ms, ".2f"), cell(row.spread, ".0%")),
        *(cell(row.memory, ".1f"), *errors),
    ]


def _versions(samples: list[Sample]) -> str:
    found = {sample.peer: sample.versions for sample in samples if sample.versions}
    return "\n".join(f"- {peer}: {text}" for peer, text in found.items())


def _name(entrant: Entrant) -> str:
    return f"{entrant.peer} {entrant.variant}"


def plot(rows: Rows, path: Path) -> None:
    """Bars of the workloads that peers do, and time over depth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        functools.partial(_bars, name=name, group=rows[name])
        for name in PICTURED
        if name in rows
    ]
    if any(e.peer in OVER_DEPTH for name in DEPTH_NAME for e in rows.get(name, {})):
        panels.append(functools.partial(_depth, rows=rows))
    figure, axes = plt.subplots(
        -(-len(panels) // 2), 2, figsize=(12, 1 + 2 * len(panels)), squeeze=False
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        panel(axis)
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _bars(axis, name: str, group: dict[Entrant, Row]) -> None:
    timed = [(e, row) for e, row in group.items() if not math.isnan(row.ms)]
    timed.sort(key=lambda pair: -pair[1].ms)
    ours = ("nanode", "nanode_torch", "nanode_jax")
    colors = {**dict.fromkeys(FLOORS, "black"), **dict.fromkeys(ours, "tab:blue")}
    bars = axis.barh(
        [_name(e) for e, _ in timed],
        [row.ms for _, row in timed],
        color=[colors.get(e.peer, "tab:gray") for e, _ in timed],
    )
    # Who is quick but wrong is marked.
    labels = [
        format(row.ms, ",.0f" if row.ms >= 100 else ".3g")
        + (f", dL/dx off by {row.error_dx:.0%}" if row.error_dx > 0.01 else "")
        for _, row in timed
    ]
    axis.bar_label(bars, labels, padding=3, fontsize=8)
    axis.set(xscale="log", title=f"{name}: ms a training step")
    axis.set_xlim(right=10 * max(row.ms for _, row in timed))
    axis.tick_params(axis="y", labelsize=8)


def _depth(axis, rows: Rows) -> None:
    entrants = {e: None for name in rows if name in DEPTH_NAME for e in rows[name]}
    for entrant in entrants:
        if entrant.peer not in OVER_DEPTH:
            continue
        points = [
            (n, row.ms)
            for name, n in DEPTH_NAME.items()
            if (row := rows.get(name, {}).get(entrant)) and not math.isnan(row.ms)
        ]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", label=_name(entrant))
    axis.set(xscale="log", yscale="log", title="conv-trig: ms over steps or blocks")
    axis.set_xticks(DEPTHS, [str(n) for n in DEPTHS])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    if axis.lines:
        axis.legend(fontsize=8)
