"""A fixed grid of explicit Runge-Kutta steps. Knows nothing about gradients."""

import numpy as np
from keras import ops, tree

from keras_nanode import backend
from keras_nanode.tableaus import Tableau
from keras_nanode.vector_field import Structure, VectorField, between


class Grid:
    """A vector field with all steps of a solver laid out beforehand.

    Between neighbouring `times` lie `steps` equal steps. They are numbered through, and
    step i has the length `h[i]` and its stages at the times `t[i]`, all computed in
    float64 from the integer i before they are rounded to `dtype`.
    """

    def __init__(
        self,
        field: VectorField,
        tableau: Tableau,
        times: np.ndarray,
        steps: int,
        dtype: str,
    ):
        self.field, self.tableau, self.times = field, tableau, times
        self.steps, self.dtype = steps, dtype
        self.intervals = len(times) - 1
        fractions = np.arange(steps + 1) / steps
        edges = between(times[:-1, None], times[1:, None], fractions)
        start, end = edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1)
        c = tableau.c
        stages = np.stack([between(start, end, place) for place in c], axis=1)
        self.h = ops.convert_to_tensor((end - start).astype(dtype))
        self.t = ops.convert_to_tensor(stages.astype(dtype))
        self.located = field.weights.locate(start, end, c, dtype)
        self.slots = field.weights.slots(c)

    def reverse(self) -> "Grid":
        """The same steps taken backwards."""
        return Grid(self.field, self.tableau, self.times[::-1], self.steps, self.dtype)

    def time(self, i):
        """The length of step i and the times of its stages."""
        return ops.take(self.h, i), ops.take(self.t, i, axis=0)

    def step(self, i, y: Structure, weights: list[Structure]) -> Structure:
        """The state after step i, which starts at y."""
        h, t = self.time(i)
        k: list[Structure] = []
        for stage, row in enumerate(self.tableau.a):
            theta = weights[self.slots[stage]]
            k.append(self.field.func(t[stage], advance(y, h, row, k), theta))
        return advance(y, h, self.tableau.b, k)

    def num_legs(self, length: int) -> int:
        """How many legs of `length` steps an interval has; the last may be shorter."""
        return -(-self.steps // length)

    def leg(self, interval, leg, length: int, params):
        """A leg's first step, its number of steps, their times and their weights."""
        first = interval * self.steps + leg * length
        count = length
        if self.steps % length:
            count = ops.minimum(length, self.steps - leg * length)
        # A short last leg of all would run over the end: those rows are never used.
        last = self.intervals * self.steps - 1
        steps = ops.minimum(first + ops.arange(length, dtype="int32"), last)
        return (
            first,
            count,
            steps,
            self.field.weights.prepare(params, self.located, steps),
        )


def advance(y, h, coefficients, k):
    """y + h sum_i coefficients_i k_i for a structure y."""
    terms = [(c, slope) for c, slope in zip(coefficients, k, strict=True) if c]
    if not terms:
        return y
    scale, slopes = zip(*terms, strict=True)

    def leaf(y, *slopes):
        products = [x if c == 1 else c * x for c, x in zip(scale, slopes, strict=True)]
        return y + ops.cast(h, y.dtype) * sum(products[1:], start=products[0])

    return tree.map_structure(leaf, y, *slopes)


def buffers(size: int, y: Structure) -> Structure:
    return tree.map_structure(lambda x: backend.buffer(size, x), y)


def write(saved: Structure, i, y: Structure) -> Structure:
    return tree.map_structure(lambda b, x: backend.write(b, i, x), saved, y)


def read(saved: Structure, i) -> Structure:
    return tree.map_structure(lambda b: backend.read(b, i), saved)


def solve(grid: Grid, y0: Structure, params: Structure, length: int, save_legs=False):
    """Runs through the grid in legs of `length` steps.

    Returns:
        The states at `grid.times[1:]`, stacked, and the buffers of the states at the
        start of every leg (None unless `save_legs`).
    """
    num_legs = grid.num_legs(length)

    def run_interval(i, carry):
        def run_leg(s, carry):
            y, saved = carry
            if save_legs:
                saved = write(saved, i * num_legs + s, y)
            first, count, _, prepared = grid.leg(i, s, length, params)

            def step(j, y):
                return grid.step(first + j, y, grid.field.weights.at(prepared, j))

            return backend.fori_loop(count, step, y), saved

        y, saved, ends = carry
        y, saved = backend.fori_loop(num_legs, run_leg, (y, saved))
        return y, saved, write(ends, i, y)

    saved = buffers(grid.intervals * num_legs, y0) if save_legs else ()
    ends = buffers(grid.intervals, y0)
    _, saved, ends = backend.fori_loop(grid.intervals, run_interval, (y0, saved, ends))
    return tree.map_structure(backend.stack, ends), saved
