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

    def deferred(self, steps):
        return Deferred(self) if isinstance(steps, Adaptive) else self

    def fixed(self, problem, steps, y0, params):
        count = problem.num_intervals * steps
        plan = FixedSteps(problem, steps, balanced(count))
        ends, _, _ = solve(plan, y0, params, limit=count)
        return ends

    def adaptive(self, problem, control, y0, params):
        still = tree.map_structure(ops.stop_gradient, (y0, params))
        found = record(problem, control, *still)
        ends, _, _ = solve(found.steps, y0, params, limit=control.max_steps)
        return spoil(ends, found.late), found.stats
