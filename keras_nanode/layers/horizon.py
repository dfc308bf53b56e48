"""Where the flow of a ready-made layer or model ends, so that it learns."""

import math
import warnings
from collections.abc import Sequence

from keras_nanode import bases, checks, solvers
from keras_nanode.bases import Basis
from keras_nanode.bases.growth import largest_sum, usual_sum
from keras_nanode.layers.step_counts import steps_of
from keras_nanode.solvers import SolverLike
from keras_nanode.stepping import Adaptive, StepsLike

Span = tuple[float, float]

# Above this multiple of the usual, no rate suits all times.
_TOO_LARGE = 10


def flow_times(
    basis: str | Basis | dict,
    t_span: Sequence[float] | None,
    start: str,
    solver: SolverLike | dict,
    steps: StepsLike | dict,
) -> tuple[Basis, Span]:
    """The basis and the times of a flow for which the user may have left them out.

    The flow passes m independent sets of weights: one for each step or each function of
    the basis, whichever are fewer, and one alone if the weights start constant. Over
    (0, sqrt(m)), random weights change the variance of the state by the same factor for
    every m (arXiv 2206.06929). It ends at 1 if the functions would be large beyond, as
    the powers of t are.

    Args:
        basis: A name, whose domain becomes the flow's times, or a `Basis`.
        t_span: The user's choice. None for the above, unless a `Basis` has a domain
            other than (0, 1): this then sets the times.
        start: How the weights start, as in `TimeVarying`.
        solver, steps: As in `ODE`. Adaptive steps see all functions of the basis.
    """
    found = bases.get(basis)
    if t_span is not None:
        span = checks.span("t_span", t_span)
        return (found.over(sorted(span)) if isinstance(basis, str) else found), span
    if tuple(found.domain) != (0.0, 1.0) or "domain" not in found.get_config():
        return found, found.domain
    if start == "independent" and found.size > 1:
        taken = steps_of(solvers.get(solver), steps, found, found.domain)
        m = found.size if isinstance(taken, Adaptive) else min(found.size, taken)
        longer = found.over((0.0, math.sqrt(m)))
        if largest_sum(longer, longer.domain) <= usual_sum(longer):
            return longer, longer.domain
    return found, (0.0, 1.0)


def warn_of_large_weights(name: str, basis: Basis, t_span: Span) -> None:
    """Warns if functions of the basis get so large that no learning rate suits all
    times."""
    largest, usual = largest_sum(basis, t_span), usual_sum(basis)
    if not largest <= _TOO_LARGE * usual:
        warnings.warn(
            f"The weights of the ODE {name!r} get very large: in its `t_span`, "
            f"sum_k |z_k(t)| reaches {largest:.2g}, and {usual:.2g} is usual for "
            f"{basis.size} functions. An update of the coefficients by a learning rate "
            f"moves a weight by up to {largest:.2g} times the rate. End at 1 or "
            "before, as with `t_span=(0, 1)`, or take functions that stay small, such "
            f"as those of `bases.Legendre` and `bases.Cosine`. Received: "
            f"t_span={t_span}, basis={basis!r}",
            stacklevel=2,
        )
