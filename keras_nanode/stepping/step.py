"""One step of a solver, and what a batch of steps is made of."""

import abc
import functools
from typing import Any, NamedTuple

from keras_nanode import backend
from keras_nanode.stepping.problem import Problem
from keras_nanode.structures import add, apply_if, row, zeros_like
from keras_nanode.tree import Structure


class Step:
    """One step: its length, and the vector field at its nodes.

    Args:
        problem: What is solved.
        h: The length.
        times: The times of the nodes.
        theta: The sets of weights.
        jump: Whether the weights jump where it begins; None if they never do. Then the
            last set is that of the step before, at this place.
        absorbed: What the weights were multiplied by; None for nothing.
    """

    def __init__(
        self,
        problem: Problem,
        h,
        times,
        theta: list[Structure],
        jump=None,
        absorbed=None,
    ):
        self.problem, self.h, self.times = problem, h, times
        self.theta, self.jump, self.absorbed = theta, jump, absorbed

    def absorb_h(self) -> "Step":
        """Folds h into the weights, where f is linear in them.

        The step has length 1 then, and saves one product with the whole state.
        """
        scale = self.problem.field.scale
        # Slopes that are carried on would be those of the step before, of another h.
        if scale is None or self.problem.solver.carries_slopes:
            return self
        theta = [scale(weights, self.h) for weights in self.theta]
        return Step(self.problem, 1.0, self.times, theta, self.jump, self.h)

    def release_h(self, cotangents: list[Structure]) -> list[Structure]:
        """The cotangents of the weights that h was folded into, of those of the
        step's."""
        scale = self.problem.field.scale
        if self.absorbed is None or scale is None:
            return cotangents
        # A product with h, or with 1, is its own transpose.
        return [scale(cotangent, self.absorbed) for cotangent in cotangents]

    def slopes(self, theta: list[Structure]):
        """f(i, y), the vector field at node i, with the given sets of weights."""
        func, sets = self.problem.field.func, self.problem.set_of_nodes
        return lambda i, y: func(self.times[i], y, theta[sets[i]])

    def linearize(self, i: int, y: Structure):
        """The slope at node i, and its pullback to y and the weights there."""
        func = self.problem.field.func
        theta = self.theta[self.problem.set_of_nodes[i]]
        return backend.vjp(functools.partial(func, self.times[i]), y, theta)

    def sum_by_set(self, nodes, cotangents: list[Structure]) -> list[Structure]:
        """The cotangent of each set of weights, of those of the weights at nodes."""
        sums: list = [None] * len(self.theta)
        # A stage for the error estimate alone has a node and no cotangent.
        for node, cotangent in zip(nodes, cotangents, strict=False):
            i = self.problem.set_of_nodes[node]
            sums[i] = cotangent if sums[i] is None else add(sums[i], cotangent)
        return [
            zeros_like(theta) if total is None else total
            for theta, total in zip(self.theta, sums, strict=True)
        ]

    def vjp(self, state, a):
        """The cotangents of the state before the step and of the step's weights, of
        the cotangent `a` of the state after it."""
        return self.problem.solver.vjp(self, state, a)

    def cross_jump(self, state, theta: list[Structure]):
        """The state at the start, if the weights jump there."""
        # The step before had the last set of weights at this node.
        before = self.slopes([theta[-1]] * len(theta))
        return self.problem.solver.cross_jump(self.slopes(theta), before, state)

    def uncross_jump(self, state, theta: list[Structure]):
        """The inverse of `cross_jump`."""
        before = self.slopes([theta[-1]] * len(theta))
        return self.problem.solver.uncross_jump(self.slopes(theta), before, state)

    def take(self, state, theta: list[Structure]):
        """The state after the step."""
        if self.jump is not None:
            cross = functools.partial(self.cross_jump, theta=theta)
            state = apply_if(self.jump, cross, state)
        return self.problem.solver.step(self.slopes(theta), self.h, state)

    def take_back(self, state, theta: list[Structure]):
        """The state before the step."""
        state = self.problem.solver.step_back(self.slopes(theta), self.h, state)
        if self.jump is None:
            return state
        uncross = functools.partial(self.uncross_jump, theta=theta)
        return apply_if(self.jump, uncross, state)


class Batch(NamedTuple):
    """The steps whose weights are made at once.

    Attributes:
        h: `(n,)`, lengths.
        times: `(n, nodes)`.
        located: What the weights need to know of the times.
        jumps: `(n,)`, whether the weights jump where a step begins, or None.
    """

    h: Any
    times: Any
    located: Any
    jumps: Any = None

    def prepare(self, problem: Problem, params: Structure):
        """The weights of all steps, and `step(j)`, the batch's j-th."""
        weights = problem.field.weights
        prepared = weights.prepare(params, self.located)

        def step(j) -> Step:
            h, times, jump = (
                x if x is None else row(x, j) for x in (self.h, self.times, self.jumps)
            )
            return Step(problem, h, times, weights.at(prepared, j), jump)

        return prepared, step


class Steps(abc.ABC):
    """Steps whose times are known, numbered through over all intervals.

    Attributes:
        problem: What is solved.
        count: How many steps there are, a tensor perhaps.
        limit: How many there are at most.
        batch_size: For how many of them weights are made at once.
    """

    problem: Problem
    count: Any
    limit: Any
    batch_size: int

    @abc.abstractmethod
    def batch(self, first) -> Batch:
        """`batch_size` steps from the one numbered `first` on."""

    @abc.abstractmethod
    def interval(self, i) -> Any:
        """Which interval between output times step i is in."""

    @abc.abstractmethod
    def loop(self, count, body, state, limit=None) -> Any:
        """As `backend.fori_loop`, over steps or what they are divided into."""
