"""The loops over steps. Knows nothing about gradients.

Steps are taken in batches, for which the weights are made at once.
"""

import dataclasses
import math
from typing import Any

from keras import ops, tree

from keras_nanode import backend
from keras_nanode.steps import FixedSteps, Step
from keras_nanode.stops import RecordedSteps
from keras_nanode.vector_field import Structure

Steps = FixedSteps | RecordedSteps

# How many steps' weights are made at once where no other number suggests itself.
BATCH = 16


def balanced(count: int, most: int = BATCH) -> int:
    """The size of equal batches of at most `most` that `count` steps divide into."""
    return -(-count // -(-count // most))


def _least(x, y):
    """The smaller of two integers: a Python number if both are."""
    numbers = isinstance(x, int) and isinstance(y, int)
    return min(x, y) if numbers else ops.minimum(x, y)


def _batches(steps: Steps, params, first, count, run, carry, reverse, limit):
    """`carry = run(start, length, located, prepared, get_step, carry)` over batches."""
    size = steps.batch
    num = (count + size - 1) // size
    whole = size == 1 or (isinstance(count, int) and count % size == 0)

    def body(b, carry):
        b = num - 1 - b if reverse else b
        start = first + b * size
        length = size if whole else _least(size, count - b * size)
        h, times, located, jumps = steps.rows(start)
        weights = steps.problem.field.weights
        prepared = weights.prepare(params, located)

        def get_step(j):
            def row(x):
                return ops.take(x, j, axis=0)

            theta = weights.at(prepared, j)
            jump = None if jumps is None else row(jumps)
            return Step(steps.problem, row(h), row(times), theta, jump).unit()

        return run(start, length, located, prepared, get_step, carry)

    return steps.loop(num, body, carry, limit)


def sweep(steps: Steps, params, first, count, body, carry, limit=None):
    """`carry = body(i, step, carry)` over `count` steps from `first` on.

    With a `limit` that `count` keeps to, the loop can be differentiated.
    """

    def run(start, length, located, prepared, get_step, carry):
        return steps.loop(
            length,
            lambda j, carry: body(start + j, get_step(j), carry),
            carry,
            None if limit is None else steps.batch,
        )

    return _batches(steps, params, first, count, run, carry, False, limit)


def gather(steps: Steps, params, first, count, body, carry, gradient, reverse=True):
    """`carry, cotangents = body(i, step, carry)` over steps, the last first.

    Returns:
        The last carry, and `gradient` plus what the cotangents of the steps' weights
        say of the parameters.
    """
    weights = steps.problem.field.weights

    def run(start, length, located, prepared, get_step, carry):
        carry, gradient = carry

        def one(j, carry):
            carry, collected = carry
            j = length - 1 - j if reverse else j
            carry, cotangents = body(start + j, get_step(j), carry)
            return carry, weights.collect(collected, j, cotangents)

        collected = weights.collector(prepared, steps.batch, gradient)
        carry, collected = steps.loop(length, one, (carry, collected))
        return carry, weights.spread(gradient, collected, located)

    carry = (carry, gradient)
    return _batches(steps, params, first, count, run, carry, reverse, None)


def buffers(size: int, y: Structure) -> Structure:
    return tree.map_structure(lambda x: backend.buffer(size, x), y)


def write(saved: Structure, i, y: Structure) -> Structure:
    return tree.map_structure(lambda b, x: backend.write(b, i, x), saved, y)


def read(saved: Structure, i) -> Structure:
    return tree.map_structure(lambda b: backend.read(b, i), saved)


def row(stacked: Structure, i) -> Structure:
    return tree.map_structure(lambda x: ops.take(x, i, axis=0), stacked)


def select(condition, x: Structure, y: Structure) -> Structure:
    return tree.map_structure(lambda x, y: ops.where(condition, x, y), x, y)


@dataclasses.dataclass(frozen=True)
class Legs:
    """`count` steps in legs, whose first states are kept and the others taken again.

    Leg s is `growth` steps longer than the one before it, but the last may be cut. If
    the last is gone through first, the states of leg s may take the slots from s on:
    those of the legs behind it are over.

    Args:
        count: How many steps there are, an integer or a tensor.
        first_length: The length of the first leg, likewise.
        growth: Integer.
        most: How many legs there are at most.
        slots: How many states of a leg and of the legs before it there are at most.
    """

    count: Any
    first_length: Any
    growth: int
    most: int
    slots: int

    @classmethod
    def of(cls, count: int, num: int) -> "Legs":
        """`num` legs at most, in as few slots as possible."""
        # Each a step shorter than the one before, unless the last ones would have none.
        if num * (num + 1) // 2 <= count:
            longest = -(-(count + num * (num - 1) // 2) // num)
            return cls(count, longest, -1, num, longest)
        length = -(-count // num)
        return cls(count, length, 0, num, num + length - 1)

    @classmethod
    def equal(cls, count, limit, num: int | None) -> "Legs":
        """`num` equal legs of a number that is not known, or ceil(sqrt(n)) of the
        `limit` of it, which is a tensor if it is not known either."""
        if not isinstance(limit, int):
            root = ops.ceil(ops.cast(limit, "float32") ** 0.5)
            num = num or ops.cast(ops.where(root > 1, root, 1.0), "int32")
        else:
            num = min(num or math.ceil(math.sqrt(limit)), limit)
        length = -(-count // num)
        length = ops.where(length > 1, length, 1)
        return cls(count, length, 0, num, num + -(-limit // num))

    @property
    def each_step(self) -> bool:
        """Whether every state is kept."""
        known = isinstance(self.first_length, int)
        return known and self.first_length == 1 and self.growth == 0

    @property
    def number(self):
        if isinstance(self.count, int):
            return sum(self._first(s) < self.count for s in range(self.most))
        firsts = self._first(ops.arange(self.most, dtype="int32"))
        return ops.sum(ops.cast(firsts < self.count, "int32"))

    def _first(self, s):
        return s * self.first_length + self.growth * (s * (s - 1) // 2)

    def leg(self, s):
        """The first step of leg s, and its number of steps."""
        first = self._first(s)
        return first, _least(self.first_length + self.growth * s, self.count - first)


def first_state(steps: Steps, params, y0: Structure):
    """The solver's state at the start."""

    def f(place, y):
        h, times, located, _ = steps.rows(0)
        weights = steps.problem.field.weights
        theta = weights.at(weights.prepare(params, located), 0)
        return Step(steps.problem, h[0], times[0], theta).slopes(theta)(place, y)

    return steps.problem.solver.start(f, y0)


def solve(
    steps: Steps,
    y0: Structure,
    params: Structure,
    legs: Legs | None = None,
    limit: int | None = None,
):
    """Takes all steps.

    Args:
        steps: The steps.
        y0: The state at the first time.
        params: The parameters of the vector field.
        legs: Keep the state at the start of each of these; None for no state.
        limit: As in `sweep`.

    Returns:
        y at the output times, stacked; the last state; the buffers of kept states.
    """
    solver, several = steps.problem.solver, steps.problem.several
    every = legs is not None and legs.each_step

    def body(i, step, carry):
        state, ends, saved = carry
        saved = write(saved, i, state) if every else saved
        state = step.take(state, step.theta)
        if several:
            # The last state of an interval stays.
            ends = write(ends, steps.interval(i), solver.value(state))
        return state, ends, saved

    state = first_state(steps, params, y0)
    ends = buffers(steps.problem.num_intervals, y0) if several else ()
    carry = (state, ends, buffers(legs.slots, state) if legs else ())
    if legs is None or every:
        carry = sweep(steps, params, 0, steps.count, body, carry, limit)
    else:

        def leg(s, carry):
            state, ends, saved = carry
            carry = (state, ends, write(saved, s, state))
            first, length = legs.leg(s)
            return sweep(steps, params, first, length, body, carry)

        carry = steps.loop(legs.number, leg, carry)
    state, ends, saved = carry
    if several:
        return tree.map_structure(backend.stack, ends), state, saved
    return tree.map_structure(lambda y: y[None], solver.value(state)), state, saved
