"""What is solved."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_nanode.solvers import Solver
from keras_nanode.vector_field import VectorField


@dataclasses.dataclass(frozen=True)
class Problem:
    """dy/dt = field, from `times[0]` on.

    Attributes:
        field: The vector field.
        solver: The solver.
        times: Where y is wanted, in one direction and different: float64, or a
            floating tensor, of which gradients may be taken.
        dtype: What steps are computed in.
        count: How many intervals between the times there are, if that is a tensor: the
            times behind them are not used.
    """

    field: VectorField
    solver: Solver
    times: Any
    dtype: str
    count: Any = None

    @property
    def num_intervals(self):
        """How many there are at most; a tensor if the number of times is not known."""
        number = self.times.shape[0]
        return (ops.shape(self.times)[0] if number is None else number) - 1

    @property
    def num_used(self):
        """How many there are."""
        return self.num_intervals if self.count is None else self.count

    @property
    def several(self) -> bool:
        """Whether there may be more than one interval."""
        number = self.num_intervals
        return not isinstance(number, int) or number > 1

    @property
    def direction(self):
        """1 forwards in time, -1 backwards."""
        first, last = self.times[0], self.times[-1]
        if isinstance(self.times, np.ndarray):
            return float(np.sign(last - first))
        return ops.cast(ops.sign(last - first), self.dtype)

    @property
    def set_of_nodes(self) -> list[int]:
        """For each of the solver's nodes, which set of a step's weights it uses."""
        return self.field.weights.set_of_nodes(len(self.solver.nodes))

    def reverse(self) -> "Problem":
        """The same backwards in time."""
        if isinstance(self.times, np.ndarray):
            return dataclasses.replace(self, times=self.times[::-1])
        last = ops.cast(self.num_used, "int32")
        numbers = last - ops.arange(self.num_intervals + 1, dtype="int32")
        numbers = ops.where(numbers > 0, numbers, 0)
        return dataclasses.replace(self, times=ops.take(self.times, numbers))
