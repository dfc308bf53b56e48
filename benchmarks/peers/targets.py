"""What is aimed at, as data, and whether it is met."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from peers.plan import XLA, Entrant
from peers.samples import Row, Rows


class Target(NamedTuple):
    """The `quantity` of `ours` is at most `bound` times that of the best of `theirs`.

    `other` is the workload of `theirs`, where it is another.
    """

    workload: str
    ours: Entrant
    bound: float
    theirs: tuple[Entrant, ...]
    other: str = ""
    quantity: str = "ms"


def _nanode(variant: str) -> Entrant:
    return Entrant("nanode", variant)


def _of(peer: str, *variants: str) -> tuple[Entrant, ...]:
    return tuple(Entrant(peer, variant) for variant in variants)


ADJOINT = _of("torchdiffeq", "adjoint", "adjoint channels_last")
DIRECT = _of("torchdiffeq", "direct", "direct channels_last")
DIFFRAX = _of("diffrax", "default")
TFP = _of("tfp", "backsolve", "backsolve" + XLA)
ALL_STATES, CHECKPOINT = _nanode("all states"), _nanode("checkpoint")
ALL_STATES_XLA = _nanode("all states" + XLA)
UNCOMPILED = (
    *_of("torchdiffeq", "adjoint", "direct"),
    *(*_of("torchode", "autodiff"), *_of("tfp", "backsolve")),
)

TARGETS = [
    *(
        Target(name, _nanode(variant), 1.15, _of("bare", "f + vjp"))
        for name in ("conv-trig-100", "dense-bucket", "mlp-adaptive")
        for variant in ("all states", "backsolve")
    ),
    Target("conv-trig-100", ALL_STATES, 0.5, ADJOINT),
    Target("conv-trig-100", CHECKPOINT, 1.2, DIRECT),
    Target("conv-trig-100", CHECKPOINT, 1 / 5, DIRECT, quantity="memory"),
    Target("conv-trig-100", _nanode("direct"), 0.85, DIRECT),
    *(
        Target(name, ours, bound, theirs)
        for ours in (ALL_STATES, ALL_STATES_XLA)
        for name, bound, theirs in (
            ("dense-bucket", 0.1, ADJOINT),
            ("dense-bucket", 0.75, DIRECT),
            ("dense-bucket", 0.6, DIFFRAX),
            ("mlp-adaptive", 0.2, ADJOINT),
            ("mlp-adaptive", 0.85, DIFFRAX),
            ("mlp-adaptive", 0.85, TFP),
            ("tiny", 2.0, _of("diffrax", "default", "backsolve", "direct")),
        )
    ),
    *(Target("tiny", ALL_STATES, 1.0, (entrant,)) for entrant in UNCOMPILED),
    Target("K-bucket-100", ALL_STATES, 1.1, (ALL_STATES,), "K-bucket-1"),
    Target("K-trig-30", ALL_STATES, 1.2, (ALL_STATES,), "K-trig-1"),
    *(
        Target(
            *("conv-trig-1000", _nanode(v), 1.05, _of("nanode", v)),
            other="conv-trig-10",
            quantity="memory",
        )
        for v in ("backsolve", "reversible")
    ),
    # On the peers' own engines.
    *(
        Target(name, Entrant("nanode_jax", variant), 1.15, _of("bare_jax", "f + vjp"))
        for name in ("dense-bucket", "mlp-adaptive")
        for variant in ("all states", "backsolve")
    ),
    *(
        target
        for name in ("conv-trig-100", "dense-bucket", "mlp-adaptive", "tiny")
        for target in (
            Target(name, Entrant("nanode_jax", "checkpoint"), 1.0, DIFFRAX),
            Target(name, Entrant("nanode_torch", "checkpoint"), 0.6, ADJOINT),
            Target(name, Entrant("nanode_torch", "direct"), 1.1, DIRECT),
        )
    ),
    Target(
        *("conv-trig-100", Entrant("nanode_torch", "checkpoint"), 1 / 5, DIRECT),
        quantity="memory",
    ),
    Target("predict", CHECKPOINT, 1.1, _of("keras_resnet", "layers")),
]
# Growth of memory from 10 to 100 steps, against the residual network's.
GROWTH = ("conv-trig-10", "conv-trig-100", 1 / 12, CHECKPOINT)


def judge(rows: Rows) -> Iterator[str]:
    """A line for each target of which something was measured."""
    for target in TARGETS:
        ours = rows.get(target.workload, {}).get(target.ours)
        others = rows.get(target.other or target.workload, {})
        found = [(e, others[e]) for e in target.theirs if e in others]
        if ours and found:
            yield _line(target, ours, found)
    few, many, bound, entrant = GROWTH
    resnet = Entrant("keras_resnet", "layers")
    if few in rows and many in rows:
        growths = [
            _memory(rows[many], e) - _memory(rows[few], e) for e in (entrant, resnet)
        ]
        yield (
            f"memory, {few} to {many}: growth of {_name(entrant)} / {_name(resnet)}"
            f" {_verdict(growths[0] / growths[1], bound)}"
        )


def _line(target: Target, ours: Row, found: list[tuple[Entrant, Row]]) -> str:
    """The ratio to the best of the others."""

    def value(row: Row) -> float:
        number = getattr(row, target.quantity)
        return math.inf if math.isnan(number) else number

    entrant, best = min(found, key=lambda pair: value(pair[1]))
    there = f"{target.other} " if target.other else ""
    unit = "memory, " if target.quantity == "memory" else ""
    ratio = getattr(ours, target.quantity) / getattr(best, target.quantity)
    return (
        f"{unit}{target.workload}: {_name(target.ours)} / {there}{_name(entrant)} "
        f"{_verdict(ratio, target.bound)}"
    )


def _name(entrant: Entrant) -> str:
    return f"{entrant.peer} {entrant.variant}"


def _memory(group: dict[Entrant, Row], entrant: Entrant) -> float:
    return group[entrant].memory if entrant in group else math.nan


def _verdict(ratio: float, bound: float) -> str:
    if math.isnan(ratio):
        return f"<= {bound:.3g}: not measured"
    met = "met" if ratio <= bound else "NOT MET"
    return f"<= {bound:.3g}: measured {ratio:.3g}: {met}"
