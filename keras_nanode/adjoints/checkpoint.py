"""The exact gradient of the discrete solution from a few kept states."""

import dataclasses

import keras

from keras_nanode import checks
from keras_nanode.adjoints.adjoint import CustomGradient
from keras_nanode.adjoints.backward_pass import BackwardPass
from keras_nanode.stepping.loops import backward_loop, forward_loop
from keras_nanode.structures import read, write, zeros_like


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Checkpoint(CustomGradient):
    """The exact gradient of the discrete solution from a few kept states.

    The forward pass keeps at most `num` states. They divide the steps into segments,
    and the backward pass recomputes the states of one segment at a time. Memory is
    O(num + n / num) states, and the extra work is one forward pass. If it saves memory,
    each segment is a step shorter than the one before it: the recomputed states of an
    early segment overwrite the kept states of later ones.

    The number n of adaptive steps is not known beforehand. With a `num`, all states are
    kept at first, and every other one is dropped whenever there are more than `num`.
    Without a `num`, the first 16 states are kept, and then fewer and fewer: at most
    16 + ceil(sqrt(n)) in all. So a solve of up to 16 steps recomputes no state.

    Args:
        num: Positive integer, the number of states to keep. None keeps ceil(sqrt(n))
            of n fixed steps. With a `num` of n or more no state is recomputed.

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
        # Without a `num` this is the default, which accepts any gradient there is.
        if self.num is not None:
            super().check(solver)

    def keeps_states(self, steps):
        del steps
        return True

    def checkpoints(self, problem, stepping):
        return stepping.checkpoints(problem, self.num)

    def kept(self, solution):
        return solution.record, solution.saved

    def backward(self, problem, stepping, primals, kept, cotangents):
        y0, params = primals
        record, (saved, mark) = kept
        checkpoints = self.checkpoints(problem, stepping)
        steps = stepping.steps(problem, record, checkpoints)
        segments = checkpoints.segments(steps.count, mark)
        way = BackwardPass(steps, cotangents)
        carry = (way.start(read(saved, 0)), zeros_like(params))

        def body(i, step, a):
            return way.back(i, step, read(saved, i), a)

        if segments.each_step:
            a, gradient = backward_loop(steps, params, 0, steps.count, body, *carry)
            return way.to_y0(params, y0, a, gradient)

        def segment(s, carry):
            a, gradient, saved = carry
            s = segments.number - 1 - s
            first, length = segments.span(s)
            # The kept state is in slot s. The recomputed states follow it.
            slot = s - first

            def forth(i, step, carry):
                state, saved = carry
                state = step.take(state, step.theta)
                return state, write(saved, slot + i + 1, state)

            def back(i, step, a):
                return way.back(i, step, read(saved, slot + i), a)

            # Do not take the segment's last step: only its input is needed.
            carry, longest = (read(saved, s), saved), segments.longest
            _, saved = forward_loop(
                steps, params, first, length - 1, forth, carry, longest=longest
            )
            carry = backward_loop(
                steps, params, first, length, back, a, gradient, longest=longest
            )
            return *carry, saved

        a, gradient, _ = steps.loop(segments.number, segment, (*carry, saved))
        return way.to_y0(params, y0, a, gradient)
