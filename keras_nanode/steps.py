"""What is solved, and its steps laid out in time.

Steps are numbered through from 0, over all intervals between neighbouring output times.
`FixedSteps` are laid out before a solve; `RecordedSteps` are those that an adaptive
solve accepted.
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
        times: Where y is wanted, in one direction: float64, or a tensor of `dtype`.
        dtype: What times are computed in.
    """

    field: VectorField
    solver: Solver
    times: Any
    dtype: str

    @property
    def num_intervals(self) -> int:
        return self.times.shape[0] - 1

    @property
    def slots(self) -> list[int]:
        return self.field.weights.slots(self.solver.places)

    def reverse(self) -> "Problem":
        """The same backwards in time."""
        planned = isinstance(self.times, np.ndarray)
        times = self.times[::-1] if planned else ops.flip(self.times)
        return dataclasses.replace(self, times=times)


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
        self.problem, self.steps, self.batch = problem, steps, batch
        self.count = self.limit = problem.num_intervals * steps
        times, places = problem.times, problem.solver.places
        of = np if isinstance(times, np.ndarray) else ops
        fractions = of.reshape(np.arange(steps + 1) / steps, (1, -1))
        if of is ops:
            fractions = ops.cast(fractions, problem.dtype)
        edges = between(times[:-1, None], times[1:, None], fractions)
        start = of.reshape(edges[:, :-1], (-1,))
        end = of.reshape(edges[:, 1:], (-1,))
        at = of.stack([between(start, end, place) for place in places], axis=1)
        self.h = ops.convert_to_tensor(end - start, problem.dtype)
        self.times = ops.convert_to_tensor(at, problem.dtype)
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
        evaluations = self.count * self.problem.solver.evaluations
        if evaluations > backend.most_unrolled() or not isinstance(count, int):
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


class RecordedSteps:
    """Steps of which only the accepted times are known, as offsets from the first.

    Args:
        problem: What is solved.
        edges: `(limit + 1,)` distances from `problem.times[0]`.
        count: Scalar, how many steps there are; the rest of `edges` is not used.
        arrivals: `(intervals,)`, how many steps end at each output time or before.
    """

    batch = 1
    loop = staticmethod(backend.fori_loop)

    def __init__(self, problem: Problem, edges, count, arrivals):
        self.problem, self.edges = problem, edges
        self.count, self.arrivals = count, arrivals
        self.limit = edges.shape[0] - 1

    def interval(self, i):
        return ops.sum(ops.cast(self.arrivals <= i, "int32"))

    def rows(self, first):
        ends = (ops.take(self.edges, [first + i]) for i in (0, 1))
        return step_rows(self.problem, *ends)


Steps = FixedSteps | RecordedSteps


def direction(problem: Problem):
    """1 forwards in time, -1 backwards."""
    first, last = problem.times[0], problem.times[-1]
    if isinstance(problem.times, np.ndarray):
        return float(np.sign(last - first))
    return ops.sign(last - first)


def step_rows(problem: Problem, start, end):
    """As `FixedSteps.rows`, of steps between offsets `start` and `end`."""
    places, sign = problem.solver.places, direction(problem)
    t0 = ops.cast(problem.times[0], problem.dtype)
    first, last = t0 + sign * start, t0 + sign * end
    times = [between(first, last, place) for place in places]
    located = problem.field.weights.locate(first, last, places, problem.dtype)
    return sign * (end - start), ops.stack(times, axis=1), located, None


def single_step(problem: Problem, params, start, end):
    """The step between two offsets, and what its times were located as."""
    h, times, located, _ = step_rows(problem, start[None], end[None])
    weights = problem.field.weights
    theta = weights.at(weights.prepare(params, located), 0)
    return Step(problem, h[0], times[0], theta), located
