"""What is solved, and equal steps laid out in time.

Steps are numbered through from 0, over all intervals between neighbouring output times.
`FixedSteps` are laid out before a solve; the `RecordedSteps` of `stops` are those that
an adaptive solve accepted.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
from keras import ops, tree

from keras_nanode import backend
from keras_nanode.solvers import RungeKutta, Solver
from keras_nanode.vector_field import Structure, VectorField, add, between, pieces


@dataclasses.dataclass(frozen=True)
class Problem:
    """dy/dt = field, from `times[0]` on.

    Attributes:
        field: The vector field.
        solver: The solver.
        times: Where y is wanted, in one direction and different: float64, or a
            floating tensor, of which gradients may be taken.
        dtype: What steps are computed in.
        count: How many intervals between the times there are, if that is a tensor: the
            times behind them are not used.
    """

    field: VectorField
    solver: Solver
    times: Any
    dtype: str
    count: Any = None

    @property
    def num_intervals(self):
        """How many there are at most; a tensor if the number of times is not known."""
        number = self.times.shape[0]
        return (ops.shape(self.times)[0] if number is None else number) - 1

    @property
    def num_used(self):
        """How many there are."""
        return self.num_intervals if self.count is None else self.count

    def batch(self, steps: int, size) -> int:
        """For how many steps weights are made at once: `size(steps in all)`, or 1 where
        that number is a tensor, since no loop of such a length can be differentiated
        within another."""
        return size(self.num_intervals * steps) if self.count is None else 1

    @property
    def several(self) -> bool:
        number = self.num_intervals
        return not isinstance(number, int) or number > 1

    @property
    def slots(self) -> list[int]:
        return self.field.weights.slots(self.solver.places)

    def reverse(self) -> "Problem":
        """The same backwards in time."""
        if isinstance(self.times, np.ndarray):
            return dataclasses.replace(self, times=self.times[::-1])
        last = ops.cast(self.num_used, "int32")
        numbers = last - ops.arange(self.num_intervals + 1, dtype="int32")
        numbers = ops.where(numbers > 0, numbers, 0)
        return dataclasses.replace(self, times=ops.take(self.times, numbers))


class Step:
    """One step: its length, and the vector field at its places."""

    def __init__(self, problem: Problem, h, times, theta: list[Structure], jumps=None):
        self.problem, self.h, self.times = problem, h, times
        self.theta, self.jumps = theta, jumps

    def unit(self) -> "Step":
        """The same step as one of length 1 of the vector field h f, where weights can
        take the factor: that saves a product with the whole state."""
        func, scale = self.problem.field.func, self.problem.field.scale
        # Slopes that are carried on would be those of the step before, of another h.
        if scale is None or self.problem.solver.carries_slopes:
            return self
        field = VectorField(
            lambda t, y, theta: func(t, y, scale(theta, self.h)),
            self.problem.field.weights,
        )
        problem = dataclasses.replace(self.problem, field=field)
        return Step(problem, 1.0, self.times, self.theta, self.jumps)

    def slopes(self, theta: list[Structure]):
        """The vector field at places of the step, of the given weights."""
        problem = self.problem

        def f(place, y):
            i = problem.solver.places.index(place)
            return problem.field.func(self.times[i], y, theta[problem.slots[i]])

        return f

    def linearize(self, place, y):
        """The slope at a place, and its pullback to y and the weights there."""
        slot = self.problem.slots[self.problem.solver.places.index(place)]
        return backend.vjp(
            lambda y, theta: self.slopes([theta] * len(self.theta))(place, y),
            y,
            self.theta[slot],
        )

    def pull(self, state, cotangent):
        """From the cotangent of the state after the step to that before it, and those
        of the step's weights."""
        problem = self.problem
        if not isinstance(problem.solver, RungeKutta):
            _, pullback = backend.vjp(self.take, state, self.theta)
            return pullback(cotangent)
        before, in_stages = problem.solver.pull(
            self.linearize, self.h, state, cotangent
        )
        in_theta = tree.map_structure(ops.zeros_like, self.theta)
        places = problem.solver.tableau.c
        # A stage for the error's estimate alone has no part in it.
        for place, in_stage in zip(places, in_stages, strict=False):
            slot = problem.slots[problem.solver.places.index(place)]
            in_theta[slot] = add(in_theta[slot], in_stage)
        return before, in_theta

    def _slopes_before(self, theta):
        """At the start, with the weights that the step before had there."""
        return self.slopes([theta[-1]] * len(theta))

    def enter(self, state, theta: list[Structure]):
        """The state at the start, if the weights jump there."""
        solver = self.problem.solver
        return solver.enter(self.slopes(theta), self._slopes_before(theta), state)

    def take(self, state, theta: list[Structure]):
        """The state after the step."""
        if self.jumps is not None:
            state = when(self.jumps, lambda state: self.enter(state, theta), state)
        return self.problem.solver.step(self.slopes(theta), self.h, state)

    def undo(self, state, theta: list[Structure]):
        """The state before the step."""
        solver, f = self.problem.solver, self.slopes(theta)
        state = solver.undo(f, self.h, state)
        if self.jumps is None:
            return state
        before = self._slopes_before(theta)
        return when(self.jumps, functools.partial(solver.leave, f, before), state)


def when(condition, f, state):
    """`f(state)` if the scalar condition holds, else `state`."""
    # A loop of one round or none: tf2onnx loses the shapes of a loop with a branch.
    count = ops.cast(condition, "int32")
    return backend.fori_loop(count, lambda i, state: f(state), state, limit=1)


class FixedSteps:
    """`steps` equal steps between neighbouring times, laid out beforehand.

    Their lengths and times are computed in float64 from integers before they are
    rounded.

    Args:
        problem: What is solved.
        steps: Positive integer, steps between neighbouring times.
        batch: Positive integer, for how many steps weights are made at once.
    """

    def __init__(self, problem: Problem, steps: int, batch: int):
        self.problem, self.steps = problem, steps
        self.batch = batch
        self.count = problem.num_used * steps
        self.limit = problem.num_intervals * steps
        times, places = problem.times, problem.solver.places
        of = np if isinstance(times, np.ndarray) else ops
        fractions = of.reshape(np.arange(steps + 1) / steps, (1, -1))
        if of is ops:
            fractions = ops.cast(fractions, times.dtype)
        edges = between(times[:-1, None], times[1:, None], fractions)
        start = of.reshape(edges[:, :-1], (-1,))
        end = of.reshape(edges[:, 1:], (-1,))
        at = of.stack([between(start, end, place) for place in places], axis=1)
        lengths = of.repeat((times[1:] - times[:-1]) / steps, steps)
        self.h = _tensor(lengths, problem.dtype)
        self.times = _tensor(at, problem.dtype)
        self.jumps = None
        weights = problem.field.weights
        self.located = weights.locate(start, end, places, problem.dtype)
        if problem.solver.carries_slopes and weights.breakpoints:
            piece = pieces(weights.breakpoints, start, end, problem.dtype)
            jumps = np.append(False, piece[1:] != piece[:-1])
            self.jumps = ops.convert_to_tensor(jumps)
            self.located += weights.locate_before(start, end, problem.dtype)

    def loop(self, count, body, state, limit=None):
        """As `backend.fori_loop`, over steps or what they are divided into."""
        numbers = isinstance(count, int) and isinstance(self.count, int)
        evaluations = self.limit * self.problem.solver.evaluations
        if not numbers or evaluations > backend.most_unrolled():
            return backend.fori_loop(count, body, state, limit)
        for i in range(count):
            state = body(i, state)
        return state

    def interval(self, i):
        """Which interval step i is in."""
        return i // self.steps

    def rows(self, first):
        """Lengths, times, located times and jumps of a batch of steps from `first`."""
        # A short last batch would run over the end: those rows are never used.
        numbers = ops.minimum(
            first + ops.arange(self.batch, dtype="int32"), self.limit - 1
        )

        def row(x):
            return ops.take(x, numbers, axis=0)

        jumps = None if self.jumps is None else row(self.jumps)
        located = [row(x) for x in self.located]
        return row(self.h), row(self.times), located, jumps


def _tensor(x, dtype):
    """As a tensor of a dtype: cast if it is one."""
    return (
        ops.convert_to_tensor(x, dtype)
        if isinstance(x, np.ndarray)
        else ops.cast(x, dtype)
    )
