"""The stops: the times at which adaptive steps have to end."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_nanode.arrays import as_tensor, loops_in_python, namespace, take, where
from keras_nanode.fields.pieces import between, nearest, rounding
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.step import Batch


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
        number: The number of stops. Later entries are not used.
        intervals: The number of output times among the first 0, 1, 2, ... stops: the
            interval between output times behind each. None if all stops are outputs.
        jumps: After which stops the weights jump. None if they never do.
        pieces: The piece between breakpoints before each stop. None if there are none.
    """

    problem: Problem
    times: Any
    lengths: Any
    at: Any
    number: Any
    intervals: Any = None
    jumps: Any = None
    pieces: Any = None

    @classmethod
    def of(cls, problem: Problem) -> "Stops":
        times, number, dtype = problem.times, problem.num_used, problem.dtype
        others: dict = {}
        if problem.field.weights.breakpoints:
            times, number, others = _with_breakpoints(problem)
        lengths, at = abs(times[1:] - times[:-1]), abs(times - times[0])
        if not (isinstance(times, np.ndarray) and loops_in_python()):
            # Make tensors once, outside the loops that use them.
            times, lengths, at = (as_tensor(x, dtype) for x in (times, lengths, at))
            others = {key: ops.convert_to_tensor(x) for key, x in others.items()}
        return cls(problem, times, lengths, at, number, **others)

    @property
    def are_numbers(self) -> bool:
        """Whether places are numbers."""
        return isinstance(self.at, np.ndarray)

    @property
    def move(self) -> bool:
        """Whether stops may have a gradient."""
        return ops.is_tensor(self.problem.times)

    def constant(self, x: Any, dtype: str) -> Any:
        """A number or an array, as a tensor unless places are numbers."""
        return x if self.are_numbers else ops.convert_to_tensor(x, dtype)

    def length(self, stop):
        """The distance to the next stop, without a gradient."""
        length = take(self.lengths, stop)
        return ops.stop_gradient(length) if self.move else length

    def interval(self, stop):
        """The interval between output times that contains the step after a stop."""
        return stop if self.intervals is None else take(self.intervals, stop)

    @property
    def inner_outputs(self) -> Any:
        """Whether each stop is an output time, but not the last."""
        number = self.lengths.shape[0]
        number = ops.shape(self.lengths)[0] if number is None else number
        indices = namespace(self.at).arange(number, dtype="int32")
        inner = indices + 1 < self.number
        if self.intervals is None:
            return inner
        return inner & (self.intervals[1:] != self.intervals[:-1])

    def batch(self, stop: Any, start: Any, end: Any) -> Batch:
        """The steps from distance `start` to `end` from the stops. All are `(n,)`."""
        problem, xp = self.problem, namespace(self.at)
        sign, length = problem.direction, take(self.lengths, stop)
        if self.move:
            # A step scales with the interval between the stops around it.
            fixed = ops.stop_gradient(length)
            share = length / ops.where(fixed > 0, fixed, 1)
            start, end = start * share, end * share
        before, behind = (take(self.times, stop + i)[:, None] for i in (0, 1))
        edges = before + sign * xp.stack([start, end], axis=1)
        # If times are tensors, neither the direction nor the derivative is known.
        forwards = None if self.move else sign > 0
        edges = nearest(edges, before, behind, forwards)
        first, last = edges[:, :1], edges[:, 1:]
        last = where((end >= length)[:, None], behind, last)
        nodes = self.constant(np.array([problem.solver.nodes]), problem.dtype)
        times = between(first, last, nodes, forwards)
        piece = None if self.pieces is None else take(self.pieces, stop)
        located = problem.field.weights.locate(
            piece, first[:, 0], last[:, 0], times, problem.dtype
        )
        times = ops.convert_to_tensor(times, problem.dtype)
        return Batch(sign * (end - start), times, located)


def _with_breakpoints(problem: Problem) -> tuple[Any, Any, dict]:
    """`times`, `number`, and the attributes after it, of the stops of a problem.

    Of times that are a tensor, only their number may be known yet. Then there is an
    entry for each time and breakpoint, with those that are no stop behind the others.
    """
    times, most = problem.times, problem.num_intervals
    xp, weights = namespace(times), problem.field.weights
    edges, ahead, alone, on_jumps = _breakpoints(problem)
    used = xp.arange(most, dtype="int32") < problem.num_used
    are_stops = xp.concatenate([used, alone])
    number = xp.cumsum(are_stops, dtype="int32")[-1]
    size = most + len(weights.breakpoints)
    if xp is np:
        size = number = int(number)
    # A finite key for the others: a check for infinities in a graph would find one.
    outputs = abs(times[1:] - times[0])
    keys = xp.where(are_stops, xp.concatenate([outputs, ahead]), 1 + 2 * outputs[-1])
    order = xp.argsort(keys)[:size]
    order = xp.where(xp.arange(size, dtype="int32") < number, order, most - 1)
    passed = xp.cumsum(order < most, dtype="int32")
    jumps = take(xp.concatenate([on_jumps, alone]), order)
    if xp is ops:
        # A jump does not move with an output time that is on it.
        fixed = ops.where(on_jumps, ops.stop_gradient(times[1:]), times[1:])
        times = ops.concatenate([times[:1], fixed])
    stops = take(xp.concatenate([times[1:], edges]), order)
    times = xp.concatenate([times[:1], stops])
    others = {
        "intervals": xp.concatenate([passed[:1] * 0, passed]),
        "pieces": weights.pieces(times[:-1], times[1:]),
    }
    if xp is ops or jumps.any():
        others["jumps"] = jumps
    return times, number, others


def _breakpoints(problem: Problem) -> tuple[Any, Any, Any, Any]:
    """The breakpoints, their distances ahead of the first time, which of them are stops
    of their own, and which output times are on one."""
    times, xp = problem.times, namespace(problem.times)
    edges = np.array(problem.field.weights.breakpoints)
    edges = edges if xp is np else ops.convert_to_tensor(edges, times.dtype)
    outputs = abs(times[1:] - times[0])
    ahead = (edges - times[0]) * xp.sign(times[-1] - times[0])
    inside = (ahead > 0) & (ahead < outputs[-1]) & (problem.num_used > 0)
    # A breakpoint within rounding error of the first or an output time equals it.
    least = rounding(times, problem.dtype)
    near = inside[:, None] & (abs(ahead[:, None] - outputs) <= least)
    alone = inside & (ahead > least) & ~xp.any(near, axis=1)
    return edges, ahead, alone, xp.any(near, axis=0)


def on_jumps(problem: Problem) -> Any:
    """`(intervals,)`, at which output times the weights jump. None if they never do."""
    return _breakpoints(problem)[-1] if problem.field.weights.breakpoints else None
