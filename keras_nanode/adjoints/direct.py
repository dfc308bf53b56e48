"""The direct adjoint: the backend differentiates the loop itself."""

import dataclasses

import keras

from keras_nanode import backend
from keras_nanode.adjoints.adjoint import Adjoint
from keras_nanode.arrays import unrolls_loops
from keras_nanode.stepping import Adaptive
from keras_nanode.stepping.loops import solve
from keras_nanode.structures import stop_gradient


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Direct(Adjoint):
    """The backend differentiates the loop itself. This gradient is exact, takes O(n)
    memory, and is the only one that can be differentiated again, or in forward mode
    (`jax.jvp`, `jax.hessian`).

    In compiled functions, adaptive steps are chosen first, and then taken again to be
    differentiated. On JAX, and in functions that XLA compiles, this takes the memory of
    `max_steps` steps.
    """

    follows_times = True
    closes_over = True

    def keeps_states(self, steps):
        # If adaptive steps are chosen first, they are kept to be taken again.
        return isinstance(steps, Adaptive)

    def solve(self, problem, stepping, y0, params):
        if unrolls_loops():
            # The backend records a Python loop as it runs, and only its accepted steps.
            solution = stepping.run(problem, y0, params)
            return solution.ys, solution.stats

        def run(y0, params, tensors):
            here = problem.with_tensors(tensors)
            still = problem.with_tensors(stop_gradient(tensors))
            chosen = stepping.choose(still, *stop_gradient((y0, params)))
            # The same steps now move with the times. No gradient flows to their choice:
            # XLA could not differentiate a loop of unknown length within another loop.
            steps = stepping.steps(here, stop_gradient(chosen.record))
            ys, _, _ = solve(steps, y0, params, limit=steps.limit)
            return chosen.mark_unreached(ys), chosen.stats

        return backend.per_device(run, y0, params, problem.tensors)

    def kept(self, solution):
        raise TypeError("The backend keeps what it needs.")

    def backward(self, problem, stepping, primals, kept, cotangents):
        raise TypeError("The backend goes back.")
