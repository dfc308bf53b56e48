"""The stops: the times at which adaptive steps have to end."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.step import Batch
from keras_nanode.vector_field import between, nearest


@dataclasses.dataclass(frozen=True)
class Stops:
    """Output times, and breakpoints of the weights.

    A place in time is stored as a stop and the distance from it. So rounding loses no
    small distance, even if the first time is large or two times are close.

    Attributes:
        problem: The problem.
        times: The first time and the stops.
        lengths: The distance of each stop from the one before.
        at: The distance of each stop from the first time.
        rows: The interval between output times in which each stop lies. None if the
            times are a tensor: then they are the stops.
        jumps: After which stops the weights jump, a constant. None if `rows` is.
        number: The number of stops.
        intervals: `rows` as a tensor, with one more entry after the last stop.
    """

    problem: Problem
    times: Any
    lengths: Any
    at: Any
    rows: Any
    jumps: Any
    number: Any
    intervals: Any = None

    @classmethod
    def of(cls, problem: Problem) -> "Stops":
        times, dtype = problem.times, problem.dtype
        if not isinstance(times, np.ndarray):
            lengths = ops.cast(abs(times[1:] - times[:-1]), dtype)
            at = ops.cast(abs(times[1:] - times[0]), dtype)
            times = ops.cast(times, dtype)
            return cls(problem, times, lengths, at, None, None, problem.num_used)
        outputs = np.abs(times[1:] - times[0])
        edges = np.array(problem.field.weights.breakpoints, "float64")
        edges = (edges - times[0]) * problem.direction
        edges = edges[(edges > 0) & (edges < outputs[-1])]
        # A breakpoint within rounding error of the first or an output time equals it.
        known = np.append(outputs, 0.0)
        rounding = 8 * max(
            eps(dtype) * outputs[-1], eps("float64") * np.abs(times).max()
        )
        near = np.abs(edges[:, None] - known) <= rounding
        at = np.sort(np.concatenate([outputs, edges[~near.any(axis=1)]]))
        jumps = np.isin(at, edges) | np.isin(at, known[near.any(axis=0)])
        rows = np.searchsorted(outputs, at)
        stops = times[0] + problem.direction * at
        stops = np.where(np.isin(at, outputs), times[1:][rows], stops)
        arrays = np.append(times[0], stops), np.diff(at, prepend=0.0), at
        stops, lengths, at = (ops.convert_to_tensor(x.astype(dtype)) for x in arrays)
        # Make this once, outside the loops that use it.
        intervals = np.append(rows, problem.num_intervals).astype("int32")
        intervals = ops.convert_to_tensor(intervals)
        return cls(problem, stops, lengths, at, rows, jumps, len(rows), intervals)

    def interval(self, stop):
        """The interval between output times that contains the step after a stop."""
        if self.rows is None:
            return stop
        return ops.take(self.intervals, stop)

    def batch(self, stop, start, end) -> Batch:
        """The steps from distance `start` to `end` from the stops. All are `(n,)`."""
        problem, length = self.problem, ops.take(self.lengths, stop)
        sign, nodes = problem.direction, np.array(problem.solver.nodes, problem.dtype)
        if self.rows is None:
            # A step scales with the interval between the times around it.
            share = length / ops.stop_gradient(length)
            start, end = start * share, end * share
        before, behind = (ops.take(self.times, stop + i)[:, None] for i in (0, 1))
        edges = before + sign * ops.stack([start, end], axis=1)
        # If times are tensors, neither the direction nor the derivative is known.
        forwards = None if self.rows is None else sign > 0
        edges = nearest(edges, before, behind, forwards)
        first, last = edges[:, :1], edges[:, 1:]
        last = ops.where((end >= length)[:, None], behind, last)
        times = between(first, last, ops.convert_to_tensor(nodes[None]), forwards)
        weights = problem.field.weights
        located = weights.locate(first[:, 0], last[:, 0], times, problem.dtype)
        return Batch(sign * (end - start), times, located)


def eps(dtype: str) -> float:
    return float(np.finfo(dtype).eps)
