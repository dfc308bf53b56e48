"""The loop of an adaptive solve, forwards or for a system of cotangents."""

import functools
import operator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_nanode import backend
from keras_nanode.adaptive.control import Adaptive, Status
from keras_nanode.solve import select
from keras_nanode.solvers import stages
from keras_nanode.steps import Problem, Step, when
from keras_nanode.stops import Stops, direction, eps, single_step
from keras_nanode.vector_field import Structure, advance, increment


def _tiny(dtype) -> float:
    return float(np.finfo(keras.backend.standardize_dtype(dtype)).tiny)


# By how much errors are, so that those of a small state are not too small for float32.
_MAGNIFIED = 2.0**16


def _evaluate(step, place, y):
    """A slope, and what else an evaluation gives: here nothing."""
    return step.slopes(step.theta)(place, y), ()


def _attempt(step, evaluate, y, first):
    """A step of an embedded pair: y', the error's estimate and the stages' results."""
    tableau = step.problem.solver.tableau
    f = functools.partial(evaluate, step)
    results = stages(tableau, f, step.h, y, first, embedded=True)
    slopes = [slope for slope, _ in results]
    end = advance(y, step.h, tableau.b, slopes)
    return end, _error(tableau, step.h, y, slopes), results


def _error(tableau, h, y, slopes):
    """The estimate, magnified. Of the slopes' differences: its weights add up to 0, and
    equal slopes have no error, whatever their size rounds to."""
    weights = [_MAGNIFIED * weight for weight in tableau.error_weights[1:]]
    others = [
        tree.map_structure(operator.sub, slope, slopes[0]) if weight else slope
        for weight, slope in zip(weights, slopes[1:], strict=True)
    ]
    return increment(y, h, weights, others)


def integrals(step: Step, results) -> list[Structure]:
    """The integral over a step of what else its stages' results hold, for each slot."""
    solver, slots = step.problem.solver, step.problem.slots
    others = [other for _, other in results]
    totals = []
    for slot in range(max(slots) + 1):
        b = [
            weight * (slots[solver.places.index(place)] == slot)
            for weight, place in zip(solver.tableau.b, solver.tableau.c, strict=True)
        ]
        totals.append(increment(others[0], step.h, b[: len(others)], others))
    return totals


def _initial_step(problem, control, evaluate, y, first, step_to, most, least):
    """Hairer, Norsett and Wanner I, section II.4, between `least` and `most`."""
    place, dtype = problem.solver.places[-1], problem.dtype
    d0, d1 = (ops.cast(control.norm(x, y), dtype) for x in (y, first[0]))
    # Without a scale: of the state, or of a slope where the state is 0.
    unknown = (d0 < 1e-5) | (d1 < 1e-5) | ~ops.isfinite(d1)
    h0 = ops.where(unknown, ops.cast(1e-6, dtype), 0.01 * d0 / d1)
    h0 = ops.where(h0 > least, h0, least)
    h0 = ops.where(h0 < most, h0, most)
    step, _ = step_to(h0)
    probe = advance(y, direction(problem) * h0, (place,), [first[0]])
    slope, _ = evaluate(step, place, probe)
    change = tree.map_structure(lambda a, b: a - b, slope, first[0])
    # Over h0 the second derivative, which may be too large for the dtype.
    d2 = ops.cast(control.norm(change, y), dtype) / place
    exponent = 1 / problem.solver.order
    by_slope, by_change = (_power(0.01, exponent, d) for d in (d1, d2))
    by_change = by_change * h0**exponent
    h1 = ops.where(by_change < by_slope, by_change, by_slope)
    tiny = ops.where(h0 * 1e-3 > 1e-6, h0 * 1e-3, ops.cast(1e-6, dtype))
    h1 = ops.where((d1 <= 1e-15) & (d2 <= 1e-15 * h0), tiny, h1)
    h1 = ops.where((h1 < 100 * h0) & ops.isfinite(d1), h1, 100 * h0)
    return ops.where(h1 > least, h1, least)


def _power(numerator: float, exponent: float, x):
    """(numerator / x) ** exponent, where the fraction may be too small."""
    x = ops.where(x > 0, x, _tiny(x.dtype))
    return numerator**exponent * x**-exponent


def march(
    problem: Problem,
    control: Adaptive,
    params: Structure,
    y0: Structure,
    extra: Any,
    evaluate=_evaluate,
    visit=lambda extra, **_: extra,
    arrive=None,
) -> dict:
    """Steps from the first time to the last.

    Args:
        problem: What is solved, with an embedded pair for a solver.
        control: Tolerances.
        params: The parameters of the vector field.
        y0: The state at the first time.
        extra: What `visit` carries on.
        evaluate: `evaluate(step, place, y)` gives a slope of y and something else.
        visit: `extra = visit(extra, y=..., accepted=..., ok=..., y_end=..., place=...,
            row=..., step=..., located=..., results=...)` at each attempt: the state and
            the number of accepted steps before it, whether it is accepted, the state
            and the place after it (a distance from a stop, and how many stops there
            were), which interval it is in, and its stages.
        arrive: `y = arrive(row, y)` changes the state at each output time but the last.

    Returns:
        A dict of the last loop state: `y`, `h`, `status`, `accepted`, `tried`,
        `num_fevals`, `extra`, `reached` (how many output times) and `distance` (from
        the first time).
    """
    loop = _Loop(problem, control, params, evaluate, visit, arrive)
    (c,) = backend.while_loop(loop.goes_on, loop.body, (loop.start(y0, extra),))
    stops = loop.stops
    unfinished = (c["status"] == 0) & (c["stop"] < stops.number)
    status = ops.where(unfinished, int(Status.MAX_STEPS), c["status"])
    return {
        **c,
        "status": ops.cast(status, "int32"),
        "reached": loop.row(c["stop"]),
        "distance": loop.distance(c),
    }


class _Loop:
    """The state of the loop is a dict, and lengths in it are distances."""

    def __init__(self, problem, control, params, evaluate, visit, arrive):
        self.problem, self.control, self.params = problem, control, params
        self.evaluate, self.visit, self.arrive = evaluate, visit, arrive
        self.tableau = problem.solver.tableau
        self.stops = stops = Stops.of(problem)
        self.arrives, self.has_jumps = arrive is not None and problem.several, False
        if stops.rows is None:
            self.has_jumps = self.arrives
            return
        outputs = np.append(stops.rows[1:] != stops.rows[:-1], False)
        # After these the slope at y is not that of the last stage before.
        renews = stops.jumps | outputs if self.arrives else stops.jumps
        self.has_jumps = bool(renews.any())
        rows = np.append(stops.rows, problem.num_intervals)
        self.rows = ops.convert_to_tensor(rows.astype("int32"))
        self.outputs = ops.convert_to_tensor(outputs)
        self.renews = ops.convert_to_tensor(renews)

    def row(self, stop):
        """In which interval between output times what follows on stops is."""
        return stop if self.stops.rows is None else ops.take(self.rows, stop)

    def distance(self, c):
        """How far the first time is."""
        at = ops.concatenate([ops.zeros_like(self.stops.at[:1]), self.stops.at])
        return ops.take(at, c["stop"]) + c["s"]

    def _turns(self, stop):
        """Whether y changes on arriving at a stop, and whether the slope does."""
        if self.stops.rows is None:
            inner = self.arrives & (stop + 1 < self.stops.number)
            return inner, inner
        return ops.take(self.outputs, stop), ops.take(self.renews, stop)

    def step(self, stop, start, end):
        args = self.problem, self.stops, self.params, stop, start, end
        return single_step(*args)

    def start(self, y0, extra) -> dict:
        lengths, none = self.stops.lengths, ops.convert_to_tensor(0, "int32")
        zero, most = ops.zeros_like(lengths[0]), lengths[0]
        step, _ = self.step(none, zero, most)
        first = self.evaluate(step, 0.0, y0)
        # Shorter ones `_status` takes for lost.
        least = 16 * eps(self.problem.dtype) ** 2 * self.stops.at[-1]
        h = _initial_step(
            self.problem,
            self.control,
            self.evaluate,
            y0,
            first,
            lambda h: self.step(none, zero, h),
            most,
            least,
        )
        return {
            "s": zero,
            "h": h,
            "y": y0,
            # The slope at y, if a step's last stage is the next one's first.
            "first": first if self.tableau.first_same_as_last else (),
            "stale": ops.convert_to_tensor(False),
            "norm": zero + 1.0,
            "stop": none,
            "tried": none,
            "accepted": none,
            "num_fevals": none + 2,
            "status": none,
            "extra": extra,
        }

    def goes_on(self, c):
        running = (c["status"] == 0) & (c["stop"] < self.stops.number)
        return running & (c["tried"] < self.control.max_steps)

    def body(self, c):
        y, s, stop = c["y"], c["s"], c["stop"]
        target, row = ops.take(self.stops.lengths, stop), self.row(stop)
        # A little further rather than a tiny step afterwards.
        hits = s + 1.01 * c["h"] >= target
        end = ops.where(hits, target, s + c["h"])
        step, located = self.step(stop, s, end)
        first, num_fevals = self._first(step, c)
        y_end, error, results = _attempt(step, self.evaluate, y, first)
        norm = ops.cast(self.control.norm(error, y, y_end), s.dtype) / _MAGNIFIED
        ok = norm <= 1
        passed = stop + ops.cast(hits, "int32")
        extra = self.visit(
            c["extra"],
            y=y,
            accepted=c["accepted"],
            ok=ok,
            y_end=y_end,
            place=(ops.where(hits, ops.zeros_like(end), end), passed),
            step=step,
            results=results,
            located=located,
            row=row,
        )
        h = (end - s) * self.control.factor(norm, c["norm"], self.tableau.order)
        # A step cut short by a stop does not make the next one short.
        h = ops.where(ok & hits & (c["h"] > h), c["h"], h)
        status = self._status(norm, ops.where(ok, end, s), h, ok & hits)
        s = ops.where(ok, ops.where(hits, ops.zeros_like(s), end), s)
        y = select(ok, y_end, y)
        turns, renews = self._turns(stop)
        if self.arrives:
            arrived = ok & hits & turns
            there = functools.partial(self.arrive, row, y)
            y = ops.cond(arrived, there, lambda: y)
        state = {
            "s": s,
            "h": h,
            "y": y,
            "first": select(ok, results[-1], first) if c["first"] else (),
            "stale": ok & hits & renews,
            "norm": ops.where(ok, norm, c["norm"]),
            "stop": ops.where(ok, passed, stop),
            "tried": c["tried"] + 1,
            "accepted": c["accepted"] + ops.cast(ok, "int32"),
            "num_fevals": num_fevals + self.tableau.num_stages - 1,
            "status": status,
            "extra": extra,
        }
        return (state,)

    def _first(self, step, c):
        """The first stage's result, and the evaluations so far."""
        num_fevals = c["num_fevals"]
        if not self.tableau.first_same_as_last:
            return self.evaluate(step, 0.0, c["y"]), num_fevals + 1
        if not self.has_jumps:
            return c["first"], num_fevals
        first = when(c["stale"], lambda _: self.evaluate(step, 0.0, c["y"]), c["first"])
        return first, num_fevals + ops.cast(c["stale"], "int32")

    def _status(self, norm, s, h, arrived):
        rounding = eps(self.problem.dtype)
        most = rounding * self.stops.at[-1]
        lost = ~arrived & (h <= 4 * rounding * (s + most))
        finite = ops.isfinite(norm)
        cause = ops.where(finite, int(Status.UNDERFLOW), int(Status.NON_FINITE))
        return ops.cast(ops.where(lost, cause, int(Status.SUCCESS)), "int32")
