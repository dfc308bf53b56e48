"""The exact gradient of a reversible solver, in constant memory."""

import dataclasses

import keras

from keras_nanode.adjoints.adjoint import Adjoint, Pull, zeros_like
from keras_nanode.solve import balanced, gather, solve
from keras_nanode.steps import FixedSteps


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class ReversibleAdjoint(Adjoint):
    """The exact gradient of the discrete solution in O(1) memory.

    The backward pass rebuilds each step's start from its end by the solver's inverse,
    exact up to rounding, and takes the vjp of the step there.
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

    def fixed(self, problem, steps, y0, params):
        batch = problem.batch(steps, balanced)

        def forward(problem, y0, params):
            plan = FixedSteps(problem, steps, batch)
            ends, state, _ = solve(plan, y0, params)
            return ends, (y0, params, state)

        def backward(problem, residuals, cotangents):
            y0, params, state = residuals
            pull = Pull(FixedSteps(problem, steps, batch), cotangents)

            def back(i, step, carry):
                state, a = carry
                state = step.undo(state, step.theta)
                a, in_theta = pull.back(i, step, state, a)
                return (state, a), in_theta

            carry = (state, pull.start(state))
            (_, a), gradient = gather(
                pull.steps, params, 0, pull.steps.count, back, carry, zeros_like(params)
            )
            return pull.to_y0(params, y0, a, gradient)

        return self.with_gradient(problem, forward, backward, y0, params)

    def adaptive(self, problem, control, y0, params):
        # `get_steps` refuses adaptive steps of the solvers that `check` lets pass.
        raise TypeError(f"{problem.solver.name!r} takes no adaptive steps.")
