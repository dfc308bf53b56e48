"""What a solver has to have."""

import abc
from collections.abc import Callable
from typing import Any

from keras_nanode.tableaus import Tableau
from keras_nanode.vector_field import Structure

Slopes = Callable[[float, Structure], Structure]


class Solver(abc.ABC):
    """A one-step method.

    Attributes:
        name: String, what the solver is called.
        order: Positive integer, the order of convergence of y.
        tableau: The explicit Runge-Kutta method that the solver is or is made of, which
            the backsolve adjoint takes in its place.
        places: Where in a step the vector field is evaluated, as fractions of it,
            increasing.
        evaluations: Positive integer, how often it is evaluated in a step.
        is_reversible: Whether `undo` rebuilds a step's start from its end.
        carries_slopes: Whether the state has slopes in it, which are out of date after
            a jump of the weights: `enter` renews them and `leave` takes that back.
    """

    tableau: Tableau
    is_reversible: bool = False
    carries_slopes: bool = False

    @property
    @abc.abstractmethod
    def name(self) -> str: ...

    @property
    @abc.abstractmethod
    def places(self) -> tuple[float, ...]: ...

    @property
    @abc.abstractmethod
    def evaluations(self) -> int: ...

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r})"

    @property
    def estimates_error(self) -> bool:
        """Whether it can choose its steps by an estimate of their error."""
        return bool(self.tableau.b_embedded) and not self.is_reversible

    @property
    def order(self) -> int:
        return self.tableau.order

    @abc.abstractmethod
    def start(self, f: Slopes, y: Structure) -> Any:
        """The first state; f is that of the first step."""

    @abc.abstractmethod
    def step(self, f: Slopes, h, state: Any) -> Any:
        """The state after a step of length h."""

    @abc.abstractmethod
    def value(self, state: Any) -> Structure:
        """y of a state."""

    def undo(self, f: Slopes, h, state: Any) -> Any:
        """The state before a step of length h that led to `state`."""
        raise TypeError(f"The solver {self.name!r} is not reversible.")

    def enter(self, f: Slopes, before: Slopes, state: Any) -> Any:
        """The state at a jump, where `before` has the weights of the step before."""
        return state

    def leave(self, f: Slopes, before: Slopes, state: Any) -> Any:
        """The inverse of `enter`."""
        return state
