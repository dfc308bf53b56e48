"""Steps whose lengths are chosen on the way: where they have to end, and in time.

A place in time is a stop and the distance from it, so that neither a large first time
nor two times next to each other are lost by rounding.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_nanode import backend
from keras_nanode.steps import Problem, Step
from keras_nanode.vector_field import between, nearest


def direction(problem: Problem):
    """1 forwards in time, -1 backwards."""
    first, last = problem.times[0], problem.times[-1]
    if isinstance(problem.times, np.ndarray):
        return float(np.sign(last - first))
    return ops.cast(ops.sign(last - first), problem.dtype)


@dataclasses.dataclass(frozen=True)
class Stops:
    """Where steps have to end: output times, and breakpoints of the weights.

    Attributes:
        times: The first time and the stops.
        lengths: The distance of each from the one before.
        at: The distance of each from the first time.
        rows: In which interval between output times each lies; None for times that
            are tensors, whose stops are they.
        jumps: After which the weights jump, constants; None likewise.
        number: How many stops there are.
    """

    times: Any
    lengths: Any
    at: Any
    rows: Any
    jumps: Any
    number: Any

    @classmethod
    def of(cls, problem: Problem) -> "Stops":
        times, dtype = problem.times, problem.dtype
        if not isinstance(times, np.ndarray):
            lengths = ops.cast(abs(times[1:] - times[:-1]), dtype)
            at = ops.cast(abs(times[1:] - times[0]), dtype)
            return cls(
                ops.cast(times, dtype), lengths, at, None, None, problem.num_used
            )
        outputs = np.abs(times[1:] - times[0])
        edges = np.array(problem.field.weights.breakpoints, "float64")
        edges = (edges - times[0]) * direction(problem)
        edges = edges[(edges > 0) & (edges < outputs[-1])]
        # A breakpoint that differs by rounding from the first or an output time is it.
        known = np.append(outputs, 0.0)
        rounding = 8 * max(
            eps(dtype) * outputs[-1], eps("float64") * np.abs(times).max()
        )
        near = np.abs(edges[:, None] - known) <= rounding
        at = np.sort(np.concatenate([outputs, edges[~near.any(axis=1)]]))
        jumps = np.isin(at, edges) | np.isin(at, known[near.any(axis=0)])
        rows = np.searchsorted(outputs, at)
        stops = times[0] + direction(problem) * at
        stops = np.where(np.isin(at, outputs), times[1:][rows], stops)
        arrays = np.append(times[0], stops), np.diff(at, prepend=0.0), at
        stops, lengths, at = (ops.convert_to_tensor(x.astype(dtype)) for x in arrays)
        return cls(stops, lengths, at, rows, jumps, len(rows))


def eps(dtype: str) -> float:
    return float(np.finfo(dtype).eps)


class RecordedSteps:
    """Steps of which only the places of their ends are known.

    Args:
        problem: What is solved.
        edges: `(limit + 1,)`, where steps begin: distances from the stops before.
        passed: `(limit + 1,)`, how many stops are there or before.
        count: Scalar, how many steps there are; the rest of `edges` is not used.
    """

    batch = 1
    loop = staticmethod(backend.fori_loop)

    def __init__(self, problem: Problem, edges, passed, count):
        self.problem, self.edges, self.passed = problem, edges, passed
        self.count, self.stops = count, Stops.of(problem)
        self.limit = edges.shape[0] - 1

    def of(self, problem: Problem) -> "RecordedSteps":
        """The same of another problem with these times."""
        return RecordedSteps(problem, self.edges, self.passed, self.count)

    def interval(self, i):
        passed = ops.take(self.passed, i)
        if self.stops.rows is None:
            return passed
        rows = np.append(self.stops.rows, self.problem.num_intervals)
        return ops.take(ops.convert_to_tensor(rows.astype("int32")), passed)

    def rows(self, first):
        start, end = (ops.take(self.edges, [first + i]) for i in (0, 1))
        stop, behind = (ops.take(self.passed, [first + i]) for i in (0, 1))
        length = ops.take(ops.stop_gradient(self.stops.lengths), stop)
        end = ops.where(behind > stop, length, end)
        return step_rows(self.problem, self.stops, stop, start, end)


def step_rows(problem: Problem, stops: Stops, stop, start, end):
    """As `FixedSteps.rows`, of steps between distances from stops."""
    sign, length = direction(problem), ops.take(stops.lengths, stop)
    if stops.rows is None:
        # A step moves with the times that it is between.
        share = length / ops.stop_gradient(length)
        start, end = start * share, end * share
    before, behind = (ops.take(stops.times, stop + i) for i in (0, 1))
    first = nearest(before + sign * start, before, behind)
    last = nearest(before + sign * end, before, behind)
    last = ops.where(end >= length, behind, last)
    places = problem.solver.places
    times = [between(first, last, place) for place in places]
    located = problem.field.weights.locate(first, last, places, problem.dtype)
    return sign * (end - start), ops.stack(times, axis=1), located, None


def single_step(problem: Problem, stops: Stops, params, stop, start, end):
    """The step between distances from a stop, and what its times were located as."""
    rows = (x[None] for x in (stop, start, end))
    h, times, located, _ = step_rows(problem, stops, *rows)
    weights = problem.field.weights
    theta = weights.at(weights.prepare(params, located), 0)
    return Step(problem, h[0], times[0], theta), located
