"""The loop of an adaptive solve, forwards or for an augmented system.

    while the last stop is not reached:
        try a step from the state, shortened if a stop is near
        estimate the error with the embedded pair
        if it is accepted (error <= tolerance): move the state, perhaps onto a stop
        accepted or not: choose the next length from the error

Time is stored as a distance from the stop before, so a large t0 does not round small
steps away. The state of the loop is a dict, and lengths in it are distances.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_nanode import backend, tree
from keras_nanode.arrays import (
    as_integer,
    as_like,
    cond,
    eps,
    isfinite,
    take,
    unrolls_loops,
    vector,
    where,
)
from keras_nanode.stepping.control import first_length, step_factor
from keras_nanode.stepping.status import Status
from keras_nanode.stepping.step import Step
from keras_nanode.stepping.stops import Stops
from keras_nanode.structures import (
    advance,
    apply_if,
    increment,
    select,
    stop_gradient,
)
from keras_nanode.tree import Structure

# Errors are scaled by this factor, so float32 can hold the errors of a small state.
_MAGNIFIED = 2.0**16


class Attempt(NamedTuple):
    """A step that was tried.

    Attributes:
        y: The state before the step.
        accepted: The number of steps accepted before it.
        ok: Whether it is accepted.
        y_end: The state after it.
        place: Its end: the distance from a stop, and the number of stops passed.
        row: The index of its interval between output times.
        step: The step.
        located: The located times of the step, for its weights.
        results: The results of its stages, pairs of a slope and anything else.
    """

    y: Structure
    accepted: Any
    ok: Any
    y_end: Structure
    place: tuple[Any, Any]
    row: Any
    step: Step
    located: Any
    results: list


def evaluate_slope(step: Step, i: int, y: Structure) -> tuple[Structure, tuple[()]]:
    """The slope at node i, and an empty second value."""
    return step.slopes(step.theta)(i, y), ()


def _attempt(step, evaluate, y, first):
    """A step of an embedded pair: its end state, error estimate and stage results."""
    solver = step.problem.solver
    f = functools.partial(evaluate, step)
    results = solver.stages(f, step.h, y, first, embedded=True)
    slopes = [slope for slope, _ in results]
    end = advance(y, step.h, solver.tableau.b, slopes)
    return end, _error(solver.tableau, step.h, y, slopes), results


def _error(tableau, h, y, slopes):
    """The error estimate, magnified.

    The error weights add up to 0, so the estimate can use differences of slopes. Then
    equal slopes have no error, whatever their rounding.
    """
    weights = [_MAGNIFIED * weight for weight in tableau.error_weights[1:]]
    others = [
        tree.map_structure(operator.sub, slope, slopes[0]) if weight else slope
        for weight, slope in zip(weights, slopes[1:], strict=True)
    ]
    return increment(y, h, weights, others)


def adaptive_loop(
    stops: Stops,
    norm: Callable,
    most: tuple[Any, Any],
    params: Structure,
    y0: Structure,
    extra: Any,
    *,
    visit: Callable,
    evaluate: Callable = evaluate_slope,
    meet: Callable | None = None,
) -> dict:
    """Takes steps from the first time to the last.

    Args:
        stops: The stops of the problem, whose solver has an embedded pair.
        norm: `norm(error, *states)`, at most 1 for an accepted step.
        most: The largest numbers of attempted steps: between two output times, and in
            all.
        params: The parameters of the vector field.
        y0: The state at the first time.
        extra: The first value of what `visit` carries.
        visit: `extra = visit(extra, attempt)`, called at each attempt.
        evaluate: `evaluate(step, i, y)` gives a slope of y and something else.
        meet: `y = meet(interval, y)` changes the state at the start of each interval
            except the first.

    Returns:
        A dict with the last loop state: `y`, `h`, `status`, `accepted`, `tried`,
        `num_fevals`, `extra`, `reached` (the number of output times reached) and
        `distance` (from the first time).
    """
    loop = _Loop(stops, norm, most, params, evaluate, visit, meet)
    (state,) = backend.while_loop(loop.goes_on, loop.body, (loop.start(y0, extra),))
    unfinished = (state["status"] == 0) & (state["stop"] < stops.number)
    status = where(unfinished, int(Status.MAX_STEPS), state["status"])
    return {
        **state,
        "status": as_integer(status),
        "reached": stops.interval(state["stop"]),
        "distance": loop.distance(state),
    }


class _Loop:
    def __init__(self, stops, norm, most, params, evaluate, visit, meet):
        problem = stops.problem
        self.stops, self.problem = stops, problem
        self.norm, self.most = norm, most
        self.params, self.evaluate, self.visit = params, evaluate, visit
        self.meet, self.tableau = meet, problem.solver.tableau
        self.meets = meet is not None and problem.several
        # Where y changes, and where the slope at y then differs from that of the last
        # stage before: there, and at jumps of the weights. None for nowhere.
        self.outputs = stops.inner_outputs if problem.several else None
        turns = self.outputs if self.meets else None
        found = [x for x in (turns, stops.jumps) if x is not None]
        self.renews = functools.reduce(operator.or_, found) if found else None

    def distance(self, state):
        """The distance from the first time."""
        return take(self.stops.at, state["stop"]) + state["s"]

    def step(self, stop, start, end):
        """The step between two distances from a stop, and its located times."""
        batch = self.stops.batch(*(vector(x) for x in (stop, start, end)))
        return batch.prepare(self.problem, self.params).step(0), batch.located

    def start(self, y0: Structure, extra: Any) -> dict:
        none, most = self.stops.constant(0, "int32"), self.stops.lengths[0]
        zero = as_like(0.0, most)
        first = self.evaluate(self.step(none, zero, most)[0], 0, y0)
        # `_status` treats shorter steps as an underflow.
        least = 16 * eps(self.problem.dtype) ** 2 * self.stops.at[-1]
        h = first_length(
            self.problem,
            self.norm,
            self.evaluate,
            y0,
            first,
            lambda h: self.step(none, zero, h)[0],
            most,
            least,
        )
        return {
            "s": zero,
            "h": h if self.stops.are_numbers else ops.stop_gradient(h),
            "y": y0,
            # The slope at y, if the last stage of a step is the first of the next.
            "first": first if self.tableau.first_same_as_last else (),
            "stale": self.stops.constant(False, "bool"),
            "norm": zero + 1.0,
            "stop": none,
            "tried": none,
            "most": self.stops.constant(self.most[0], "int32"),
            "accepted": none,
            "num_fevals": none + 2,
            "status": none,
            "extra": extra,
        }

    def goes_on(self, state):
        running = (state["status"] == 0) & (state["stop"] < self.stops.number)
        return running & (state["tried"] < state["most"])

    def body(self, state):
        s, y, stop = state["s"], state["y"], state["stop"]
        target = self.stops.length(stop)
        # Stretch by up to 1 % to end on the stop, rather than add a tiny step.
        hits = s + 1.01 * state["h"] >= target
        end = where(hits, target, s + state["h"])
        step, located = self.step(stop, s, end)
        first, num_fevals = self._first(step, state)
        y_end, error, results = _attempt(step, self.evaluate, y, first)
        sizes = stop_gradient((error, y, y_end))
        norm = as_like(self.norm(*sizes), s) / _MAGNIFIED
        # A Python loop takes only one of two states, so that no gradient passes through
        # a rejected attempt, which may be NaN.
        ok = bool(norm <= 1) if unrolls_loops() else norm <= 1
        passed, row = stop + as_integer(hits), self.stops.interval(stop)
        place = (where(hits, as_like(0.0, end), end), passed)
        attempt = Attempt(
            y, state["accepted"], ok, y_end, place, row, step, located, results
        )
        h = (end - s) * step_factor(norm, state["norm"], self.tableau.order)
        arrived = ok & hits
        # A step cut short by a stop does not make the next one short.
        h = where(arrived & (state["h"] > h), state["h"], h)
        after = {
            "s": where(ok, place[0], s),
            "h": h,
            "y": self._met(stop, row, arrived, select(ok, y_end, y)),
            "first": select(ok, results[-1], first) if state["first"] else (),
            "stale": self._stale(stop, arrived),
            "norm": where(ok, norm, state["norm"]),
            "stop": where(ok, passed, stop),
            "tried": state["tried"] + 1,
            "most": self._most(stop, arrived, state),
            "accepted": state["accepted"] + as_integer(ok),
            "num_fevals": num_fevals + self.tableau.num_stages - 1,
            "status": self._status(norm, where(ok, end, s), h, arrived),
            "extra": self.visit(state["extra"], attempt),
        }
        return (after,)

    def _met(self, stop, row, arrived, y):
        """The state, changed by `meet` if it arrived at the next interval."""
        if not self.meets:
            return y
        arrived = arrived & take(self.outputs, stop)
        return cond(arrived, lambda: self.meet(row + 1, y), lambda: y)

    def _most(self, stop, arrived, state):
        """The largest number of attempted steps up to the next output time."""
        if self.outputs is None:
            return state["most"]
        each, in_all = self.most
        most = state["tried"] + 1 + each
        most = where(most < in_all, most, in_all)
        return where(arrived & take(self.outputs, stop), most, state["most"])

    def _stale(self, stop, arrived):
        """Whether the last stage's slope is not that at the start of the next step."""
        if self.renews is None:
            return self.stops.constant(False, "bool")
        return arrived & take(self.renews, stop)

    def _first(self, step, state):
        """The first stage's result, and the number of function evaluations so far."""
        num_fevals, stale = state["num_fevals"], state["stale"]

        def evaluate(_=None):
            return self.evaluate(step, 0, state["y"])

        if not self.tableau.first_same_as_last:
            return evaluate(), num_fevals + 1
        if self.renews is None:
            return state["first"], num_fevals
        first = apply_if(stale, evaluate, state["first"])
        return first, num_fevals + as_integer(stale)

    def _status(self, norm, s, h, arrived):
        rounding = eps(self.problem.dtype)
        most = rounding * self.stops.at[-1]
        short = h <= 4 * rounding * (s + most)
        cause = where(isfinite(norm), int(Status.UNDERFLOW), int(Status.NON_FINITE))
        status = where(short, cause, int(Status.SUCCESS))
        return as_integer(where(arrived, int(Status.SUCCESS), status))
