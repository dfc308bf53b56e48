"""A solve that keeps nothing until somebody differentiates it."""

import dataclasses

from keras_nanode import backend
from keras_nanode.adaptive import outcome
from keras_nanode.adjoints.adjoint import Adjoint
from keras_nanode.solve import balanced, solve
from keras_nanode.steps import FixedSteps


@dataclasses.dataclass(frozen=True)
class Deferred(Adjoint):
    """The gradient of another adjoint, whose forward pass waits until it is needed.

    For inference: the loop carries nothing but the state, which costs no memory, and
    which file formats without lists of tensors can hold. A gradient costs one more
    solve.
    """

    adjoint: Adjoint

    def check(self, solver):
        self.adjoint.check(solver)

    def fixed(self, problem, steps, y0, params):
        batch = problem.batch(steps, balanced)

        def forward(problem, y0, params):
            ends, _, _ = solve(FixedSteps(problem, steps, batch), y0, params)
            return ends, (y0, params)

        def backward(problem, primals, cotangents):
            def kept(y0, params):
                return self.adjoint.fixed(problem, steps, y0, params)

            return _pull(kept, primals, cotangents)

        return self.with_gradient(problem, forward, backward, y0, params)

    def adaptive(self, problem, control, y0, params):
        def forward(problem, y0, params):
            found, _ = outcome(problem, control, y0, params)
            return (found.ends, found.stats), (y0, params)

        def backward(problem, primals, cotangents):
            def kept(y0, params):
                return self.adjoint.adaptive(problem, control, y0, params)[0]

            return _pull(kept, primals, cotangents[0])

        return self.with_gradient(problem, forward, backward, y0, params)


def _pull(f, primals, cotangents):
    _, pullback = backend.vjp(f, *primals)
    return pullback(cotangents)
