"""How the equal steps of an ODE fall on the pieces of its basis."""

import warnings

import numpy as np

from keras_nanode.bases import Basis
from keras_nanode.vector_field import pieces

# The number of steps of the paper's networks.
_LEAST_STEPS = 10


def default_steps(basis: Basis | None, t_span: tuple[float, float]) -> int:
    """The default number of steps of a solver that cannot choose them.

    It is a multiple of the number of pieces that the basis has in `t_span`, so equal
    pieces get equally many steps.
    """
    count = len(_inside(basis, t_span)) + 1
    return count * -(-_LEAST_STEPS // count)


def warn_of_unseen_pieces(
    name: str, basis: Basis | None, t_span: tuple[float, float], steps: int
) -> None:
    """Warns if a piece has no step: its weights are never used, and never learn."""
    breakpoints = _inside(basis, t_span)
    edges = np.linspace(*t_span, steps + 1)
    seen = set(np.atleast_1d(pieces(breakpoints, edges[:-1], edges[1:], "float64")))
    count = len(breakpoints) + 1
    if len(seen) < count:
        warnings.warn(
            f"The {steps} steps of the ODE {name!r} see {len(seen)} of the {count} "
            "pieces that its basis has between breakpoints: the weights of the others "
            f"are never used, and never learn. Use a multiple of {count} steps. "
            f"Received: steps={steps}, basis={basis!r}",
            stacklevel=2,
        )


def _inside(basis: Basis | None, t_span: tuple[float, float]) -> tuple[float, ...]:
    """The breakpoints inside `t_span`."""
    first, last = sorted(t_span)
    return tuple(t for t in (basis.breakpoints if basis else ()) if first < t < last)
