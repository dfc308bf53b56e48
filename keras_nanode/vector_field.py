"""What a solver sees of a model: dy/dt = func(t, y, theta), and theta at each stage.

theta is linear in the parameters. How it is made from them and how its gradient goes
back is one of two small classes, which solvers and adjoints treat alike. Steps are
taken in legs (runs of neighbouring steps); the weights of a leg are made at once and
their cotangents contracted at once, so that a basis costs two matrix products a leg
and a step's work does not depend on the number of basis functions.
"""

import contextlib
import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_nanode import backend
from keras_nanode.bases import Basis

Structure = Any  # nested lists, tuples and dicts of tensors


def add(x: Structure, y: Structure) -> Structure:
    # `ops.add` would turn float64 into float32 on JAX and PyTorch.
    return tree.map_structure(operator.add, x, y)


class FixedWeights:
    """theta = the parameters, at all times: every step has this one set of weights."""

    def slots(self, c) -> list[int]:
        """For each stage, which of its step's sets of weights it uses."""
        return [0] * len(c)

    def locate(self, start, end, c, dtype) -> Structure:
        """What the steps from `start` to `end` need to know of their times."""
        return ()

    def prepare(self, params, located, steps) -> list[Structure]:
        """The weights of a leg: a structure for each slot."""
        return [params]

    def at(self, prepared, j) -> list[Structure]:
        """The weights of the leg's j-th step: a structure for each slot."""
        return prepared

    def collector(self, prepared, num_steps) -> list[Structure]:
        """Room for the cotangents of a leg's weights."""
        return tree.map_structure(ops.zeros_like, prepared)

    def collect(self, collected, j, cotangents) -> list[Structure]:
        """`collected` and the cotangents of the leg's j-th step."""
        return add(collected, cotangents)

    def spread(self, gradient, collected, located, steps) -> Structure:
        """`gradient` and what a leg's cotangents say of the parameters."""
        return add(gradient, collected[0])


@dataclasses.dataclass(frozen=True)
class BasisWeights:
    """theta(t) = sum_k z_k(t) alpha_k, where the parameters are the alphas.

    A step has a set of weights for each distinct time of its stages, or just one if
    the basis is constant in a step.
    """

    basis: Basis

    def slots(self, c):
        if self.basis.piecewise_constant:
            return [0] * len(c)
        return [sorted(set(c)).index(place) for place in c]

    def locate(self, start, end, c, dtype):
        places = [0.5] if self.basis.piecewise_constant else sorted(set(c))
        middle = (start + end) / 2
        times = [
            _within_piece(
                between(start, end, place), middle, self.basis.breakpoints, dtype
            )
            for place in places
        ]
        return [self.basis.locate(ops.convert_to_tensor(t)) for t in times]

    def prepare(self, params, located, steps):
        rows = [ops.take(x, steps, axis=0) for x in located]
        return [
            tree.map_structure(lambda p, row=row: self.basis.combine(row, p), params)
            for row in rows
        ]

    def at(self, prepared, j):
        return tree.map_structure(lambda theta: ops.take(theta, j, axis=0), prepared)

    def collector(self, prepared, num_steps):
        return tree.map_structure(
            lambda theta: backend.buffer(num_steps, theta[0]), prepared
        )

    def collect(self, collected, j, cotangents):
        return tree.map_structure(
            lambda buffer, g: backend.write(buffer, j, g), collected, cotangents
        )

    def spread(self, gradient, collected, located, steps):
        for buffers, slot in zip(collected, located, strict=True):
            row = ops.take(slot, steps, axis=0)
            gradient = tree.map_structure(
                lambda total, buffer, row=row: (
                    total + self.basis.spread(row, backend.stack(buffer))
                ),
                gradient,
                buffers,
            )
        return gradient


def between(start, end, fraction):
    """The time that divides a step so: exactly `start` at 0 and `end` at 1."""
    return start * (1 - fraction) + end * fraction


def _within_piece(times, middle, breakpoints, dtype) -> np.ndarray:
    """`times` moved into the piece between breakpoints that holds `middle`.

    A stage on a jump of z must see the side that its step is on, and a rounded time
    may lie on either.
    """
    times = times.astype(dtype)
    if not breakpoints:
        return times
    edges = np.array([-np.inf, *breakpoints, np.inf], dtype)
    piece = np.searchsorted(np.array(breakpoints), middle, side="right")
    below = np.nextafter(edges[piece + 1], np.array(-np.inf, dtype))
    return np.clip(times, edges[piece], below)


@dataclasses.dataclass(frozen=True)
class VectorField:
    """dy/dt = func(t, y, theta).

    `func` takes a scalar tensor, the state and one set of weights, and gives the
    state's derivative in the state's structure, shapes and dtypes.
    """

    func: Callable[[Any, Structure, Structure], Structure]
    weights: FixedWeights | BasisWeights = FixedWeights()  # noqa: RUF009


def value_of(variable: keras.Variable):
    """A variable's value as a tensor, in the dtype it is stored in."""
    # Copied, since TensorFlow takes the variable itself for a tensor, and a variable
    # that is read inside of a custom gradient would have to be its argument.
    return ops.cast(ops.copy(variable.value), variable.dtype)


class LayerFunction:
    """A built Keras layer as a pure function of its trainable weights.

    Args:
        layer: The layer.
        state: The values of its other variables; None reads them now.

    Raises:
        ValueError: if the layer draws random numbers, or when a call of it updates a
            variable or adds a loss.
    """

    def __init__(self, layer: keras.Layer, state: list | None = None):
        self.layer = layer
        variables = layer.non_trainable_variables
        state = [value_of(v) for v in variables] if state is None else state
        self._state = list(zip(variables, state, strict=True))
        for variable in variables:
            # PyTorch does not draw when it only traces, as the others do.
            if variable.path.endswith("seed_generator_state"):
                raise ValueError(_impure(layer, f"updates {variable.path!r}"))

    def __call__(self, weights: list, *args):
        given = list(zip(self.layer.trainable_variables, weights, strict=True))
        scope = keras.StatelessScope(given + self._state, collect_losses=True)
        before = [scope.get_current_value(v) for v, _ in self._state]
        with scope, _full_precision_time(self.layer, len(args)):
            outputs = self.layer(*args)
        for (variable, _), value in zip(self._state, before, strict=True):
            if scope.get_current_value(variable) is not value:
                raise ValueError(_impure(self.layer, f"updates {variable.path!r}"))
        if scope.losses:
            raise ValueError(_impure(self.layer, "adds a loss"))
        return outputs


def _impure(layer: keras.Layer, deed: str) -> str:
    return (
        f"The dynamics {layer.name!r} of an ODE must be a pure function, since a "
        "solver evaluates it several times a step and again for the gradient, but a "
        f"call of it {deed}. Use GroupNormalization or LayerNormalization instead of "
        "BatchNormalization, put Dropout, noise and activity regularizers outside of "
        "the ODE, or freeze the layer with `trainable = False`. "
        f"Received: {type(layer).__name__}"
    )


@contextlib.contextmanager
def _full_precision_time(layer: keras.Layer, num_args: int):
    """Under mixed precision Keras would round t to float16, which moves it to a wrong
    bucket. A layer called with a time therefore casts nothing but what it computes."""
    autocast = layer.autocast
    layer.autocast = autocast and num_args == 1
    try:
        yield
    finally:
        layer.autocast = autocast
