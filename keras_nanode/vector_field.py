"""What a solver sees of a model: dy/dt = func(t, y, theta), and theta at each stage.

theta is linear in the parameters. How it is made from them and how its gradient goes
back is one of two small classes, which solvers and adjoints treat alike. Steps come in
batches: the weights of a batch are made at once and their cotangents contracted at
once, so that a basis costs two matrix products a batch and a step's work hardly depends
on the number of basis functions.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

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
        piece = pieces(self.breakpoints, start, end, dtype)
        return [
            self._locate(between(start, end, place), piece, dtype) for place in places
        ]

    def locate_before(self, start, end, dtype):
        piece = pieces(self.breakpoints, start, end, dtype)
        return [self._locate(start, np.append(piece[:1], piece[:-1]), dtype)]

    def _locate(self, times, piece, dtype):
        times = _within_piece(times, piece, self.breakpoints, dtype)
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
    """The time that divides a step so: exactly `start` at 0 and `end` at 1, and for no
    fraction between outside of the step by rounding."""
    if isinstance(fraction, float) and fraction in (0, 1):
        return end if fraction else start
    time = start * (1 - fraction) + end * fraction
    if isinstance(fraction, float) and not 0 <= fraction <= 1:
        return time
    if isinstance(time, np.ndarray):
        return np.clip(time, np.minimum(start, end), np.maximum(start, end))
    return nearest(time, start, end)


def nearest(time, start, end):
    """`time`, or the end of the step that is nearest to it if it is not in the step; as
    a value, for the derivatives stay those of `time`."""
    forwards = start <= end
    low, high = ops.where(forwards, start, end), ops.where(forwards, end, start)
    # `ops.clip` would turn float64 into float32 on PyTorch.
    inside = ops.where(time < low, low, time)
    inside = ops.where(inside > high, high, inside)
    return time + ops.stop_gradient(inside - time)


def pieces(breakpoints, start, end, dtype):
    """Which piece between breakpoints each step is in: that which holds its middle.

    Of times laid out in float64, a middle that differs from a breakpoint by rounding
    alone is in the piece that begins there, whichever way time runs. Tensors are of
    the dtype.
    """
    if not breakpoints:
        return 0
    middle = (start + end) / 2
    if isinstance(middle, np.ndarray):
        rounding = 4 * np.spacing(np.maximum(abs(start), abs(end)).max())
        return np.searchsorted(np.array(breakpoints), middle + rounding, side="right")
    # Counted, since not every format that a model is exported to can search.
    edges = ops.convert_to_tensor(np.array(breakpoints, dtype))
    return ops.sum(ops.cast(middle[:, None] >= edges, "int32"), axis=-1)


def _within_piece(times, piece, breakpoints, dtype):
    """`times` moved into a piece between breakpoints.

    A stage on a jump of z must see the side that its step is on, and a rounded time
    may lie on either. Arrays or tensors.
    """
    planned = isinstance(times, np.ndarray)
    times = times.astype(dtype) if planned else times
    if not breakpoints:
        return times
    edges = np.array(breakpoints, dtype)
    # Finite, since who looks for infinities would find these.
    limits = np.finfo(dtype)
    first = np.append(limits.min, edges)
    last = np.nextafter(np.append(edges, limits.max), first)
    if planned:
        return np.clip(times, first[piece], last[piece])
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

    func: Callable[..., Structure]
    weights: FixedWeights | BasisWeights = FixedWeights()  # noqa: RUF009
    scale: Callable[[Structure, Any], Structure] | None = None

    def at(self, t, y: Structure, params: Structure, dtype: str) -> Structure:
        """dy/dt at a time of the dtype, of the parameters that make theta."""
        weights, t = self.weights, ops.cast(t, dtype)
        here = ops.reshape(t, (1,))
        located = weights.locate(here, here, (0.0,), dtype)
        theta = weights.at(weights.prepare(params, located), 0)[0]
        return self.func(t, y, theta)
