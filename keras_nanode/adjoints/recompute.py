"""A solve that keeps nothing until a gradient is requested."""

import dataclasses

from keras_nanode import backend
from keras_nanode.adjoints.adjoint import Adjoint, CustomGradient
from keras_nanode.adjoints.direct import Direct
from keras_nanode.stepping import Adaptive


@dataclasses.dataclass(frozen=True)
class Recompute(CustomGradient):
    """The gradient of another adjoint, whose forward pass runs only if it is needed.

    This is for inference. The loop carries only the state, so it stores nothing for a
    gradient, and file formats without lists of tensors can hold it. A gradient costs
    one more solve.
    """

    adjoint: Adjoint

    def check(self, solver):
        self.adjoint.check(solver)

    @property
    def refusal(self):
        if not isinstance(self.adjoint, Direct):
            return self.adjoint.refusal
        return (
            "A layer with adaptive steps is differentiated twice (for a gradient "
            "penalty or a Hessian, say) or in forward mode, and keeps nothing for this "
            "outside of training. Call it with `training=True`. "
            f"Received: adjoint={self.adjoint!r}, training=False"
        )

    def kept(self, solution):
        return ()

    def backward(self, problem, stepping, primals, kept, cotangents):
        def solve(y0, params):
            found = self.adjoint.solve, problem, stepping, y0, params
            return backend.held_by_outputs(*found)[0]

        _, pullback = backend.vjp(solve, *primals)
        return pullback(cotangents)


def for_inference(adjoint: Adjoint, steps: int | Adaptive) -> Adjoint:
    """An adjoint with the same gradient whose forward pass stores nothing for it."""
    return Recompute(adjoint) if adjoint.keeps_states(steps) else adjoint
