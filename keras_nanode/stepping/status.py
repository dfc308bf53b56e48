"""How a solve can end."""

import enum


class Status(enum.IntEnum):
    """How a solve ended. `message` says what to do about it."""

    SUCCESS = 0
    MAX_STEPS = 1
    UNDERFLOW = 2
    NON_FINITE = 3
    UNORDERED = 4

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.SUCCESS: "The last time was reached.",
    Status.MAX_STEPS: (
        "The largest number of steps between two output times, or in all, was tried. "
        "Raise `max_steps` or the tolerances of `Adaptive`, or ask for fewer output "
        "times, since each costs a step; if the problem is stiff, an explicit solver "
        "needs steps that are too small for it."
    ),
    Status.UNDERFLOW: (
        "The step became too small for the precision of t without meeting the "
        "tolerances. Raise `rtol` and `atol`, compute in float64, or look for a "
        "singularity or a jump of the vector field there."
    ),
    Status.NON_FINITE: (
        "The state or its derivative is infinite or NaN, and smaller steps did not "
        "help. Look at the vector field there, and at the inputs and weights."
    ),
    Status.UNORDERED: (
        "The times are not finite, or neither all increasing nor all decreasing. Sort "
        "them, or look at where they come from."
    ),
}
