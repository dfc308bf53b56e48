"""Gradients of a solve: each adjoint wraps `solve` and decides what is kept of it."""

import abc
import dataclasses
import math
import operator

import keras
from keras import ops, tree

from keras_nanode import backend, checks
from keras_nanode.solve import Grid, advance, buffers, read, solve, write
from keras_nanode.vector_field import Structure, add

# How many steps' weights are made at once where no other number suggests itself.
_LEG = 16


class Adjoint(abc.ABC):
    """How the gradient of a solve is found."""

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Adjoint":
        return cls(**config)

    @abc.abstractmethod
    def __call__(self, grid: Grid, y0: Structure, params: Structure) -> Structure:
        """The states at `grid.times[1:]`, stacked, differentiable in y0 and params."""


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Checkpoint(Adjoint):
    """The exact gradient of the discrete solution from a few kept states.

    The forward pass keeps `num` states, evenly spread; the backward pass recomputes
    the states from one to the next, one such stretch at a time. Memory is O(num + n /
    num) states and the work one more forward pass.

    Args:
        num: Positive integer, how many states to keep between two output times. None
            keeps ceil(sqrt(n)) for n steps, which needs the least memory; n or more
            keeps them all and recomputes nothing.

    Raises:
        ValueError: if `num` is not a positive integer.

    Example:

    >>> import keras
    >>> from keras_nanode import Checkpoint, layers
    >>> ode = layers.ODE(keras.layers.Dense(3), steps=8, adjoint=Checkpoint(num=8))
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

    def __call__(self, grid, y0, params):
        num = self.num or math.ceil(math.sqrt(grid.steps))
        length = math.ceil(grid.steps / min(num, grid.steps))

        def forward(y0, params):
            ends, saved = solve(grid, y0, params, length, save_legs=True)
            # Stacked, since a SavedModel cannot hold a TensorArray of TensorFlow.
            return ends, (params, tree.map_structure(backend.stack, saved))

        def backward(residuals, cotangents):
            params, saved = residuals

            def leg(i, s, carry):
                a, gradient = carry
                y = _row(saved, i * grid.num_legs(length) + s)
                return _leg_backwards(grid, i, s, length, params, y, a, gradient)

            def enter(i, carry):
                a, gradient = carry
                return add(a, _row(cotangents, i)), gradient

            zeros = _zero_gradients(cotangents, params)
            return _backwards(grid, length, enter, leg, zeros)

        return backend.custom_vjp(forward, backward, y0, params)


def _backwards(grid, length, enter, leg, carry):
    """From the last output time to the first: `carry = enter(interval, carry)`, then
    `carry = leg(interval, leg, carry)` over the legs of the interval before it."""
    num_legs = grid.num_legs(length)

    def interval(i, carry):
        i = grid.intervals - 1 - i
        return backend.fori_loop(
            num_legs, lambda s, carry: leg(i, num_legs - 1 - s, carry), enter(i, carry)
        )

    return backend.fori_loop(grid.intervals, interval, carry)


def _row(stacked: Structure, i) -> Structure:
    return tree.map_structure(lambda x: ops.take(x, i, axis=0), stacked)


def _zero_gradients(cotangents: Structure, params: Structure):
    """Of the state and of the parameters."""
    a = tree.map_structure(lambda g: ops.zeros_like(g[0]), cotangents)
    return a, tree.map_structure(ops.zeros_like, params)


def _leg_backwards(grid, i, s, length, params, y, a, gradient):
    """The vjp of a leg that starts at y: a at its start, and `gradient` added to."""
    weights = grid.field.weights
    first, count, steps, prepared = grid.leg(i, s, length, params)

    def step(j, y, theta):
        return grid.step(first + j, y, theta)

    def forth(j, carry):
        y, inputs = carry
        return step(j, y, weights.at(prepared, j)), write(inputs, j, y)

    def back(j, carry):
        a, collected = carry
        j = count - 1 - j
        _, pullback = backend.vjp(
            lambda y, theta: step(j, y, theta),
            read(inputs, j),
            weights.at(prepared, j),
        )
        a, cotangents = pullback(a)
        return a, weights.collect(collected, j, cotangents)

    # The leg's last step is not taken: only its input is needed.
    y, inputs = backend.fori_loop(count - 1, forth, (y, buffers(length, y)))
    inputs = write(inputs, count - 1, y)
    collected = weights.collector(prepared, length)
    a, collected = backend.fori_loop(count, back, (a, collected))
    return a, weights.spread(gradient, collected, grid.located, steps)


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Backsolve(Adjoint):
    """The continuous adjoint: y and its cotangent a are integrated backwards together.

        dy/dt = f,    da/dt = -a df/dy,    dL/dalpha = -integral of a df/dalpha

    O(1) memory, but the gradient is that of the differential equation and not of its
    discrete solution: it converges to it with the step, at the solver's order.

    References:
        - [Chen et al., 2018](https://arxiv.org/abs/1806.07366)
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 3
    """

    def __call__(self, grid, y0, params):
        length = min(_LEG, grid.steps)

        def forward(y0, params):
            ends, _ = solve(grid, y0, params, length)
            return ends, (params, ends)

        def backward(residuals, cotangents):
            params, ends = residuals
            backwards = grid.reverse()
            num_legs = grid.num_legs(length)

            def enter(i, carry):
                _, a, gradient = carry
                return _row(ends, i), add(a, _row(cotangents, i)), gradient

            def leg(i, s, carry):
                # The same leg as the reversed grid counts it.
                i, s = grid.intervals - 1 - i, num_legs - 1 - s
                return _augmented_leg(backwards, i, s, length, params, *carry)

            zeros = _zero_gradients(cotangents, params)
            carry = _backwards(grid, length, enter, leg, (zeros[0], *zeros))
            return carry[1:]

        return backend.custom_vjp(forward, backward, y0, params)


def _augmented_leg(grid, i, s, length, params, y, a, gradient):
    """A leg of the state, its cotangent and the parameters' gradient as one system."""
    weights = grid.field.weights
    first, count, steps, prepared = grid.leg(i, s, length, params)

    def step(j, carry):
        y, a, collected = carry
        y, a, cotangents = _augmented_step(
            grid, first + j, y, a, weights.at(prepared, j)
        )
        return y, a, weights.collect(collected, j, cotangents)

    carry = (y, a, weights.collector(prepared, length))
    y, a, collected = backend.fori_loop(count, step, carry)
    return y, a, weights.spread(gradient, collected, grid.located, steps)


def _augmented_step(grid, i, y, a, weights):
    """One Runge-Kutta step of (y, a), and the step of the integral of a df/dtheta."""
    h, t = grid.time(i)
    slopes_y: list[Structure] = []
    slopes_a: list[Structure] = []
    cotangents = tree.map_structure(ops.zeros_like, weights)
    for stage, row in enumerate(grid.tableau.a):
        slot = grid.slots[stage]
        slope, pullback = backend.vjp(
            lambda y, theta, t=t[stage]: grid.field.func(t, y, theta),
            advance(y, h, row, slopes_y),
            weights[slot],
        )
        slope_a, slope_theta = pullback(advance(a, h, row, slopes_a))
        slopes_y.append(slope)
        slopes_a.append(tree.map_structure(operator.neg, slope_a))
        # Backwards in time h is negative, which makes this an integral over time.
        cotangents[slot] = advance(
            cotangents[slot], -h, (grid.tableau.b[stage],), [slope_theta]
        )
    b = grid.tableau.b
    return advance(y, h, b, slopes_y), advance(a, h, b, slopes_a), cotangents


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Direct(Adjoint):
    """The backend differentiates the loop itself: exact, O(n) memory, and the only
    adjoint that can be differentiated again."""

    def __call__(self, grid, y0, params):
        ends, _ = solve(grid, y0, params, grid.steps)
        return ends


ALL: dict[str, Adjoint] = {
    "checkpoint": Checkpoint(),
    "backsolve": Backsolve(),
    "direct": Direct(),
}


def get(adjoint) -> Adjoint:
    """The adjoint for a name, or the adjoint itself.

    Args:
        adjoint: One of the names in `ALL`, or `Checkpoint(num)`.

    Raises:
        ValueError: if there is no such adjoint.
    """
    if isinstance(adjoint, Adjoint):
        return adjoint
    if isinstance(adjoint, dict):
        return keras.saving.deserialize_keras_object(adjoint)
    if adjoint not in ALL:
        raise ValueError(
            f"Unknown `adjoint`. Use one of {sorted(ALL)} or "
            f"`keras_nanode.Checkpoint(num)`. Received: adjoint={adjoint!r}"
        )
    return ALL[adjoint]


def serialize(adjoint: Adjoint):
    """What `get` reads back: the name if it has one, else the configuration."""
    for name, known in ALL.items():
        if adjoint == known:
            return name
    return keras.saving.serialize_keras_object(adjoint)
