"""One step of a solver, and batches of steps."""

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_nanode import backend
from keras_nanode.fields.weights import Sets, Theta
from keras_nanode.solvers.solver import Slopes
from keras_nanode.stepping.problem import Problem
from keras_nanode.structures import add, apply_if, row, zeros_like
from keras_nanode.tree import Structure


class Step:
    """One step: its length, and the vector field at its nodes.

    Args:
        problem: The problem.
        h: The length.
        times: The times of the nodes.
        theta: The sets of weights of each part.
        jump: Whether the weights jump at the start of the step. None if they never do.
        absorbed: The factor that was folded into the weights. None if there is none.
    """

    def __init__(
        self,
        problem: Problem,
        h: Any,
        times: Any,
        theta: Theta,
        jump: Any = None,
        absorbed: Any = None,
    ):
        # A number of NumPy takes longer to multiply a tensor.
        self.h = float(h) if isinstance(h, float) else h
        self.problem, self.times = problem, times
        self.theta, self.jump, self.absorbed = theta, jump, absorbed

    def absorb_h(self) -> "Step":
        """Folds h into the weights, if f is linear in them.

        The step then has length 1, and saves one product with the whole state.
        """
        scale = self.problem.field.scale
        # Carried slopes come from the step before, which may have another h.
        if scale is None or self.problem.solver.carries_slopes:
            return self
        theta = _scaled(scale, self.theta, self.h)
        return Step(self.problem, 1.0, self.times, theta, self.jump, self.h)

    def release_h(self, cotangents: Theta) -> Theta:
        """The cotangents of the original weights, from those of the weights with h
        folded in."""
        scale = self.problem.field.scale
        if self.absorbed is None or scale is None:
            return cotangents
        # Multiplying by h, or by 1, is its own transpose.
        return _scaled(scale, cotangents, self.absorbed)

    def slopes(self, theta: Theta) -> Slopes:
        """f(i, y), the vector field at node i, with the given sets of weights."""
        func = self.problem.field.func
        return lambda i, y: func(self.times[i], y, at_node(theta, i))

    def linearize(self, i: int, y: Structure) -> tuple[Structure, Callable]:
        """The slope at node i, and its pullback to y and the weights there."""
        func = self.problem.field.func
        theta = at_node(self.theta, i)
        return backend.vjp(functools.partial(func, self.times[i]), y, theta)

    def sum_by_set(self, nodes: Sequence[int], cotangents: list[tuple]) -> Theta:
        """Sums the cotangents of theta at nodes, for each set of weights."""
        # A stage that only the error estimate uses has a node but no cotangent.
        nodes = nodes[: len(cotangents)]
        return tuple(
            _summed(sets, nodes, [theta[part] for theta in cotangents])
            for part, sets in enumerate(self.theta)
        )

    def vjp(self, state, a):
        """The cotangents of the state before the step and of the step's weights. `a`
        is the cotangent of the state after it."""
        return self.problem.solver.vjp(self, state, a)

    def cross_jump(self, state: Any, theta: Theta) -> Any:
        """The state at the start of the step, after a jump of the weights there."""
        before = self.slopes(_before(theta))
        return self.problem.solver.cross_jump(self.slopes(theta), before, state)

    def uncross_jump(self, state: Any, theta: Theta) -> Any:
        """The inverse of `cross_jump`."""
        before = self.slopes(_before(theta))
        return self.problem.solver.uncross_jump(self.slopes(theta), before, state)

    def take(self, state: Any, theta: Theta) -> Any:
        """The state after the step."""
        if self.jump is not None:
            cross = functools.partial(self.cross_jump, theta=theta)
            state = apply_if(self.jump, cross, state)
        return self.problem.solver.step(self.slopes(theta), self.h, state)

    def take_back(self, state: Any, theta: Theta) -> Any:
        """The state before the step."""
        state = self.problem.solver.step_back(self.slopes(theta), self.h, state)
        if self.jump is None:
            return state
        uncross = functools.partial(self.uncross_jump, theta=theta)
        return apply_if(self.jump, uncross, state)


def at_node(theta: Theta, i: int) -> tuple:
    """theta at node i."""
    return tuple(sets.at(i) for sets in theta)


def _scaled(scale: Callable, theta: Theta, h: Any) -> Theta:
    """The sets of all parts, those of the first one scaled."""
    first, *others = theta
    return Sets([scale(weights, h) for weights in first.nodes]), *others


def _before(theta: Theta) -> Theta:
    """The weights of the step before at the start of this one, at all nodes."""
    return tuple(Sets(sets.before or sets.nodes) for sets in theta)


def _summed(sets: Sets, nodes: Sequence[int], cotangents: list[Structure]) -> Sets:
    """The cotangents of the sets of a part, from those at nodes."""
    sums: list = [None] * len(sets.nodes)
    for node, cotangent in zip(nodes, cotangents, strict=True):
        i = node if len(sums) > 1 else 0
        sums[i] = cotangent if sums[i] is None else add(sums[i], cotangent)
    found = [
        zeros_like(weights) if total is None else total
        for weights, total in zip(sets.nodes, sums, strict=True)
    ]
    return Sets(found, zeros_like(sets.before))


class Batch(NamedTuple):
    """Steps whose weights are computed at once.

    Attributes:
        h: `(n,)`, the lengths, a tensor or an array.
        times: `(n, nodes)`, the times of the nodes.
        located: The located times, from which the weights are computed.
        jumps: `(n,)`, whether the weights jump at the start of each step, or None.
    """

    h: Any
    times: Any
    located: Any
    jumps: Any = None

    def prepare(self, problem: Problem, params: tuple) -> "PreparedBatch":
        weights = problem.field.weights.prepare(params, self.located)
        return PreparedBatch(problem, self, weights)


class PreparedBatch(NamedTuple):
    """A batch of steps of a problem, and their weights."""

    problem: Problem
    batch: Batch
    weights: tuple

    @property
    def located(self) -> tuple:
        return self.batch.located

    def step(self, j: Any) -> Step:
        """The j-th step."""
        h, times, jump = (
            x if x is None else row(x, j)
            for x in (self.batch.h, self.batch.times, self.batch.jumps)
        )
        jumps = jump is not None
        theta = self.problem.field.weights.at(self.weights, j, jumps)
        return Step(self.problem, h, ops.unstack(times), theta, jump)


class Steps(abc.ABC):
    """Steps whose times are known, numbered consecutively over all intervals.

    Attributes:
        problem: The problem.
        count: The number of steps, perhaps a tensor.
        limit: The largest number of steps.
        batch_size: The number of steps whose weights are computed at once.
    """

    problem: Problem
    count: Any
    limit: Any
    batch_size: int

    @abc.abstractmethod
    def batch(self, first: Any) -> Batch:
        """The batch of `batch_size` steps that begins with step `first`."""

    @abc.abstractmethod
    def interval(self, i: Any) -> Any:
        """The index of the interval between output times that step i is in."""

    @abc.abstractmethod
    def loop(self, count: Any, body: Callable, state: Any, limit: Any = None) -> Any:
        """Like `backend.fori_loop`, over steps or over their batches or segments."""
