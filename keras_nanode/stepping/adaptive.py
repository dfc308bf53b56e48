"""Steps whose lengths are chosen by an estimate of their error."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks
from keras_nanode.arrays import take, vector, where
from keras_nanode.stepping.adaptive_loop import Attempt, adaptive_loop
from keras_nanode.stepping.checkpoints import Doubling, Growing, Rule
from keras_nanode.stepping.control import error_norm
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.step import Steps
from keras_nanode.stepping.stepping import Replayable, Solution
from keras_nanode.stepping.stops import Stops
from keras_nanode.structures import (
    buffers,
    nan_rows,
    select,
    stack,
    stacked,
    write,
    zeros_like,
)
from keras_nanode.tree import Structure

# Steps take memory beforehand: a larger number is a mistake, or an attack in a file.
MOST_STEPS = 10**7
# All intervals between output times share this number of steps, if `max_steps` is not
# larger, and as many as each may have on average.
_SHARED, _PER_OUTPUT = 4096, 16


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Adaptive(Replayable):
    """Steps whose lengths keep the estimated error of each within tolerances.

    A step is accepted if the root mean square of error / (atol + rtol max(|y|, |y'|))
    over the whole state is at most 1, where y' is the state after the step. A PI
    controller chooses the next length (Hairer, Norsett and Wanner, Solving Ordinary
    Differential Equations I, section II.4, and II, section IV.2). No step crosses an
    output time or a breakpoint of the weights' basis.

    Only the error of the state counts. A solution at rest has none, so steps grow up to
    the whole interval. The gradient of such steps, which `"checkpoint"` and `"direct"`
    find exactly, is then as coarse as they are, at any tolerance: dy(1)/dy0 of y' = -y
    at y0 = 0 is 0.3681 instead of 0.3679. `"backsolve"` controls the error of the
    gradient as well.

    Args:
        rtol: Non-negative number, tolerance relative to the state.
        atol: Non-negative number, absolute tolerance. `rtol` or `atol` must be above 0.
        max_steps: Positive integer, the largest number of attempted steps between two
            output times. A whole solve tries at most `max(max_steps, 4096)`, and 16
            more for each output time, since the record of the steps takes memory
            beforehand. Each output time ends a step, so it costs one at least.

    Raises:
        ValueError: if an argument is invalid.

    Example:

    >>> import keras
    >>> from keras_nanode import Adaptive, layers
    >>> ode = layers.ODE(keras.layers.Dense(3), "tsit5", Adaptive(rtol=1e-3))
    >>> ode(keras.ops.ones((2, 3))).shape[1]
    3
    """

    rtol: float = 1e-4
    atol: float = 1e-6
    max_steps: int = 4096

    def __post_init__(self):
        for name in ("rtol", "atol"):
            value = checks.number(
                name,
                getattr(self, name),
                "a finite number of at least 0",
                lambda x: x >= 0,
            )
            # Store a float, also for a NumPy number.
            object.__setattr__(self, name, value)
        if self.rtol == self.atol == 0:
            raise ValueError(
                "`rtol` and `atol` must not both be 0, since no step is without error. "
                "Received: rtol=0, atol=0"
            )
        checks.integer("max_steps", self.max_steps, most=MOST_STEPS)

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Adaptive":
        return cls(**checks.config(cls, config))

    @functools.cached_property
    def _norm(self):
        return functools.partial(error_norm, self.rtol, self.atol)

    def _limit(self, problem: Problem) -> Any:
        """The largest number of attempted steps in all."""
        number = problem.num_intervals
        shared = max(self.max_steps, _SHARED) + _PER_OUTPUT * number
        known = isinstance(number, int)
        return min(self.max_steps * number, shared) if known else shared

    def checkpoints(self, problem, num):
        limit = self._limit(problem)
        return Doubling(limit, num) if num else Growing(limit)

    def steps(self, problem, record, checkpoints=None):
        return RecordedSteps(problem, *record)

    def choose(self, problem, y0, params):
        return self._solve(problem, y0, params, _Record(self._limit(problem)))

    def run(self, problem, y0, params, checkpoints=None):
        record = None
        if checkpoints is not None:
            record = _Record(self._limit(problem), checkpoints)
        return self._solve(problem, y0, params, record)

    def _solve(
        self,
        problem: Problem,
        y0: Structure,
        params: Structure,
        record: "_Record | None",
    ) -> Solution:
        intervals, several = problem.num_intervals, problem.several

        def visit(extra: tuple, attempt: Attempt) -> tuple:
            ys, recorded = extra
            ys = write(ys, attempt.row, attempt.y_end) if several else ys
            if record is not None:
                recorded = record.add(recorded, attempt)
            return ys, recorded

        stops = Stops.of(problem)
        extra = (
            buffers(intervals, y0) if several else (),
            record.start(stops, y0) if record is not None else (),
        )
        most = self.max_steps, self._limit(problem)
        state = adaptive_loop(stops, self._norm, most, params, y0, extra, visit=visit)
        ys, recorded = state["extra"]
        if several:
            ys = stacked(ys)
            xp = ops if ops.is_tensor(state["reached"]) else np
            unreached = xp.arange(intervals, dtype="int32") >= state["reached"]
        else:
            ys = stack([state["y"]])
            unreached = vector(state["status"] != 0)
        solution = Solution(
            nan_rows(ys, unreached), statistics(problem, state), unreached
        )
        if record is None:
            return solution
        edges, passed, *saved = recorded
        taken = (*stacked((edges, passed)), state["accepted"])
        return dataclasses.replace(solution, record=taken, saved=tuple(saved))

    def run_augmented(self, problem, params, system, y):
        weights, solver = problem.field.weights, problem.solver

        def visit(gradient: Structure, attempt: Attempt) -> Structure:
            others = [other for _, other in attempt.results]
            integrals = solver.integrals(attempt.step, others)
            # Select, do not multiply by 0: a rejected attempt may be NaN.
            integrals = select(attempt.ok, integrals, zeros_like(integrals))
            return weights.add_step(params, gradient, integrals, attempt.located)

        state = adaptive_loop(
            Stops.of(problem),
            self._norm,
            (self.max_steps, self._limit(problem)),
            params,
            system.meet(0, y),
            zeros_like(params),
            visit=visit,
            evaluate=system.evaluate,
            meet=system.meet,
        )
        return (state["y"], state["extra"]), state["status"] != 0


class RecordedSteps(Steps):
    """Accepted steps, to be taken again. Only the places of their ends are known.

    Args:
        problem: The problem.
        edges: `(limit + 1,)`, the starts of steps, as distances from the stop before.
        passed: `(limit + 1,)`, the number of stops up to each start.
        count: The number of steps. The rest of `edges` is not used.
    """

    batch_size = 1

    def __init__(self, problem: Problem, edges: Any, passed: Any, count: Any):
        self.problem, self.count, self.stops = problem, count, Stops.of(problem)
        # Recorded in eager mode, they are arrays even if the gradient is a graph's.
        self.edges = self.stops.constant(edges, problem.dtype)
        self.passed = self.stops.constant(passed, "int32")
        most = edges.shape[0]
        self.limit = (ops.shape(edges)[0] if most is None else most) - 1

    def interval(self, i):
        return self.stops.interval(take(self.passed, i))

    def loop(self, count, body, state, limit=None):
        return backend.fori_loop(count, body, state, limit)

    def batch(self, first):
        start, end = (take(self.edges, [first + i]) for i in (0, 1))
        stop, behind = (take(self.passed, [first + i]) for i in (0, 1))
        end = where(behind > stop, self.stops.length(stop), end)
        return self.stops.batch(stop, start, end)


@dataclasses.dataclass(frozen=True)
class _Record:
    """Records the places of accepted steps, at most `limit`, and the states that a rule
    keeps."""

    limit: Any
    rule: Rule | None = None

    def start(self, stops: Stops, y0: Structure) -> tuple:
        zeros = stops.constant(0.0, stops.problem.dtype), stops.constant(0, "int32")
        edges, passed = (backend.buffer(self.limit + 1, x) for x in zeros)
        if self.rule is None:
            return edges, passed, (), ()
        mark = stops.constant(self.rule.first_mark, "int32")
        return edges, passed, self.rule.start(y0), mark

    def add(self, recorded: tuple, attempt: Attempt) -> tuple:
        # The next attempt overwrites a rejected one.
        edges, passed, saved, mark = recorded
        i = attempt.accepted
        edges, passed = write((edges, passed), i + 1, attempt.place)
        if self.rule is not None:
            saved, mark = self.rule.keep(saved, mark, i, attempt.y)
        return edges, passed, saved, mark


def statistics(problem: Problem, state: dict) -> dict:
    """`Solution.stats`, computed from the counters of a loop."""
    sign = problem.direction
    counts = {
        "num_steps": state["tried"],
        "num_accepted": state["accepted"],
        "num_rejected": state["tried"] - state["accepted"],
        "num_fevals": state["num_fevals"],
        "status": state["status"],
        "reached": state["reached"],
    }
    places = {
        "t": ops.cast(problem.times[0], problem.dtype) + sign * state["distance"],
        "h": sign * state["h"],
    }
    return {
        **{k: ops.cast(x, "int32") for k, x in counts.items()},
        **{k: ops.cast(x, problem.dtype) for k, x in places.items()},
    }
