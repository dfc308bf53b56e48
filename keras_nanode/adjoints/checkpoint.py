"""The exact gradient of the discrete solution from a few kept states."""

import dataclasses
import math

import keras
from keras import ops, tree

from keras_nanode import backend, checks
from keras_nanode.adaptive import record
from keras_nanode.adjoints.adjoint import (
    Adjoint,
    Pull,
    spoil_failed,
    with_gradient,
    zeros_like,
)
from keras_nanode.solve import (
    Legs,
    balanced,
    buffers,
    gather,
    read,
    row,
    solve,
    sweep,
    write,
)
from keras_nanode.steps import FixedSteps, RecordedSteps


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Checkpoint(Adjoint):
    """The exact gradient of the discrete solution from a few kept states.

    The forward pass keeps `num` states, evenly spread; the backward pass recomputes
    the states from one to the next, one such leg at a time. Memory is O(num + n / num)
    states and the work one more forward pass.

    The number n of adaptive steps is not known beforehand. With a `num`, up to `num`
    states are kept as they come, and every other one is dropped when they are too many.
    Without, the forward pass keeps the accepted times alone, and the backward pass goes
    through them once more to keep ceil(sqrt(n)) states.

    Args:
        num: Positive integer, how many states to keep. None keeps ceil(sqrt(n)) for n
            steps, which needs the least memory; n or more keeps them all and recomputes
            nothing.

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
            checks.count("num", self.num)

    def get_config(self):
        return {"num": self.num}

    def fixed(self, problem, steps, y0, params):
        count = problem.num_intervals * steps
        num = min(self.num or math.ceil(math.sqrt(count)), count)
        legs = Legs.of(count, math.ceil(count / num))
        # Legs of one step do not bound how many steps' weights are made at once.
        batch = balanced(count if legs.stride == 1 else legs.stride)

        def forward(problem, y0, params):
            plan = FixedSteps(problem, steps, batch)
            ends, _, saved = solve(plan, y0, params, legs)
            # Stacked, since a SavedModel cannot hold a TensorArray of TensorFlow.
            return ends, (y0, params, tree.map_structure(backend.stack, saved))

        def backward(problem, residuals, cotangents):
            y0, params, saved = residuals
            pull = Pull(FixedSteps(problem, steps, batch), cotangents)
            return _back(pull, params, y0, legs, lambda s: row(saved, s))

        return with_gradient(problem, forward, backward, y0, params)

    def adaptive(self, problem, control, y0, params):
        def forward(problem, y0, params):
            found = record(problem, control, y0, params, self.num)
            steps = found.steps
            recorded = (steps.edges, steps.count, steps.arrivals)
            kept = (tree.map_structure(backend.stack, found.saved), found.stride)
            residuals = (y0, params, recorded, kept, found.stats["status"])
            return (found.ends, found.stats), residuals

        def backward(problem, residuals, cotangents):
            y0, params, recorded, (saved, stride), status = residuals
            steps = RecordedSteps(problem, *recorded)
            pull = Pull(steps, spoil_failed(cotangents[0], status))
            if self.num is not None:
                # Doubled until `num` legs reach over all steps.
                longest = 2 ** math.ceil(math.log2(max(1, steps.limit / self.num)))
                legs = Legs(steps.count, stride, self.num + 1, longest)
                return _back(pull, params, y0, legs, lambda s: row(saved, s))
            root = math.ceil(math.sqrt(steps.limit))
            stride = ops.ceil(ops.sqrt(ops.cast(steps.count, "float32")))
            stride = ops.maximum(ops.cast(stride, "int32"), 1)
            legs = Legs(steps.count, stride, root, root)
            _, _, saved = solve(steps, y0, params, legs)
            return _back(pull, params, y0, legs, lambda s: read(saved, s))

        return with_gradient(problem, forward, backward, y0, params)


def _back(pull: Pull, params, y0, legs: Legs, kept):
    """The gradients in y0 and the parameters; `kept(s)` is where leg s starts."""
    steps = pull.steps
    if legs.longest == 1:

        def one(i, step, a):
            return pull.back(i, step, kept(i), a)

        a = pull.start(kept(0))
        a, gradient = gather(steps, params, 0, steps.count, one, a, zeros_like(params))
        return pull.to_y0(params, y0, a, gradient)

    def leg(s, carry):
        a, gradient = carry
        s = legs.number - 1 - s
        first, length = legs.leg(s)
        state = kept(s)

        def forth(i, step, carry):
            state, inputs = carry
            inputs = write(inputs, i - first, state)
            return step.take(state, step.theta), inputs

        def back(i, step, a):
            return pull.back(i, step, read(inputs, i - first), a)

        # The leg's last step is not taken: only its input is needed.
        carry = (state, buffers(legs.longest, state))
        state, inputs = sweep(steps, params, first, length - 1, forth, carry)
        inputs = write(inputs, length - 1, state)
        return gather(steps, params, first, length, back, a, gradient)

    carry = (pull.start(kept(0)), zeros_like(params))
    a, gradient = backend.fori_loop(legs.number, leg, carry)
    return pull.to_y0(params, y0, a, gradient)
