"""The direct adjoint: the backend differentiates the loop itself."""

import dataclasses

import keras
from keras import ops

from keras_nanode import backend
from keras_nanode.adjoints.adjoint import Adjoint
from keras_nanode.arrays import take, unrolls_loops
from keras_nanode.fields.pieces import into_interval_before
from keras_nanode.stepping import Adaptive
from keras_nanode.stepping.loops import solve
from keras_nanode.stepping.stops import on_jumps
from keras_nanode.structures import (
    advance,
    apply_if,
    buffers,
    row,
    stacked,
    stop_gradient,
    write,
)


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Direct(Adjoint):
    """The backend differentiates the loop itself. This gradient is exact, takes O(n)
    memory, and is the only one that can be differentiated again, in forward mode
    (`jax.jvp`, `jax.hessian`), or within the transforms of `torch.func`.

    In compiled functions, adaptive steps are chosen first, and then taken again to be
    differentiated. On JAX, and in functions that XLA compiles, this takes the memory of
    `max_steps` steps.
    """

    differentiates_times = True
    differentiates_closures = True

    def keeps_states(self, steps):
        # If adaptive steps are chosen first, they are kept to be taken again.
        return isinstance(steps, Adaptive) and not unrolls_loops()

    def solve(self, problem, stepping, y0, params):
        if unrolls_loops():
            # The backend records a Python loop as it runs, and only its accepted steps.
            solution = stepping.run(problem, y0, params)
            return self._follow(problem, stepping, params, solution.ys), solution.stats

        def run(y0, params, tensors):
            here = problem.with_tensors(tensors)
            still = problem.with_tensors(stop_gradient(tensors))
            chosen = stepping.choose(still, *stop_gradient((y0, params)))
            # The same steps now move with the times. No gradient flows to their choice:
            # XLA could not differentiate a loop of unknown length within another loop.
            steps = stepping.steps(here, stop_gradient(chosen.record))
            ys, _, _ = solve(steps, y0, params, limit=steps.limit)
            ys = self._follow(here, stepping, params, chosen.mark_unreached(ys))
            return ys, chosen.stats

        return backend.per_device(run, y0, params, problem.tensors)

    def _follow(self, problem, stepping, params, ys):
        """Attaches to ys the derivatives in output times on a jump of the weights.

        Adaptive steps end on the jump, which does not move with the time. Equal steps
        move with the times, and so do the places where they see a jump.
        """
        times, moves = problem.times, ops.is_tensor(problem.times)
        chosen = isinstance(stepping, Adaptive)
        on = on_jumps(problem) if moves and chosen else None
        if on is None:
            return ys
        fixed = ops.stop_gradient(times)
        beside = fixed + into_interval_before(fixed, problem.dtype)
        moved = ops.cast(times - fixed, problem.dtype)

        def one(i, found):
            time, side, h = (take(x, i + 1) for x in (fixed, beside, moved))

            def follow(y):
                slope = problem.field.at(time, side, y, params, problem.dtype)
                return advance(y, h, (1.0,), [slope])

            return write(found, i, apply_if(take(on, i), follow, row(ys, i)))

        number = problem.num_intervals
        found = buffers(number, row(ys, 0))
        return stacked(backend.fori_loop(number, one, found))
