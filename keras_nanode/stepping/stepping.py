"""The objects that take the steps, made from the user's argument `steps`."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from keras_nanode.stepping.checkpoints import Rule, Segments
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.step import Steps
from keras_nanode.structures import nan_rows
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class Solution:
    """The result of a solve.

    Attributes:
        ys: y at the output times, stacked; NaN at those that were not reached.
        stats: A dict of scalars: `num_steps`, `num_accepted`, `num_rejected`,
            `num_fevals`, `status`, `reached` (the number of output times reached) and
            where the solve stopped: `t`, `h`. Empty for equal steps, whose statistics
            are known.
        unreached: `(intervals,)`, which output times were not reached. None for none.
        state: The solver's last state, only for equal steps.
        record: The data from which `Stepping.steps` makes the same steps again.
        saved: Buffers of kept states, and the last mark of the rule that kept them.
    """

    ys: Structure
    stats: dict = dataclasses.field(default_factory=dict)
    unreached: Any = None
    state: Any = ()
    record: Any = ()
    saved: tuple[Structure, Any] = ((), ())

    def mark_unreached(self, ys: Structure) -> Structure:
        """`ys` with NaN in the rows of output times that were not reached."""
        return ys if self.unreached is None else nan_rows(ys, self.unreached)


class Augmented(NamedTuple):
    """A system whose stages give a slope and a second integrand.

    Attributes:
        evaluate: `evaluate(step, i, y)` gives the slope at node i of a step, and the
            integrand for the set of weights there.
        meet: `y = meet(interval, y)` changes the state at the start of an interval.
    """

    evaluate: Callable
    meet: Callable


class Stepping(abc.ABC):
    """How the steps of a solve are chosen and taken."""

    @abc.abstractmethod
    def run(
        self,
        problem: Problem,
        y0: Structure,
        params: Structure,
        checkpoints: Segments | Rule | None = None,
    ) -> Solution:
        """Solves, and keeps the states that `checkpoints` selects."""


class Replayable(Stepping):
    """Steps that can be taken again, and back: what the adjoints need."""

    @abc.abstractmethod
    def checkpoints(self, problem: Problem, num: int | None) -> Segments | Rule:
        """Which states to keep for a gradient, at most `num`.

        None keeps about sqrt(n) states for n steps.
        """

    @abc.abstractmethod
    def choose(self, problem: Problem, y0: Structure, params: Structure) -> Solution:
        """Finds the steps. The solution has a `record`, and its `ys` are not used."""

    @abc.abstractmethod
    def steps(
        self,
        problem: Problem,
        record: Any,
        checkpoints: Segments | Rule | None = None,
    ) -> Steps:
        """The steps that were taken, to take them again."""

    @abc.abstractmethod
    def run_augmented(
        self, problem: Problem, params: Structure, system: Augmented, y: Structure
    ) -> tuple[tuple[Structure, Structure], Any]:
        """Integrates an augmented system and its second integrand.

        Returns:
            A pair of the last state and the integral, as a contribution to the gradient
            of the parameters; and whether the solve failed, or None if it cannot fail.
        """
