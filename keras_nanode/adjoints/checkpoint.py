"""The exact gradient of the discrete solution from a few kept states."""

import dataclasses
import math

import keras

from keras_nanode import checks
from keras_nanode.adaptive import Doubling, Squares, record
from keras_nanode.adjoints.adjoint import (
    Adjoint,
    Pull,
    nan_if_failed,
    zeros_like,
)
from keras_nanode.adjoints.deferred import Deferred
from keras_nanode.solve import (
    Legs,
    balanced,
    gather,
    read,
    solve,
    sweep,
    write,
)
from keras_nanode.steps import FixedSteps
from keras_nanode.stops import RecordedSteps
from keras_nanode.vector_field import Structure


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Checkpoint(Adjoint):
    """The exact gradient of the discrete solution from a few kept states.

    The forward pass keeps `num` states at most; the backward pass recomputes the states
    from one to the next, one such leg at a time. Memory is O(num + n / num) states and
    the work one more forward pass. Where it saves memory each leg is a step shorter
    than the one before, for the states of the earlier ones take the place of the later.

    The number n of adaptive steps is not known beforehand. With a `num`, up to `num`
    states are kept as they come, and every other one is dropped when they are too many.
    Without, the states 0, 1, 4, 9, ... are kept, which are ceil(sqrt(n)).

    Args:
        num: Positive integer, how many states to keep. None keeps ceil(sqrt(n)) for n
            steps; n or more keeps them all and recomputes nothing.

    Raises:
        ValueError: if `num` is not a positive integer.

    Example:

    >>> import keras
    >>> from keras_nanode import Checkpoint, layers
    >>> ode = layers.ODE(
    ...     keras.layers.Dense(3), "euler", steps=8, adjoint=Checkpoint(num=8)
    ... )
    >>> ode(keras.ops.ones((2, 3))).shape[1]
    3

    References:
        - [Chen et al., 2016](https://arxiv.org/abs/1604.06174)
    """

    num: int | None = None

    def __post_init__(self):
        if self.num is not None:
            checks.integer("num", self.num)

    def get_config(self):
        return {"num": self.num}

    def check(self, solver):
        # The default, and so the wish for whatever gradient there is.
        if self.num is not None:
            super().check(solver)

    def deferred(self, steps):
        del steps
        return Deferred(self)

    def fixed(self, problem, steps, y0, params):
        count, limit = problem.num_used * steps, problem.num_intervals * steps
        if problem.count is None and isinstance(limit, int):
            num = min(self.num or math.ceil(math.sqrt(limit)), limit)
            legs = Legs.of(limit, num)
            # Legs of one step do not bound how many steps' weights are made at once.
            batch = balanced(limit if legs.each_step else legs.first_length)
        else:
            legs, batch = Legs.equal(count, limit, self.num), 1

        def forward(problem, y0, params):
            plan = FixedSteps(problem, steps, batch)
            ends, _, saved = solve(plan, y0, params, legs)
            return ends, (y0, params, saved)

        def backward(problem, residuals, cotangents):
            y0, params, saved = residuals
            pull = Pull(FixedSteps(problem, steps, batch), cotangents)
            return _back(pull, params, y0, legs, saved)

        return self.with_gradient(problem, forward, backward, y0, params)

    def adaptive(self, problem, control, y0, params):
        limit, num = control.max_steps, self.num
        rule = Doubling(limit, num) if num else Squares(limit)

        def forward(problem, y0, params):
            found = record(problem, control, y0, params, rule)
            steps = found.steps
            recorded = (steps.edges, steps.passed, steps.count)
            kept = (found.saved, found.mark)
            residuals = (y0, params, recorded, kept, found.stats["status"])
            return (found.ends, found.stats), residuals

        def backward(problem, residuals, cotangents):
            y0, params, recorded, (saved, mark), _ = residuals
            steps = RecordedSteps(problem, *recorded)
            pull = Pull(steps, cotangents[0])
            return _back(pull, params, y0, rule.legs(steps.count, mark), saved)

        return self.with_gradient(problem, forward, nan_if_failed(backward), y0, params)


def _back(pull: Pull, params, y0, legs: Legs, saved: Structure):
    """The gradients in y0 and the parameters, from the first states of the legs."""
    steps, first_state = pull.steps, read(saved, 0)
    carry = (pull.start(first_state), zeros_like(params))
    if legs.each_step:

        def one(i, step, a):
            return pull.back(i, step, read(saved, i), a)

        a, gradient = gather(steps, params, 0, steps.count, one, *carry)
        return pull.to_y0(params, y0, a, gradient)

    def leg(s, carry):
        a, gradient, saved = carry
        s = legs.number - 1 - s
        first, length = legs.leg(s)
        slot = s - first

        def forth(i, step, carry):
            state, saved = carry
            state = step.take(state, step.theta)
            return state, write(saved, slot + i + 1, state)

        def back(i, step, a):
            return pull.back(i, step, read(saved, slot + i), a)

        # The leg's last step is not taken: only its input is needed.
        carry = (read(saved, s), saved)
        _, saved = sweep(steps, params, first, length - 1, forth, carry)
        return *gather(steps, params, first, length, back, a, gradient), saved

    a, gradient, _ = steps.loop(legs.number, leg, (*carry, saved))
    return pull.to_y0(params, y0, a, gradient)
