"""The continuous adjoint of the paper."""

import dataclasses
import operator

import keras
from keras import ops

from keras_nanode import tree
from keras_nanode.adjoints.adjoint import CustomGradient
from keras_nanode.solvers import RungeKutta
from keras_nanode.stepping.step import Step
from keras_nanode.stepping.stepping import Augmented
from keras_nanode.structures import add, nan_if, row, zeros_like
from keras_nanode.tree import Structure


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Backsolve(CustomGradient):
    """The continuous adjoint: y and its cotangent a are integrated backwards together.

        dy/dt = f,    da/dt = -a df/dy,    dL/dalpha = -integral of a df/dalpha

    It takes O(1) memory. But the gradient is that of the differential equation, not of
    its discrete solution. The difference vanishes with the step, at the solver's order.
    Adaptive steps are chosen anew from the error of y and a. A reversible solver is
    replaced by the Runge-Kutta method that it is made of.

    References:
        - [Chen et al., 2018](https://arxiv.org/abs/1806.07366)
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 3
    """

    def check(self, solver):
        del solver

    def kept(self, solution):
        return solution.ys

    def backward(self, problem, stepping, primals, kept, cotangents):
        _, params = primals
        ys, last = kept, problem.num_used - 1
        if problem.count is not None:
            # Times that are all equal, or in no order, leave no interval.
            last = ops.maximum(last, 0)

        def meet(interval, carry):
            """At an output time, restores y and adds its cotangent to a."""
            # The stored y replaces the integrated y, whose error would accumulate.
            here = last - interval
            return row(ys, here), add(carry[1], row(cotangents, here))

        solver = RungeKutta(problem.solver.tableau)
        backwards = dataclasses.replace(problem, solver=solver).reverse()
        y = row(ys, last)
        system, start = Augmented(_evaluate, meet), (y, zeros_like(y))
        (carry, gradient), failed = stepping.run_augmented(
            backwards, params, system, start
        )
        gradients = (carry[1], gradient)
        return gradients if failed is None else nan_if(failed, gradients)


def _evaluate(
    step: Step, i: int, carry: tuple[Structure, Structure]
) -> tuple[tuple[Structure, Structure], Structure]:
    """The slopes of y and a, and of the gradient in the stage's weights."""
    y, a = carry
    slope, pullback = step.linearize(i, y)
    slope_a, grad_theta = tree.map_structure(operator.neg, pullback(a))
    return (slope, slope_a), grad_theta
