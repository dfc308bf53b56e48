"""How the equal steps of an ODE fall on the functions and the pieces of its basis."""

import warnings

import numpy as np

from keras_nanode import checks
from keras_nanode.bases import ALL, Basis
from keras_nanode.fields.pieces import pieces
from keras_nanode.solvers import BDF, Solver
from keras_nanode.stepping import Adaptive, StepsLike, get_steps

# The number of steps of the paper's networks.
_LEAST_STEPS = 10
# A few times as many functions learn as well: 21 for 10 times in the paper's networks.
_MOST_FOR_A_TIME = 6
# As many as a name stands for are no mistake.
_MOST_OF_A_NAME = max(basis.size for basis in ALL.values())


def steps_of(
    solver: Solver | BDF,
    steps: StepsLike | dict,
    basis: Basis | None,
    t_span: tuple[float, float],
) -> int | Adaptive:
    """The steps of an ODE layer.

    None for a solver that cannot choose them is a multiple of the number of pieces that
    the basis has in `t_span`, so equal pieces get equally many steps.
    """
    if steps is None and not solver.estimates_error:
        count = len(_inside(basis, t_span)) + 1
        steps = count * -(-_LEAST_STEPS // count)
    return get_steps(solver, checks.configured("steps", steps))


def warn_of_unseen_weights(
    name: str,
    basis: Basis | None,
    t_span: tuple[float, float],
    solver: Solver,
    steps: int,
) -> None:
    """Warns if a piece has no step, since its weights are never used and never learn,
    or if a solver evaluates the weights at far fewer times than there are functions."""
    if basis is None:
        return
    seen, count = pieces_seen(basis, t_span, steps)
    times = _num_times(solver, steps)
    most = max(_MOST_OF_A_NAME, _MOST_FOR_A_TIME * times)
    if seen < count:
        cause = (
            f"see {seen} of the {count} pieces that its basis has between "
            "breakpoints: the weights of the others are never used, and never learn. "
            f"Use a multiple of {count} steps."
        )
    elif not basis.piecewise_constant and basis.size > most:
        cause = (
            f"evaluate the weights at {times} times, too few to tell {basis.size} "
            "functions of time apart: most coefficients add nothing that the others "
            f"cannot do. Use fewer functions, at best {times} or fewer, or more steps. "
            "The number is of functions of time, not of units: a layer keeps the "
            "width of its input."
        )
    else:
        return
    warnings.warn(
        f"The {steps} steps of the ODE {name!r} {cause} Received: steps={steps}, "
        f"solver={solver.name!r}, basis={basis!r}",
        stacklevel=2,
    )


def pieces_seen(
    basis: Basis, t_span: tuple[float, float], steps: int
) -> tuple[int, int]:
    """How many pieces between breakpoints have a step, and how many there are."""
    breakpoints = _inside(basis, t_span)
    edges = np.linspace(*t_span, steps + 1)
    seen = set(np.atleast_1d(pieces(breakpoints, edges[:-1], edges[1:])))
    return len(seen), len(breakpoints) + 1


def _num_times(solver: Solver, steps: int) -> int:
    """How many different times the nodes of all steps are."""
    shared = {0.0, 1.0} <= set(solver.nodes)
    return steps * len(solver.nodes) - (steps - 1) * shared


def _inside(basis: Basis | None, t_span: tuple[float, float]) -> tuple[float, ...]:
    """The breakpoints inside `t_span`."""
    first, last = sorted(t_span)
    return tuple(t for t in (basis.breakpoints if basis else ()) if first < t < last)
