"""Explicit Runge-Kutta methods."""

import dataclasses

import keras

from keras_nanode import tableaus
from keras_nanode.solvers.solver import Solver
from keras_nanode.tableaus import Tableau
from keras_nanode.vector_field import Structure, add, advance, increment


@dataclasses.dataclass(frozen=True, repr=False)
class RungeKutta(Solver):
    """The explicit Runge-Kutta method of a tableau."""

    tableau: Tableau

    @property
    def name(self):
        return self.tableau.name

    @property
    def places(self):
        return tuple(sorted(set(self.tableau.c)))

    @property
    def evaluations(self):
        return max(i for i, weight in enumerate(self.tableau.b) if weight) + 1

    def start(self, f, y):
        return y

    def step(self, f, h, state):
        return add(state, self.change(f, h, state))

    def value(self, state):
        return state

    def change(self, f, h, y):
        """What a step of length h adds to y."""
        results = stages(self.tableau, lambda place, y: (f(place, y), ()), h, y)
        b = self.tableau.b[: len(results)]
        return increment(y, h, b, [slope for slope, _ in results])

    def pull(self, f, h, y, cotangent):
        """From the cotangent after a step to that of y, and of each stage's weights.

        `f(place, y)` gives the slope and its pullback. The stages' cotangents are
        combined by the transposed tableau (Hager 2000, Numerische Mathematik 87).
        """
        tableau, in_y = self.tableau, cotangent
        results = stages(tableau, f, h, y)
        later: list[Structure] = []  # cotangents of the later stages' states
        in_weights: list[Structure] = []
        for i in reversed(range(len(results))):
            column = [tableau.b[i], *(row[i] for row in tableau.a[i + 1 :])]
            column = column[: len(later) + 1]
            in_slope = increment(y, h, column, [cotangent, *later])
            in_stage, in_theta = results[i][1](in_slope)
            in_y, later = add(in_y, in_stage), [in_stage, *later]
            in_weights.insert(0, in_theta)
        return in_y, in_weights

    def backwards(self, f, h, y):
        """What a step of length -h, taken from the end of this one, adds to y."""
        return self.change(lambda place, y: f(mirrored(place), y), -h, y)


def stages(tableau: Tableau, f, h, y: Structure, first=None, embedded=False) -> list:
    """The results (slope, anything else) of f at the stages of a step.

    `first` is that of the first stage where it is known. Stages for an error estimate
    alone are left out unless `embedded`.
    """
    used = tableau.num_stages if embedded else RungeKutta(tableau).evaluations
    results = [] if first is None else [first]
    for i in range(len(results), used):
        slopes = [slope for slope, _ in results]
        results.append(f(tableau.c[i], advance(y, h, tableau.a[i], slopes)))
    return results


def mirrored(place: float) -> float:
    # Rounded, so that 1 - 0.8 is 0.2.
    return round(1 - place, 15)


ALL = {name: RungeKutta(tableau) for name, tableau in tableaus.ALL.items()}


def serialize(solver: RungeKutta):
    """The name if it is one of ours, else the tableau's configuration."""
    if ALL.get(solver.name) == solver:
        return solver.name
    return keras.saving.serialize_keras_object(solver.tableau)


def find(solver) -> RungeKutta | None:
    """The method for a name, a tableau, or what `serialize` gave; None if none."""
    if isinstance(solver, dict):
        solver = keras.saving.deserialize_keras_object(solver)
    if isinstance(solver, RungeKutta):
        return solver
    if isinstance(solver, Tableau):
        return RungeKutta(solver)
    return ALL.get(solver) if isinstance(solver, str) else None
