"""The backward pass that the exact adjoints share."""

from typing import Any

from keras_nanode import backend
from keras_nanode.arrays import cond
from keras_nanode.stepping.loops import backward_loop
from keras_nanode.stepping.step import Steps
from keras_nanode.structures import row, zeros_like
from keras_nanode.tree import Structure


class BackwardPass:
    """Takes the cotangents of the outputs back through the steps.

    It carries the cotangent `a` of the solver's state. At each output time it adds the
    cotangent of y.
    """

    def __init__(self, steps: Steps, cotangents: Structure):
        self.steps, self.cotangents = steps, cotangents
        self._several = steps.problem.several

    def start(self, state: Any) -> Any:
        """The cotangent of the last state. `state` is an example of a state."""
        a = zeros_like(state)
        return a if self._several else self._join(0, a)

    def _join(self, interval, a):
        solver = self.steps.problem.solver
        return solver.value_transpose(row(self.cotangents, interval), a)

    def back(self, i, step, state, a):
        """The cotangents of the state before step i and of the step's weights."""
        if self._several:
            # The last step of an interval ends at an output time.
            interval, behind = self.steps.interval(i), a
            a = cond(
                self.steps.interval(i + 1) != interval,
                lambda: self._join(interval, behind),
                lambda: behind,
            )
        return step.vjp(state, a)

    def to_y0(self, params, y0, a, gradient):
        """The gradients in y0 and the parameters, from the cotangent of the first
        state."""
        solver = self.steps.problem.solver

        def body(i, step, a):
            _, pullback = backend.vjp(
                lambda y0, theta: solver.start(step.slopes(theta), y0), y0, step.theta
            )
            return pullback(a)

        if solver.start_is_y:
            return a, gradient
        return backward_loop(self.steps, params, 0, 1, body, a, gradient)
