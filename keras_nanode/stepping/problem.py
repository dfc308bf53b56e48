"""The problem that a solver solves."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_nanode.arrays import take
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.solvers import Solver
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class Problem:
    """dy/dt = field, from `times[0]` on.

    Attributes:
        field: The vector field.
        solver: The solver.
        times: The times at which y is wanted, in one direction and all different: a
            float64 array, or a floating tensor that may have a gradient.
        dtype: The dtype in which steps are computed.
        count: The number of intervals between the times, if that is a tensor. Later
            entries of `times` are not used.
    """

    field: VectorField
    solver: Solver
    times: Any
    dtype: str
    count: Any = None

    @property
    def tensors(self) -> tuple[Structure, dict]:
        """The constants of the vector field, and the attributes that are tensors."""
        parts = {"times": self.times, "count": self.count}
        found = {key: x for key, x in parts.items() if ops.is_tensor(x)}
        return self.field.constants, found

    def with_tensors(self, tensors: tuple[Structure, dict]) -> "Problem":
        """The problem with other tensors in the place of its `tensors`."""
        constants, found = tensors
        field = self.field.with_constants(constants)
        return dataclasses.replace(self, field=field, **found)

    @property
    def num_intervals(self):
        """The largest number of intervals; a tensor if the length of `times` is."""
        number = self.times.shape[0]
        return (ops.shape(self.times)[0] if number is None else number) - 1

    @property
    def num_used(self):
        """The number of intervals."""
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

    def reverse(self) -> "Problem":
        """The same problem backwards in time."""
        if isinstance(self.times, np.ndarray):
            return dataclasses.replace(self, times=self.times[::-1])
        last = ops.cast(self.num_used, "int32")
        numbers = last - ops.arange(self.num_intervals + 1, dtype="int32")
        numbers = ops.where(numbers > 0, numbers, 0)
        return dataclasses.replace(self, times=take(self.times, numbers))
