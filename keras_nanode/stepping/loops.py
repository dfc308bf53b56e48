"""The loops over steps whose times are known, forwards and backwards.

    for each batch of steps:             the weights of its steps are computed at once
        for each step:                   one step of the solver, or its vjp
            for each evaluation: f(t, y, theta)
        backwards only: the cotangents of the batch's weights are contracted at once

`solve` takes all steps, segment by segment if it keeps states.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_nanode.stepping.checkpoints import Segments
from keras_nanode.stepping.step import Steps
from keras_nanode.structures import buffers, stack, stacked, write
from keras_nanode.tree import Structure

# The default number of steps whose weights are computed at once.
BATCH = 16


def balanced(count: int, most: int = BATCH) -> int:
    """The size, at most `most`, of nearly equal batches of `count` steps."""
    return -(-count // -(-count // most))


def _loop_over_batches(
    steps: Steps,
    params: Structure,
    first: Any,
    count: Any,
    run: Callable,
    carry: Any,
    reverse: bool = False,
    limit: Any = None,
    longest: int | None = None,
) -> Any:
    """Runs `carry = run(start, length, batch, carry)` for each prepared batch, of which
    the first `length` steps are taken. Step `start` is its first."""
    size = steps.batch_size
    known = isinstance(count, int)
    # A loop of one round takes time to trace, and memory as long as its graph is kept.
    one = longest and longest <= size and not known
    number = 1 if one else (count + size - 1) // size
    full = size == 1 or (known and count % size == 0)

    def body(b, carry):
        b = number - 1 - b if reverse else b
        start, left = first + b * size, count - b * size
        if full:
            length = size
        elif isinstance(left, int):
            length = min(size, left)
        else:
            length = ops.minimum(size, left)
        batch = steps.batch(start).prepare(steps.problem, params)
        return run(start, length, batch, carry)

    return steps.loop(number, body, carry, limit)


def forward_loop(
    steps: Steps,
    params: Structure,
    first: Any,
    count: Any,
    body: Callable,
    carry: Any,
    limit: Any = None,
    longest: int | None = None,
) -> Any:
    """Runs `carry = body(i, step, carry)` for `count` steps from `first` on.

    With a `limit` on `count`, the loop can be differentiated. With `longest`, the
    largest `count`, there is no loop over batches if one is enough.
    """

    def run(start, length, batch, carry):
        def one(j, carry):
            return body(start + j, batch.step(j).absorb_h(), carry)

        most = None if limit is None else steps.batch_size
        return steps.loop(length, one, carry, most)

    return _loop_over_batches(
        steps, params, first, count, run, carry, limit=limit, longest=longest
    )


def backward_loop(
    steps: Steps,
    params: Structure,
    first: Any,
    count: Any,
    body: Callable,
    carry: Any,
    gradient: Structure,
    reverse: bool = True,
    longest: int | None = None,
) -> tuple[Any, Structure]:
    """Runs `carry, cotangents = body(i, step, carry)` for each step, last to first.

    Args:
        steps, params, first, count: The steps from `first` on, and the parameters.
        body: Gives the cotangents of each set of the step's weights.
        carry: The first carry.
        gradient: The initial value, to which the parameters' gradient is added.
        reverse: False starts with the first step.
        longest: As in `forward_loop`.

    Returns:
        The last carry, and the sum of `gradient` and the steps' contributions.
    """
    weights = steps.problem.field.weights

    def run(start, length, batch, carry):
        carry, gradient = carry

        def one(j, carry):
            carry, collected = carry
            j = length - 1 - j if reverse else j
            step = batch.step(j).absorb_h()
            carry, cotangents = body(start + j, step, carry)
            return carry, weights.collect(collected, j, step.release_h(cotangents))

        collected = weights.collector(batch.weights, steps.batch_size, gradient)
        carry, collected = steps.loop(length, one, (carry, collected))
        return carry, weights.total(params, gradient, collected, batch.located)

    carry = (carry, gradient)
    return _loop_over_batches(
        steps, params, first, count, run, carry, reverse, longest=longest
    )


def solve(
    steps: Steps,
    y0: Structure,
    params: Structure,
    segments: Segments | None = None,
    limit: int | None = None,
) -> tuple[Structure, Any, Structure]:
    """Takes all steps.

    Args:
        steps: The steps.
        y0: The state at the first time.
        params: The parameters of the vector field.
        segments: Segments whose first states are kept. None keeps no state.
        limit: As in `forward_loop`.

    Returns:
        y at the output times, stacked; the last state; and buffers of the kept states.
    """
    solver, several = steps.problem.solver, steps.problem.several
    every = segments is not None and segments.each_step

    def body(i, step, carry):
        state, ys, saved = carry
        saved = write(saved, i, state) if every else saved
        state = step.take(state, step.theta)
        if several:
            # Each state overwrites the one before; the last of an interval remains.
            ys = write(ys, steps.interval(i), solver.value(state))
        return state, ys, saved

    def f(i, y):
        # Only some solvers evaluate the vector field before the first step.
        first = steps.batch(0).prepare(steps.problem, params).step(0)
        return first.slopes(first.theta)(i, y)

    state = solver.start(f, y0)
    ys = buffers(steps.problem.num_intervals, y0) if several else ()
    carry = (state, ys, buffers(segments.capacity, state) if segments else ())
    if segments is None or every:
        carry = forward_loop(steps, params, 0, steps.count, body, carry, limit)
    else:

        def segment(s, carry):
            state, ys, saved = carry
            carry = (state, ys, write(saved, s, state))
            span, longest = segments.span(s), segments.longest
            return forward_loop(steps, params, *span, body, carry, longest=longest)

        carry = steps.loop(segments.number, segment, carry)
    state, ys, saved = carry
    return stacked(ys) if several else stack([solver.value(state)]), state, saved
