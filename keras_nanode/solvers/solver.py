"""The interface of a solver."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from keras_nanode import backend
from keras_nanode.fields.weights import Theta
from keras_nanode.structures import add
from keras_nanode.tableaus import Tableau
from keras_nanode.tree import Structure

# f(i, y): the slope of y at node i of the step.
Slopes = Callable[[int, Structure], Structure]


class Stepped(Protocol):
    """The part of a step that `Solver.vjp` uses.

    Attributes:
        h: The step's length.
        theta: The step's sets of weights, for each part.
    """

    h: Any
    theta: Theta

    def take(self, state: Any, theta: Theta) -> Any:
        """The state after the step."""

    def linearize(self, i: int, y: Structure) -> tuple[Structure, Callable]:
        """The slope at node i, and its pullback to y and the weights there."""

    def sum_by_set(self, nodes: Sequence[int], cotangents: list[tuple]) -> Theta:
        """Sums the cotangents of theta at nodes, for each set of weights."""


class Solver(abc.ABC):
    """A one-step method.

    Attributes:
        name: String, what the solver is called.
        order: Positive integer, the order of convergence of y.
        tableau: The explicit Runge-Kutta method that the solver is, or is made of. The
            backsolve adjoint uses it in place of the solver.
        nodes: The increasing times in a step at which the vector field is evaluated, as
            fractions of the step. Methods refer to a node by its index.
        evaluations: Positive integer, the number of function evaluations per step.
        is_reversible: Whether `step_back` rebuilds a step's start from its end.
        estimates_error: Whether it can choose its steps by an estimate of their error.
        takes_fixed_steps: Whether it can take a number of equal steps.
        has_own_gradient: Whether it has its own gradient, which replaces the choice of
            an adjoint.
        start_is_y: Whether the first state is y itself.
        carries_slopes: Whether the state contains slopes. They are out of date after a
            jump of the weights, and `cross_jump` renews them.
    """

    tableau: Tableau
    is_reversible: bool = False
    takes_fixed_steps: bool = True
    has_own_gradient: bool = False
    start_is_y: bool = False
    carries_slopes: bool = False

    @property
    @abc.abstractmethod
    def name(self) -> str: ...

    @property
    @abc.abstractmethod
    def nodes(self) -> tuple[float, ...]: ...

    @property
    @abc.abstractmethod
    def evaluations(self) -> int: ...

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r})"

    @property
    def estimates_error(self) -> bool:
        return bool(self.tableau.b_embedded) and not self.is_reversible

    @property
    def order(self) -> int:
        return self.tableau.order

    @abc.abstractmethod
    def start(self, f: Slopes, y: Structure) -> Any:
        """The first state. f is the vector field of the first step."""

    @abc.abstractmethod
    def step(self, f: Slopes, h: Any, state: Any) -> Any:
        """The state after a step of length h."""

    @abc.abstractmethod
    def value(self, state: Any) -> Structure:
        """The y in a state."""

    def value_transpose(self, cotangent: Structure, a: Any) -> Any:
        """Adds a cotangent of `value(state)` to `a`, a cotangent of the state."""
        return add(a, cotangent)

    def vjp(self, step: Stepped, state: Any, a: Any) -> tuple[Any, Theta]:
        """The cotangents of the state before a step and of the step's weights.

        `a` is the cotangent of the state after it.
        """
        _, pullback = backend.vjp(step.take, state, step.theta)
        return pullback(a)

    def step_back(self, f: Slopes, h: Any, state: Any) -> Any:
        """The state before a step of length h that led to `state`."""
        raise TypeError(f"The solver {self.name!r} is not reversible.")

    def cross_jump(self, f: Slopes, before: Slopes, state: Any) -> Any:
        """The state after a jump of the weights. `before` is the vector field with the
        weights of the step before the jump."""
        return state

    def uncross_jump(self, f: Slopes, before: Slopes, state: Any) -> Any:
        """The inverse of `cross_jump`."""
        return state
