"""The stops: the times at which adaptive steps have to end."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_nanode.arrays import loops_in_python, take, where
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.step import Batch
from keras_nanode.vector_field import between, nearest


@dataclasses.dataclass(frozen=True)
class Stops:
    """Output times, and breakpoints of the weights.

    A place in time is stored as a stop and the distance from it. So rounding loses no
    small distance, even if the first time is large or two times are close.

    If Python runs the loop over the steps and the times are known, places are numbers,
    and the tensors below are arrays in float64.

    Attributes:
        problem: The problem.
        times: The first time and the stops.
        lengths: The distance of each stop from the one before.
        at: The distances of the first time and of the stops from the first time.
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
            at = ops.cast(abs(times - times[0]), dtype)
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
        at = np.append(0.0, at)
        times, lengths = np.append(times[0], stops), np.diff(at)
        intervals = np.append(rows, problem.num_intervals).astype("int32")
        if not loops_in_python():
            # Make tensors once, outside the loops that use them.
            floats = (x.astype(dtype) for x in (times, lengths, at))
            times, lengths, at = map(ops.convert_to_tensor, floats)
            intervals = ops.convert_to_tensor(intervals)
        return cls(problem, times, lengths, at, rows, jumps, len(rows), intervals)

    @property
    def is_known(self) -> bool:
        """Whether places are numbers."""
        return isinstance(self.at, np.ndarray)

    def constant(self, x: Any, dtype: str) -> Any:
        """A number or an array, as a tensor unless places are numbers."""
        return x if self.is_known else ops.convert_to_tensor(x, dtype)

    def length(self, stop):
        """The distance to the next stop, without a gradient."""
        length = take(self.lengths, stop)
        return ops.stop_gradient(length) if self.rows is None else length

    def interval(self, stop):
        """The interval between output times that contains the step after a stop."""
        return stop if self.rows is None else take(self.intervals, stop)

    def batch(self, stop: Any, start: Any, end: Any) -> Batch:
        """The steps from distance `start` to `end` from the stops. All are `(n,)`."""
        problem, of = self.problem, np if self.is_known else ops
        sign, length = problem.direction, take(self.lengths, stop)
        if self.rows is None:
            # A step scales with the interval between the times around it.
            share = length / ops.stop_gradient(length)
            start, end = start * share, end * share
        before, behind = (take(self.times, stop + i)[:, None] for i in (0, 1))
        edges = before + sign * of.stack([start, end], axis=1)
        # If times are tensors, neither the direction nor the derivative is known.
        forwards = None if self.rows is None else sign > 0
        edges = nearest(edges, before, behind, forwards)
        first, last = edges[:, :1], edges[:, 1:]
        last = where((end >= length)[:, None], behind, last)
        nodes = self.constant(np.array([problem.solver.nodes]), problem.dtype)
        times = between(first, last, nodes, forwards)
        weights = problem.field.weights
        located = weights.locate(first[:, 0], last[:, 0], times, problem.dtype)
        times = ops.convert_to_tensor(times, problem.dtype)
        return Batch(sign * (end - start), times, located)


def eps(dtype: str) -> float:
    return float(np.finfo(dtype).eps)
