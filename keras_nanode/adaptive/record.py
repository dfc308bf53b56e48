"""An adaptive solve that keeps its accepted times, and some of its states."""

import dataclasses
from typing import Any

from keras import ops, tree

from keras_nanode import backend
from keras_nanode.adaptive.control import Adaptive
from keras_nanode.adaptive.keep import Doubling, Squares
from keras_nanode.adaptive.march import march
from keras_nanode.solve import buffers, write
from keras_nanode.steps import Problem, RecordedSteps, direction
from keras_nanode.vector_field import Structure


@dataclasses.dataclass(frozen=True)
class Record:
    """What an adaptive solve leaves.

    Attributes:
        ends: y at the output times, stacked; NaN at those that were not reached.
        late: `(intervals,)`, which output times were not reached.
        steps: The accepted steps.
        saved: Buffers of kept states, and the rule's last `mark`.
        stats: A dict of scalars: `num_steps`, `num_accepted`, `num_rejected`,
            `num_fevals`, `status`, and where it stopped: `t`, `h`.
    """

    ends: Structure
    late: Any
    steps: RecordedSteps
    saved: Structure
    mark: Any
    stats: dict


def record(
    problem: Problem,
    control: Adaptive,
    y0,
    params,
    rule: Squares | Doubling | None = None,
) -> Record:
    """Solves adaptively; keeps the accepted times, and the states that `rule` says."""
    intervals = problem.num_intervals

    def visit(extra, *, y, accepted, ok, end, row, **_):
        edges, arrivals, ends, saved, mark = extra
        edges = backend.write(edges, accepted + 1, end[0])
        if intervals > 1:
            here = (ops.arange(intervals, dtype="int32") == row) & ok
            arrivals = ops.where(here, accepted + 1, arrivals)
            ends = write(ends, row, end[1])
        if rule is not None:
            saved, mark = rule.keep(saved, mark, accepted, y)
        return edges, arrivals, ends, saved, mark

    extra = (
        backend.buffer(
            control.max_steps + 1, ops.convert_to_tensor(0.0, problem.dtype)
        ),
        ops.zeros((intervals,), "int32"),
        buffers(intervals, y0) if intervals > 1 else (),
        buffers(rule.slots, y0) if rule else (),
        ops.convert_to_tensor(rule.mark if rule else 0, "int32"),
    )
    c = march(problem, control, params, y0, extra, visit=visit)
    edges, arrivals, ends, saved, mark = c["extra"]
    if intervals > 1:
        ends = tree.map_structure(backend.stack, ends)
        late = ops.arange(intervals, dtype="int32") >= c["reached"]
    else:
        arrivals = c["accepted"][None]
        ends = tree.map_structure(lambda y: y[None], c["y"])
        late = (c["status"] != 0)[None]
    stats = {
        "num_steps": c["tried"],
        "num_accepted": c["accepted"],
        "num_rejected": c["tried"] - c["accepted"],
        "num_fevals": c["num_fevals"],
        "status": c["status"],
        "t": ops.cast(problem.times[0], problem.dtype) + direction(problem) * c["s"],
        "h": direction(problem) * c["h"],
    }
    steps = RecordedSteps(problem, backend.stack(edges), c["accepted"], arrivals)
    return Record(spoil(ends, late), late, steps, saved, mark, stats)


def spoil(stacked: Structure, where) -> Structure:
    """NaN in the rows of `where`."""

    def leaf(x):
        rows = ops.reshape(where, (-1, *[1] * (len(x.shape) - 1)))
        # Multiplied, so that a cotangent that is passed on becomes NaN as well.
        return x * ops.where(rows, ops.cast(float("nan"), x.dtype), ops.ones_like(x))

    return tree.map_structure(leaf, stacked)
