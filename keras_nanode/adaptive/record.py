"""An adaptive solve, and one that keeps its accepted times and some of its states."""

import dataclasses
from typing import Any

from keras import ops, tree

from keras_nanode import backend
from keras_nanode.adaptive.control import Adaptive
from keras_nanode.adaptive.keep import Doubling, Squares
from keras_nanode.adaptive.march import march
from keras_nanode.solve import buffers, write
from keras_nanode.steps import Problem
from keras_nanode.stops import RecordedSteps, direction
from keras_nanode.vector_field import Structure


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an adaptive solve gives.

    Attributes:
        ends: y at the output times, stacked; NaN at those that were not reached.
        late: `(intervals,)`, which output times were not reached.
        stats: A dict of scalars: `num_steps`, `num_accepted`, `num_rejected`,
            `num_fevals`, `status`, and where it stopped: `t`, `h`.
    """

    ends: Structure
    late: Any
    stats: dict


@dataclasses.dataclass(frozen=True)
class Record(Outcome):
    """What an adaptive solve leaves to be gone through again.

    Attributes:
        steps: The accepted steps.
        saved: Buffers of kept states, and the rule's last `mark`.
    """

    steps: RecordedSteps
    saved: Structure
    mark: Any


def outcome(
    problem: Problem,
    control: Adaptive,
    y0,
    params,
    extra: Any = (),
    visit=lambda extra, **_: extra,
) -> tuple[Outcome, Any]:
    """Solves adaptively, with `extra` carried on by `visit` as in `march`; gives the
    last `extra` too."""
    intervals, several = problem.num_intervals, problem.several

    def keep(carry, *, y_end, row, **attempt):
        ends, extra = carry
        ends = write(ends, row, y_end) if several else ends
        return ends, visit(extra, y_end=y_end, row=row, **attempt)

    carry = (buffers(intervals, y0) if several else (), extra)
    c = march(problem, control, params, y0, carry, visit=keep)
    ends, extra = c["extra"]
    if several:
        ends = tree.map_structure(backend.stack, ends)
        late = ops.arange(intervals, dtype="int32") >= c["reached"]
    else:
        ends = tree.map_structure(lambda y: y[None], c["y"])
        late = (c["status"] != 0)[None]
    return Outcome(spoil(ends, late), late, statistics(problem, c)), extra


def statistics(problem: Problem, c: dict) -> dict:
    """What `Outcome.stats` says, from the counters of a loop as `march` has them."""
    sign = direction(problem)
    return {
        "num_steps": c["tried"],
        "num_accepted": c["accepted"],
        "num_rejected": c["tried"] - c["accepted"],
        "num_fevals": c["num_fevals"],
        "status": c["status"],
        "t": ops.cast(problem.times[0], problem.dtype) + sign * c["distance"],
        "h": sign * c["h"],
    }


def record(
    problem: Problem,
    control: Adaptive,
    y0,
    params,
    rule: Squares | Doubling | None = None,
) -> Record:
    """Solves adaptively; keeps the accepted times, and the states that `rule` says."""

    def visit(extra, *, y, accepted, place, **_):
        *places, saved, mark = extra
        # What is not accepted is written over.
        places = [
            backend.write(buffer, accepted + 1, value)
            for buffer, value in zip(places, place, strict=True)
        ]
        if rule is not None:
            saved, mark = rule.keep(saved, mark, accepted, y)
        return *places, saved, mark

    number = control.max_steps + 1
    extra = (
        backend.buffer(number, ops.convert_to_tensor(0.0, problem.dtype)),
        backend.buffer(number, ops.convert_to_tensor(0, "int32")),
        buffers(rule.slots, y0) if rule else (),
        ops.convert_to_tensor(rule.mark if rule else 0, "int32"),
    )
    found, extra = outcome(problem, control, y0, params, extra, visit)
    edges, passed, saved, mark = extra
    places = backend.stack(edges), backend.stack(passed)
    steps = RecordedSteps(problem, *places, found.stats["num_accepted"])
    return Record(**vars(found), steps=steps, saved=saved, mark=mark)


def spoil(stacked: Structure, where) -> Structure:
    """NaN in the rows of `where`."""

    def leaf(x):
        rows = ops.reshape(where, (-1, *[1] * (len(x.shape) - 1)))
        # Multiplied, so that a cotangent that is passed on becomes NaN as well.
        return x * nan_where(rows, x.dtype)

    return tree.map_structure(leaf, stacked)


def nan_where(condition, dtype):
    """NaN where it holds, else 1."""
    # The root of -1, since who looks for NaN would find a constant.
    return ops.cast(ops.where(condition, -1, 1), dtype) ** 0.5
