"""Equal steps, computed before the solve."""

import dataclasses
import functools
import math

import numpy as np
from keras import ops

from keras_nanode import backend
from keras_nanode.arrays import as_tensor, loops_in_python, namespace, take
from keras_nanode.fields.pieces import between
from keras_nanode.stepping.checkpoints import Segments
from keras_nanode.stepping.loops import backward_loop, balanced, solve
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.step import Batch, Steps
from keras_nanode.stepping.stepping import Replayable, Solution
from keras_nanode.structures import row, zeros_like


@dataclasses.dataclass(frozen=True)
class Fixed(Replayable):
    """`num` equal steps between neighbouring times."""

    num: int

    def checkpoints(self, problem: Problem, num: int | None) -> Segments:
        count = problem.num_used * self.num
        limit = problem.num_intervals * self.num
        if problem.count is None and isinstance(limit, int):
            num = min(num or math.ceil(math.sqrt(limit)), limit)
            return Segments.split(limit, num)
        return Segments.of_one_length(count, limit, num)

    def _batch_size(self, problem: Problem, segments: Segments | None) -> int:
        """The number of steps whose weights are computed at once."""
        # A loop whose length is a tensor cannot be differentiated within another loop.
        if problem.count is not None:
            return 1
        # Segments of one step do not limit the batch size.
        if segments is None or segments.each_step:
            return balanced(problem.num_intervals * self.num)
        return balanced(segments.first_length)

    def steps(self, problem, record=(), checkpoints=None):
        return FixedSteps(problem, self.num, self._batch_size(problem, checkpoints))

    def run(self, problem, y0, params, checkpoints=None):
        steps = self.steps(problem, (), checkpoints)
        ys, state, saved = solve(steps, y0, params, checkpoints)
        return Solution(ys, state=state, saved=(saved, ()))

    def choose(self, problem, y0, params):
        # Equal steps are known without a solve.
        return Solution(None)

    def run_augmented(self, problem, params, system, y):
        steps = FixedSteps(problem, self.num, balanced(self.num))

        def body(i, step, y):
            evaluate = functools.partial(system.evaluate, step)
            return problem.solver.step_with_integrals(step, evaluate, y)

        def interval(i, carry):
            y, gradient = carry
            y = system.meet(i, y)
            span = (i * self.num, self.num)
            return backward_loop(steps, params, *span, body, y, gradient, reverse=False)

        return steps.loop(problem.num_used, interval, (y, zeros_like(params))), None


class FixedSteps(Steps):
    """`steps` equal steps between neighbouring times, computed before the solve.

    If the problem's times are a NumPy array, the lengths and times of the steps are
    computed in float64, and then rounded. If they are a tensor, its dtype takes the
    place of float64. If Python runs the loop over the steps, lengths stay numbers.

    Args:
        problem: The problem.
        steps: Positive integer, steps between neighbouring times.
        batch_size: Positive integer, the number of steps in a batch.
    """

    def __init__(self, problem: Problem, steps: int, batch_size: int):
        self.problem, self.steps = problem, steps
        self.batch_size = batch_size
        self.count = problem.num_used * steps
        self.limit = problem.num_intervals * steps
        times, nodes = problem.times, np.array(problem.solver.nodes)
        xp = namespace(times)
        fractions = np.arange(steps + 1) / steps
        if xp is ops:
            fractions, nodes = (ops.cast(x, times.dtype) for x in (fractions, nodes))
        edges = between(times[:-1, None], times[1:, None], fractions[None])
        start = xp.reshape(edges[:, :-1], (-1,))
        end = xp.reshape(edges[:, 1:], (-1,))
        at = between(start[:, None], end[:, None], nodes[None])
        lengths = xp.repeat((times[1:] - times[:-1]) / steps, steps)
        known = xp is np and loops_in_python()
        self.h = lengths if known else as_tensor(lengths, problem.dtype)
        self.times = as_tensor(at, problem.dtype)
        self.jumps = None
        weights = problem.field.weights
        jumps = problem.solver.carries_slopes and bool(weights.breakpoints)
        piece = weights.pieces(start, end)
        self.located = weights.locate(piece, start, end, at, problem.dtype, jumps)
        if jumps:
            changes = xp.concatenate([piece[:1] != piece[:1], piece[1:] != piece[:-1]])
            self.jumps = ops.convert_to_tensor(changes)

    def loop(self, count, body, state, limit=None):
        """Like `backend.fori_loop`, over steps or over their batches or segments."""
        # On a CPU, JAX's convolutions are 10 to 20 times slower inside a loop.
        numbers = isinstance(count, int) and isinstance(self.count, int)
        evaluations = self.limit * self.problem.solver.evaluations
        if not numbers or evaluations > backend.most_unrolled():
            return backend.fori_loop(count, body, state, limit)
        for i in range(count):
            state = body(i, state)
        return state

    def interval(self, i):
        return i // self.steps

    def batch(self, first):
        # A short last batch would run past the end. Those rows are never used.
        xp = namespace(self.h)
        indices = first + xp.arange(self.batch_size, dtype="int32")
        indices = xp.minimum(indices, self.limit - 1)
        given = (self.times, self.located, self.jumps)
        others = (x if x is None else row(x, indices) for x in given)
        return Batch(take(self.h, indices), *others)
