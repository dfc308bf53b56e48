"""A solve: steps are chosen, taken, and visited again for the gradient.

The user's `steps` becomes a `Stepping`: `Fixed(n)` equal steps, or `Adaptive` ones. It
runs a `Problem` and gives a `Solution`. It knows nothing about gradients, but keeps the
states that an adjoint requests.
"""

from keras_nanode.stepping.adaptive import Adaptive
from keras_nanode.stepping.argument import (
    StepsLike,
    get_steps,
    serialize_steps,
    stepping_of,
)
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.status import Status
from keras_nanode.stepping.stepping import Replayable, Solution, Stepping

__all__ = [
    "Adaptive",
    "Problem",
    "Replayable",
    "Solution",
    "Status",
    "Stepping",
    "StepsLike",
    "get_steps",
    "serialize_steps",
    "stepping_of",
]
