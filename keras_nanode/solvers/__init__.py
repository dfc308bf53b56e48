"""One step of each solver, and the inverse step of the reversible ones.

A solver calls the vector field of a step as f(i, y), the slope y' at the node with
index i. Its state is y itself (Runge-Kutta), or a tuple that begins with y.
"""

from typing import Any

import keras

from keras_nanode import checks
from keras_nanode.solvers import runge_kutta
from keras_nanode.solvers.bdf import BDF
from keras_nanode.solvers.reversible import (
    AsynchronousLeapfrog,
    Reversible,
    ReversibleHeun,
)
from keras_nanode.solvers.runge_kutta import RungeKutta
from keras_nanode.solvers.solver import Solver
from keras_nanode.tableaus import Tableau

SolverLike = str | Tableau | Solver | BDF

# `get` also takes `BDF`, and `Reversible` around any Runge-Kutta method.
ALL: dict[str, Solver] = {
    **runge_kutta.ALL,
    "reversible_heun": ReversibleHeun(),
    "alf": AsynchronousLeapfrog(),
}
# The names in other libraries, for suggestions.
_OTHER_NAMES = {
    **dict.fromkeys(("rk45", "dp5", "dormand_prince", "ode45"), "dopri5"),
    **dict.fromkeys(("rk23", "ode23", "bs3", "bogacki_shampine"), "bosh3"),
    **dict.fromkeys(("adaptive_heun", "fehlberg2"), "bosh3"),
    **dict.fromkeys(("dop853", "dp8"), "dopri8"),
    **dict.fromkeys(("rk", "rk-4", "runge_kutta", "explicit_adams"), "rk4"),
    **dict.fromkeys(("fixed_adams", "heun3"), "rk4"),
    **dict.fromkeys(("rk2", "trapezoid"), "heun"),
    **dict.fromkeys(("forward_euler", "explicit_euler"), "euler"),
    **dict.fromkeys(("leapfrog", "leapfrogmidpoint", "mali"), "alf"),
    "reversibleheun": "reversible_heun",
    **dict.fromkeys(("lsoda", "radau", "stiff", "implicit_adams"), "bdf"),
    **dict.fromkeys(("implicit_euler", "impliciteuler", "ieuler"), "bdf"),
    **dict.fromkeys(("kvaerno3", "kvaerno4", "kvaerno5"), "bdf"),
    "adaptive": 'For adaptive steps give `steps="adaptive"`, with a solver such as '
    '"dopri5".',
    "fixed": "For equal steps give their number, for example `steps=10`.",
}


def get(solver: SolverLike | dict) -> Any:
    """The `Solver` or `BDF` for a name or a tableau. A solver is returned as it is.

    Args:
        solver: One of the names in `ALL`, `"bdf"`, a `Tableau`, or a `Reversible`.

    Raises:
        ValueError: if the solver is unknown, or not available on this backend.
    """
    solver = checks.configured("solver", solver)
    if isinstance(solver, (Solver, BDF)):
        return solver
    if isinstance(solver, str) and solver == BDF.name:
        return BDF()
    by_name = ALL.get(solver) if isinstance(solver, str) else None
    found = runge_kutta.find(solver) or by_name
    if found is None:
        others = (
            "a `keras_nanode.tableaus.Tableau` or `keras_nanode.Reversible(solver)`"
        )
        checks.one_of("solver", solver, [*ALL, BDF.name], others, _OTHER_NAMES)
    return found


def serialize(solver: Solver | BDF) -> str | dict:
    """What `get` can read: the name of a built-in solver, else the configuration."""
    if isinstance(solver, BDF) or ALL.get(solver.name) == solver:
        return solver.name
    if isinstance(solver, RungeKutta):
        return runge_kutta.serialize(solver)
    return keras.saving.serialize_keras_object(solver)


__all__ = [
    "ALL",
    "BDF",
    "Reversible",
    "RungeKutta",
    "Solver",
    "SolverLike",
    "get",
    "serialize",
]
