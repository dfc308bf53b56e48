"""The backend differentiates the loop itself."""

import dataclasses

import keras
from keras import ops, tree

from keras_nanode.adaptive import Adaptive, record, spoil
from keras_nanode.adjoints.adjoint import Adjoint
from keras_nanode.adjoints.deferred import Deferred
from keras_nanode.solve import balanced, solve
from keras_nanode.steps import FixedSteps


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Direct(Adjoint):
    """The backend differentiates the loop itself: exact, O(n) memory, and the only
    adjoint that can be differentiated again.

    Adaptive steps are chosen first, and then taken again to be differentiated. On JAX,
    and in what XLA compiles, the memory is that of `max_steps` steps.
    """

    follows_times = True

    def deferred(self, steps):
        return Deferred(self) if isinstance(steps, Adaptive) else self

    def fixed(self, problem, steps, y0, params):
        plan = FixedSteps(problem, steps, problem.batch(steps, balanced))
        limit = None if problem.count is None else plan.limit
        ends, _, _ = solve(plan, y0, params, limit=limit)
        return ends

    def adaptive(self, problem, control, y0, params):
        still = tree.map_structure(ops.stop_gradient, (y0, params))
        times = problem.times
        if ops.is_tensor(times):
            times = ops.stop_gradient(times)
        fixed = dataclasses.replace(problem, times=times)
        found = record(fixed, control, *still)
        # The same steps, which now move with the times.
        steps = found.steps.of(problem)
        ends, _, _ = solve(steps, y0, params, limit=control.max_steps)
        return spoil(ends, found.late), found.stats
