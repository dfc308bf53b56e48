"""Steps that an adaptive solve accepted, to be taken again."""

from keras import ops

from keras_nanode import backend
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.step import Steps
from keras_nanode.stepping.stops import Stops


class RecordedSteps(Steps):
    """Steps of which only the places of their ends are known.

    Args:
        problem: What is solved.
        edges: `(limit + 1,)`, where steps begin: distances from the stops before.
        passed: `(limit + 1,)`, how many stops are there or before.
        count: Scalar, how many steps there are; the rest of `edges` is not used.
    """

    batch_size = 1

    def __init__(self, problem: Problem, edges, passed, count):
        self.problem, self.edges, self.passed = problem, edges, passed
        self.count, self.stops = count, Stops.of(problem)
        self.limit = edges.shape[0] - 1

    def interval(self, i):
        return self.stops.interval(ops.take(self.passed, i))

    def loop(self, count, body, state, limit=None):
        return backend.fori_loop(count, body, state, limit)

    def batch(self, first):
        start, end = (ops.take(self.edges, [first + i]) for i in (0, 1))
        stop, behind = (ops.take(self.passed, [first + i]) for i in (0, 1))
        length = ops.take(ops.stop_gradient(self.stops.lengths), stop)
        end = ops.where(behind > stop, length, end)
        return self.stops.batch(stop, start, end)
