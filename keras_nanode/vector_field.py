"""What a solver sees of a model: dy/dt = func(t, y, theta), and theta at each stage.

theta is linear in the parameters. How it is made from them and how its gradient goes
back is one of two small classes, which solvers and adjoints treat alike. Steps come in
batches: the weights of a batch are made at once and their cotangents contracted at
once, so that a basis costs two matrix products a batch and a step's work hardly depends
on the number of basis functions.
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


def factor(x, dtype):
    """A scalar that multiplies tensors of a dtype, which a Python number does as it is,
    symbolic tensors too."""
    return x if isinstance(x, float) else ops.cast(x, dtype)


def weighted(*terms: tuple[float, Structure]) -> Structure:
    """sum_i factor_i x_i of pairs (factor, x)."""
    factors, structures = zip(*terms, strict=True)

    def leaf(*leaves):
        products = [
            x if factor == 1 else factor * x
            for factor, x in zip(factors, leaves, strict=True)
        ]
        return sum(products[1:], start=products[0])

    return tree.map_structure(leaf, *structures)


def increment(y: Structure, h, coefficients, k: list[Structure]) -> Structure:
    """h sum_i coefficients_i k_i, for slopes k of the structure y."""
    terms = [(c, slope) for c, slope in zip(coefficients, k, strict=True) if c]
    if not terms:
        return tree.map_structure(ops.zeros_like, y)
    total = weighted(*terms)
    if isinstance(h, float) and h == 1:
        return total
    return tree.map_structure(lambda s: factor(h, s.dtype) * s, total)


def advance(y: Structure, h, coefficients, k: list[Structure]) -> Structure:
    """y + h sum_i coefficients_i k_i."""
    return add(y, increment(y, h, coefficients, k)) if any(coefficients) else y


class FixedWeights:
    """theta = the parameters, at all times: every step has this one set of weights."""

    breakpoints = ()

    def slots(self, places) -> list[int]:
        """For each place in a step, which of its sets of weights is used there."""
        return [0] * len(places)

    def locate(self, start, end, places, dtype) -> Structure:
        """What the steps from `start` to `end` need to know of their times."""
        return []

    def locate_before(self, start, end, dtype) -> Structure:
        """Of the starts, as the step before each sees it: one more set of weights."""
        return []

    def prepare(self, params, located) -> list[Structure]:
        """The weights of a batch of steps: a structure for each slot."""
        return [params]

    def at(self, prepared, j) -> list[Structure]:
        """The weights of the batch's j-th step: a structure for each slot."""
        return prepared

    def collector(self, prepared, size, gradient) -> list[Structure]:
        """Where the cotangents of a batch's weights go."""
        return [gradient]

    def collect(self, collected, j, cotangents) -> list[Structure]:
        """`collected` and the cotangents of the batch's j-th step."""
        return add(collected, cotangents)

    def spread(self, gradient, collected, located) -> Structure:
        """`gradient` and what a batch's cotangents say of the parameters."""
        return collected[0]

    def deposit(self, gradient, cotangents, located) -> Structure:
        """`gradient` and what a single step's cotangents say of the parameters."""
        return add(gradient, cotangents[0])


@dataclasses.dataclass(frozen=True)
class BasisWeights:
    """theta(t) = sum_k z_k(t) alpha_k, where the parameters are the alphas.

    A step has a set of weights for each distinct time of its stages, or just one if
    the basis is constant in a step.
    """

    basis: Basis

    @property
    def breakpoints(self):
        return self.basis.breakpoints

    def slots(self, places):
        if self.basis.piecewise_constant:
            return [0] * len(places)
        return list(range(len(places)))

    def locate(self, start, end, places, dtype):
        places = [0.5] if self.basis.piecewise_constant else places
        middle = (start + end) / 2
        return [
            self._locate(between(start, end, place), middle, dtype) for place in places
        ]

    def locate_before(self, start, end, dtype):
        middle = (start + end) / 2
        return [self._locate(start, np.append(middle[:1], middle[:-1]), dtype)]

    def _locate(self, times, middle, dtype):
        times = _within_piece(times, middle, self.basis.breakpoints, dtype)
        return self.basis.locate(ops.convert_to_tensor(times))

    def prepare(self, params, located):
        return [
            tree.map_structure(lambda p, row=row: self.basis.combine(row, p), params)
            for row in located
        ]

    def at(self, prepared, j):
        return tree.map_structure(lambda theta: ops.take(theta, j, axis=0), prepared)

    def collector(self, prepared, size, gradient):
        return tree.map_structure(
            lambda theta: backend.buffer(size, theta[0]), prepared
        )

    def collect(self, collected, j, cotangents):
        return tree.map_structure(
            lambda buffer, g: backend.write(buffer, j, g), collected, cotangents
        )

    def spread(self, gradient, collected, located):
        for buffers, row in zip(collected, located, strict=True):
            gradient = tree.map_structure(
                lambda total, buffer, row=row: (
                    total + self.basis.spread(row, backend.stack(buffer))
                ),
                gradient,
                buffers,
            )
        return gradient

    def deposit(self, gradient, cotangents, located):
        for theta, row in zip(cotangents, located, strict=True):
            gradient = tree.map_structure(
                lambda total, g, row=row: total + self.basis.spread(row, g[None]),
                gradient,
                theta,
            )
        return gradient


def between(start, end, fraction):
    """The time that divides a step so: exactly `start` at 0 and `end` at 1."""
    return start * (1 - fraction) + end * fraction


def _within_piece(times, middle, breakpoints, dtype):
    """`times` moved into the piece between breakpoints that holds `middle`.

    A stage on a jump of z must see the side that its step is on, and a rounded time
    may lie on either. Arrays or tensors.
    """
    planned = isinstance(times, np.ndarray)
    times = times.astype(dtype) if planned else times
    if not breakpoints:
        return times
    edges = np.array(breakpoints, dtype)
    first = np.append(np.array(-np.inf, dtype), edges)
    last = np.nextafter(np.append(edges, np.array(np.inf, dtype)), first)
    if planned:
        piece = np.searchsorted(np.array(breakpoints), middle, side="right")
        return np.clip(times, first[piece], last[piece])
    # Counted, since not every format that a model is exported to can search.
    passed = middle[:, None] >= ops.convert_to_tensor(edges)
    piece = ops.sum(ops.cast(passed, "int32"), axis=-1)
    low, high = (ops.take(ops.convert_to_tensor(x), piece) for x in (first, last))
    # `ops.clip` would turn float64 into float32 on PyTorch.
    times = ops.where(times < low, low, times)
    return ops.where(times > high, high, times)


@dataclasses.dataclass(frozen=True)
class VectorField:
    """dy/dt = func(t, y, theta).

    `func` takes a scalar tensor, the state and one set of weights, and gives the
    state's derivative in the state's structure, shapes and dtypes. `scale(theta, h)`
    gives the weights that make it h times as large, if there is a way to.
    """

    func: Callable[[Any, Structure, Structure], Structure]
    weights: FixedWeights | BasisWeights = FixedWeights()  # noqa: RUF009
    scale: Callable[[Structure, Any], Structure] | None = None


def value_of(variable: keras.Variable):
    """A variable's value as a tensor, in the dtype it is stored in, and without a
    gradient if the variable is frozen."""
    # Copied, since TensorFlow takes the variable itself for a tensor, and a variable
    # that is read inside of a custom gradient would have to be its argument.
    value = ops.cast(ops.copy(variable.value), variable.dtype)
    # Else TensorFlow, whose variables Keras does not freeze, finds it in eager mode.
    return value if variable.trainable else ops.stop_gradient(value)


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

    @property
    def scale(self) -> Callable[[list, Any], list] | None:
        """`scale(weights, h)` gives the weights that make the outputs h times as large;
        None if they are not known to be linear in any, or h times those might vanish
        in a lower precision."""
        layer = self.layer
        linear = {id(v) for v in getattr(layer, "linear_variables", ())}
        found = [id(v) in linear for v in layer.trainable_variables]
        if not linear or sum(found) < len(linear):  # frozen, or quantized
            return None
        if layer.compute_dtype != layer.variable_dtype:
            return None

        def scale(weights, h):
            return [
                factor(h, w.dtype) * w if linear else w
                for w, linear in zip(weights, found, strict=True)
            ]

        return scale

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
