"""The exact gradient of a reversible solver, in constant memory."""

import dataclasses

import keras

from keras_nanode.adjoints.adjoint import CustomGradient
from keras_nanode.adjoints.backward_pass import BackwardPass
from keras_nanode.stepping.loops import backward_loop
from keras_nanode.structures import zeros_like


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class ReversibleAdjoint(CustomGradient):
    """The exact gradient of the discrete solution in O(1) memory.

    The backward pass rebuilds the state before each step with the solver's inverse
    step, exact up to rounding, and takes the vjp of the step there.
    """

    def check(self, solver):
        super().check(solver)
        if not solver.is_reversible:
            raise ValueError(
                f"The solver {solver.name!r} cannot be run backwards algebraically, as "
                "adjoint='reversible' does. Use solver='reversible_heun', 'alf' or "
                f"`keras_nanode.Reversible({solver.name!r})`, or adjoint='checkpoint'. "
                f"Received: solver={solver.name!r}, adjoint='reversible'"
            )

    def kept(self, solution):
        return solution.state

    def backward(self, problem, stepping, primals, kept, cotangents):
        y0, params = primals
        steps = stepping.steps(problem, ())
        way = BackwardPass(steps, cotangents)

        def back(i, step, carry):
            state, a = carry
            state = step.take_back(state, step.theta)
            a, grad_theta = way.back(i, step, state, a)
            return (state, a), grad_theta

        carry, gradient = (kept, way.start(kept)), zeros_like(params)
        (_, a), gradient = backward_loop(
            steps, params, 0, steps.count, back, carry, gradient
        )
        return way.to_y0(params, y0, a, gradient)
