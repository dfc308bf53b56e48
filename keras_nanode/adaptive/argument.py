"""What a user may call `steps`."""

import keras
import numpy as np

from keras_nanode import checks
from keras_nanode.adaptive.control import MOST_STEPS, Adaptive
from keras_nanode.solvers import BDF, Solver


def get_steps(solver: Solver | BDF, steps) -> int | Adaptive:
    """The number of steps, or what chooses them, for what a user calls `steps`.

    Raises:
        ValueError: if it is neither, or the solver does not take it.
    """
    if isinstance(steps, dict):
        steps = keras.saving.deserialize_keras_object(steps)
    by_name = isinstance(steps, str) and steps == "adaptive"
    adaptive = Adaptive() if steps is None or by_name else steps
    if isinstance(solver, BDF):
        return _check_adaptive(solver, adaptive)
    if isinstance(steps, (int, np.integer)):
        return checks.integer("steps", steps, most=MOST_STEPS)
    if not isinstance(adaptive, Adaptive):
        raise checks.wrong(
            "steps", steps, 'a positive integer, "adaptive" or an `Adaptive`'
        )
    if not solver.estimates_error:
        raise ValueError(
            f"The solver {solver.name!r} has no error estimate, so that it cannot "
            "choose its steps. Give their number, for example `steps=10`, or use a "
            "solver that has: 'bosh3', 'dopri5', 'tsit5' or 'dopri8'. "
            f"Received: steps={steps!r}"
        )
    return adaptive


def _check_adaptive(solver: BDF, steps) -> Adaptive:
    if not isinstance(steps, Adaptive):
        raise ValueError(
            f"The solver {solver.name!r} chooses its steps by the estimated error and "
            "takes no number of them. Leave `steps` out, or give "
            f"`Adaptive(rtol, atol, max_steps)`. Received: steps={steps!r}"
        )
    return steps


def serialize_steps(steps: int | Adaptive):
    """What `get_steps` reads back."""
    if isinstance(steps, Adaptive):
        return keras.saving.serialize_keras_object(steps)
    return steps
