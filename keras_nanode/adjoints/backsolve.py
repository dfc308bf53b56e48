"""The continuous adjoint, the paper's."""

import dataclasses
import operator

import keras
from keras import tree

from keras_nanode.adaptive import integrals, march, outcome
from keras_nanode.adjoints.adjoint import (
    Adjoint,
    nan_if,
    nan_if_failed,
    zeros_like,
)
from keras_nanode.solve import balanced, gather, row, select, solve
from keras_nanode.solvers import RungeKutta, stages
from keras_nanode.steps import FixedSteps, Problem, Step
from keras_nanode.vector_field import add, advance


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Backsolve(Adjoint):
    """The continuous adjoint: y and its cotangent a are integrated backwards together.

        dy/dt = f,    da/dt = -a df/dy,    dL/dalpha = -integral of a df/dalpha

    O(1) memory, but the gradient is that of the differential equation and not of its
    discrete solution: it converges to it with the step, at the solver's order. Adaptive
    steps are chosen anew by the error of y and a. A reversible solver is replaced by
    the Runge-Kutta method that it is made of.

    References:
        - [Chen et al., 2018](https://arxiv.org/abs/1806.07366)
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 3
    """

    def check(self, solver):
        del solver

    def fixed(self, problem, steps, y0, params):
        batch = balanced(steps)

        def forward(problem, y0, params):
            ends, _, _ = solve(FixedSteps(problem, steps, batch), y0, params)
            return ends, (params, ends)

        def backward(problem, residuals, cotangents):
            params, ends = residuals
            plan = FixedSteps(_backwards(problem), steps, batch)

            def interval(i, carry):
                a, gradient = carry
                last = problem.num_used - 1 - i
                carry = (row(ends, last), add(a, row(cotangents, last)))
                (_, a), gradient = gather(
                    plan, params, i * steps, steps, _step, carry, gradient, False
                )
                return a, gradient

            carry = (zeros_like(row(ends, 0)), zeros_like(params))
            return plan.loop(problem.num_used, interval, carry)

        return self.with_gradient(problem, forward, backward, y0, params)

    def adaptive(self, problem, control, y0, params):
        def forward(problem, y0, params):
            found, _ = outcome(problem, control, y0, params)
            status = found.stats["status"]
            return (found.ends, found.stats), (params, found.ends, status)

        def backward(problem, residuals, cotangents):
            params, ends, _ = residuals
            cotangents = cotangents[0]
            weights, last = problem.field.weights, problem.num_used - 1

            def visit(gradient, *, ok, step, results, located, **_):
                in_theta = integrals(step, results)
                in_theta = select(ok, in_theta, zeros_like(in_theta))
                return weights.deposit(gradient, in_theta, located)

            def arrive(interval, carry):
                _, a = carry
                here = last - 1 - interval
                return row(ends, here), add(a, row(cotangents, here))

            c = march(
                _backwards(problem),
                control,
                params,
                (row(ends, last), row(cotangents, last)),
                zeros_like(params),
                _evaluate,
                visit,
                arrive,
            )
            return nan_if(c["status"] != 0, (c["y"][1], c["extra"]))

        return self.with_gradient(problem, forward, nan_if_failed(backward), y0, params)


def _backwards(problem: Problem) -> Problem:
    solver = RungeKutta(problem.solver.tableau)
    return dataclasses.replace(problem, solver=solver).reverse()


def _evaluate(step: Step, place, carry):
    """The slopes of y and a, and of the gradient in the stage's weights."""
    y, a = carry
    slope, pullback = step.linearize(place, y)
    slope_a, in_theta = tree.map_structure(operator.neg, pullback(a))
    return (slope, slope_a), in_theta


def _step(i, step: Step, carry):
    """One Runge-Kutta step of (y, a), and the integral of a df/dtheta over it."""
    tableau = step.problem.solver.tableau
    results = stages(tableau, lambda place, y: _evaluate(step, place, y), step.h, carry)
    slopes = [slope for slope, _ in results]
    carry = advance(carry, step.h, tableau.b[: len(slopes)], slopes)
    return carry, integrals(step, results)
