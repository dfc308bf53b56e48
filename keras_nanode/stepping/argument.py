"""The user's argument `steps`."""

from typing import Any

import keras
import numpy as np

from keras_nanode import checks
from keras_nanode.solvers import ALL, BDF, Solver
from keras_nanode.stepping.adaptive import MOST_STEPS, Adaptive
from keras_nanode.stepping.bdf import BDFSteps
from keras_nanode.stepping.fixed import Fixed
from keras_nanode.stepping.stepping import Stepping

StepsLike = int | str | Adaptive | None


def get_steps(solver: Solver | BDF, steps: StepsLike | dict) -> int | Adaptive:
    """Reads the argument `steps`: the number of steps, or an `Adaptive`.

    Raises:
        ValueError: if `steps` is neither, or the solver does not accept it.
    """
    if isinstance(steps, dict):
        steps = keras.saving.deserialize_keras_object(steps)
    by_name = isinstance(steps, str) and steps == "adaptive"
    adaptive = Adaptive() if steps is None or by_name else steps
    if not solver.takes_fixed_steps:
        return _check_adaptive(solver, adaptive)
    if isinstance(steps, (int, np.integer)):
        return checks.integer("steps", steps, most=MOST_STEPS)
    if not isinstance(adaptive, Adaptive):
        expected = (
            "a positive integer, the number of steps and not their length, "
            '"adaptive" or an `Adaptive`'
        )
        raise checks.wrong("steps", steps, expected)
    if not solver.estimates_error:
        able = [name for name, known in ALL.items() if known.estimates_error]
        raise ValueError(
            f"The solver {solver.name!r} has no error estimate, so it cannot choose "
            "its steps. Give their number, for example `steps=10`, or use a solver "
            f"that has an estimate: {', '.join(map(repr, able))}. "
            f"Received: steps={steps!r}"
        )
    return adaptive


def _check_adaptive(solver: Solver | BDF, steps: Any) -> Adaptive:
    if not isinstance(steps, Adaptive):
        raise ValueError(
            f"The solver {solver.name!r} chooses its steps by the estimated error and "
            "takes no number of them. Leave `steps` out, or give "
            f"`Adaptive(rtol, atol, max_steps)`. Received: steps={steps!r}"
        )
    return steps


def serialize_steps(steps: int | Adaptive) -> int | dict:
    """A form of `steps` that `get_steps` can read."""
    if isinstance(steps, Adaptive):
        return keras.saving.serialize_keras_object(steps)
    return steps


def stepping_of(solver: Solver | BDF, steps: int | Adaptive) -> Stepping:
    """The object that takes the steps."""
    if not isinstance(steps, Adaptive):
        return Fixed(steps)
    return BDFSteps(steps) if solver.has_own_gradient else steps
