"""Explicit Runge-Kutta methods."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_nanode import checks, tableaus, tree
from keras_nanode.fields.weights import Theta
from keras_nanode.solvers.solver import Solver, Stepped
from keras_nanode.structures import add, advance, as_scalar, increment, weighted
from keras_nanode.tableaus import Tableau
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True, repr=False)
class RungeKutta(Solver):
    """The explicit Runge-Kutta method of a tableau."""

    tableau: Tableau
    start_is_y = True

    @property
    def name(self):
        return self.tableau.name

    @functools.cached_property
    def nodes(self):
        return tuple(sorted(set(self.tableau.c)))

    @functools.cached_property
    def node_of_stages(self) -> list[int]:
        """For each stage, the index of its node."""
        return [self.nodes.index(c) for c in self.tableau.c]

    @functools.cached_property
    def evaluations(self):
        return max(i for i, weight in enumerate(self.tableau.b) if weight) + 1

    def start(self, f, y):
        return y

    def step(self, f, h, state):
        return advance(state, h, *self._weighed(f, h, state))

    def value(self, state):
        return state

    def change(self, f, h, y):
        """The increment of y in a step of length h."""
        return increment(y, h, *self._weighed(f, h, y))

    def _weighed(self, f, h, y):
        """The weights of the stages, and their slopes."""
        results = self.stages(lambda i, y: (f(i, y), ()), h, y)
        return self.tableau.b[: len(results)], [slope for slope, _ in results]

    def stages(
        self,
        f: Callable[[int, Structure], tuple[Structure, Any]],
        h: Any,
        y: Structure,
        first: tuple[Structure, Any] | None = None,
        embedded: bool = False,
    ) -> list[tuple[Structure, Any]]:
        """The results `f(i, y)` of the stages of a step. Each is a pair of a slope and
        anything else.

        Args:
            f: A function of a node's index and a state.
            h: The step's length.
            y: The state before the step.
            first: The result of the first stage, if it is known.
            embedded: Whether to evaluate the stages that only the error estimate needs.
        """
        nodes, tableau = self.node_of_stages, self.tableau
        used = tableau.num_stages if embedded else self.evaluations
        results = [] if first is None else [first]
        for i in range(len(results), used):
            slopes = [slope for slope, _ in results]
            results.append(f(nodes[i], advance(y, h, tableau.a[i], slopes)))
        return results

    def vjp(self, step, state, a):
        # The backend differentiates only the vector field. The transposed tableau
        # combines the stages' cotangents (Hager 2000, Numerische Mathematik 87).
        tableau, y, grad_y = self.tableau, state, a
        results = self.stages(step.linearize, step.h, y)
        later: list[Structure] = []  # cotangents of the later stages' states
        grad_theta: list[tuple] = []
        for i in reversed(range(len(results))):
            column = [tableau.b[i], *(row[i] for row in tableau.a[i + 1 :])]
            column = column[: len(later) + 1]
            grad_slope = increment(y, step.h, column, [a, *later])
            grad_stage, grad_weights = results[i][1](grad_slope)
            grad_y, later = add(grad_y, grad_stage), [grad_stage, *later]
            grad_theta.insert(0, grad_weights)
        return grad_y, step.sum_by_set(self.node_of_stages, grad_theta)

    def step_with_integrals(
        self,
        step: Stepped,
        evaluate: Callable[[int, Structure], tuple[Structure, Any]],
        y: Structure,
    ) -> tuple[Structure, Theta]:
        """The state after a step, and the integrals over the step of the other values
        that `evaluate` gives at the stages."""
        results = self.stages(evaluate, step.h, y)
        slopes, others = zip(*results, strict=True)
        y = advance(y, step.h, self.tableau.b[: len(slopes)], list(slopes))
        return y, self.integrals(step, list(others))

    def integrals(self, step: Stepped, others: list[tuple]) -> Theta:
        """The integrals over a step of the stages' other values, one for each set of
        the step's weights."""
        used = [i for i, weight in enumerate(self.tableau.b) if weight]
        nodes = [self.node_of_stages[i] for i in used]
        parts = [weighted((self.tableau.b[i], others[i])) for i in used]
        return tree.map_structure(
            lambda total: as_scalar(step.h, total.dtype) * total,
            step.sum_by_set(nodes, parts),
        )


ALL = {name: RungeKutta(tableau) for name, tableau in tableaus.ALL.items()}


def serialize(solver: RungeKutta) -> str | dict:
    """The name of a built-in method, else the configuration of the tableau."""
    if ALL.get(solver.name) == solver:
        return solver.name
    return keras.saving.serialize_keras_object(solver.tableau)


def find(solver: str | Tableau | Solver | dict) -> RungeKutta | None:
    """The method for a name, a tableau or a result of `serialize`; None if unknown."""
    solver = checks.configured("solver", solver)
    if isinstance(solver, RungeKutta):
        return solver
    if isinstance(solver, Tableau):
        return RungeKutta(solver)
    return ALL.get(solver) if isinstance(solver, str) else None
