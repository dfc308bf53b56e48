"""The vector field of a model, dy/dt = func(t, y, theta), and theta at each node.

theta is linear in the parameters. Two small classes, with one interface, compute theta
from the parameters and the parameters' gradient from the cotangents of theta. Steps
come in batches: a batch computes all its weights at once and contracts all their
cotangents at once. So a basis costs two matrix products per batch, and the cost of a
step hardly depends on the number of basis functions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_nanode import backend, tree
from keras_nanode.arrays import where
from keras_nanode.bases import Basis
from keras_nanode.structures import add, row, stack, stacked, unstack, write
from keras_nanode.tree import Structure


class FixedWeights:
    """theta equals the parameters at all times: all steps share one set of weights."""

    breakpoints = ()

    def set_of_nodes(self, num_nodes: int) -> list[int]:
        """For each node of a step, the index of its set of weights."""
        return [0] * num_nodes

    def locate(
        self, start: Any, end: Any, nodes: Any, dtype: str, jumps: bool = False
    ) -> Any:
        """The input of `prepare` for the steps from `start` to `end`.

        Args:
            start, end: `(n,)`, arrays in float64 or tensors.
            nodes: `(n, nodes)`, the times of each step's nodes.
            dtype: The dtype of time in the solver.
            jumps: Whether to add a set of weights for each step's start, with the
                values that the step before has there.
        """
        return ()

    def prepare(self, params: Structure, located: Any) -> Structure:
        """The weights of a batch of steps."""
        return params

    def at(self, prepared: Structure, j: Any) -> list[Structure]:
        """The sets of weights of the batch's j-th step."""
        return [prepared]

    def collector(
        self, prepared: Structure, size: int, gradient: Structure
    ) -> Structure:
        """The initial accumulator for the cotangents of a batch of `size` steps."""
        return gradient

    def collect(
        self, collected: Structure, j: Any, cotangents: list[Structure]
    ) -> Structure:
        """Adds the cotangents of the batch's j-th step."""
        return add(collected, cotangents[0])

    def total(
        self, gradient: Structure, collected: Structure, located: Any
    ) -> Structure:
        """Adds the contribution of a batch to the gradient of the parameters."""
        return collected

    def add_step(
        self, gradient: Structure, cotangents: list[Structure], located: Any
    ) -> Structure:
        """Adds the contribution of a single step, as a batch of size 1."""
        return add(gradient, cotangents[0])


@dataclasses.dataclass(frozen=True)
class BasisWeights:
    """theta(t) = sum_k z_k(t) alpha_k, where the parameters are the alphas.

    A step has one set of weights per node, or a single set if the basis is piecewise
    constant.
    """

    basis: Basis

    @property
    def breakpoints(self):
        return self.basis.breakpoints

    def set_of_nodes(self, num_nodes):
        constant = self.basis.piecewise_constant
        return [0] * num_nodes if constant else list(range(num_nodes))

    def locate(self, start, end, nodes, dtype, jumps=False):
        piece = pieces(self.breakpoints, start, end, dtype)
        times = (start + end)[:, None] / 2 if self.basis.piecewise_constant else nodes
        times = _within_piece(times, piece, self.breakpoints, dtype)
        if jumps:
            before = np.append(piece[:1], piece[:-1])
            start = _within_piece(start[:, None], before, self.breakpoints, dtype)
            times = np.concatenate([times, start], axis=1)
        sets = times.shape[1]
        located = self.basis.locate(ops.reshape(ops.convert_to_tensor(times), (-1,)))
        return ops.reshape(located, (-1, sets, *located.shape[1:]))

    def prepare(self, params, located):
        number, sets = located.shape[:2]
        flat = _flat(located)

        def leaf(p):
            theta = self.basis.combine(flat, p)
            # A single set needs no axis. This saves operations at each step.
            axes = () if sets == 1 else (sets,)
            return ops.reshape(theta, (number, *axes, *p.shape[1:]))

        return sets, tree.map_structure(leaf, params)

    def at(self, prepared, j):
        sets, theta = prepared
        return unstack(row(theta, j), sets) if sets > 1 else [row(theta, j)]

    def collector(self, prepared, size, gradient):
        _, theta = prepared
        return tree.map_structure(lambda w: backend.buffer(size, w[0]), theta)

    def collect(self, collected, j, cotangents):
        return write(collected, j, _one(cotangents))

    def total(self, gradient, collected, located):
        return self._add(gradient, stacked(collected), located)

    def add_step(self, gradient, cotangents, located):
        return self._add(gradient, _one(cotangents), located)

    def _add(self, gradient, cotangents, located):
        flat = _flat(located)

        def leaf(total, cotangents):
            shape = (flat.shape[0], *total.shape[1:])
            cotangents = ops.reshape(cotangents, shape)
            return total + self.basis.combine_transpose(flat, cotangents)

        return tree.map_structure(leaf, gradient, cotangents)


def _flat(located):
    """(steps, sets, ...) as (steps * sets, ...)."""
    number, sets = located.shape[:2]
    return ops.reshape(located, (number * sets, *located.shape[2:]))


def _one(cotangents: list[Structure]) -> Structure:
    """The cotangents of a step's sets, stacked along an axis if there are several."""
    return stack(cotangents) if len(cotangents) > 1 else cotangents[0]


def between(start: Any, end: Any, fraction: Any, forwards: bool | None = None) -> Any:
    """The time at a fraction of a step: exactly `start` at 0 and `end` at 1. It is
    never outside the step by rounding. Arguments broadcast. See `nearest`."""
    # At 0 and 1 the other end is multiplied by 0, so the result is exact.
    time = start * (1 - fraction) + end * fraction
    if isinstance(time, np.ndarray):
        return np.clip(time, np.minimum(start, end), np.maximum(start, end))
    return nearest(time, start, end, forwards)


def nearest(time: Any, start: Any, end: Any, forwards: bool | None = None) -> Any:
    """`time`, or the nearest end of the step if `time` is outside the step.

    Args:
        time, start, end: Tensors or arrays that broadcast.
        forwards: Whether all steps run forwards in time, for times without a gradient.
            None finds the direction of each step, and keeps the derivatives of `time`.
    """
    if forwards is not None:
        return _clipped(time, *((start, end) if forwards else (end, start)))
    ahead = start <= end
    low, high = ops.where(ahead, start, end), ops.where(ahead, end, start)
    return time + ops.stop_gradient(_clipped(time, low, high) - time)


def _clipped(x, low, high):
    # `ops.clip` would turn float64 into float32 on PyTorch.
    x = where(x < low, low, x)
    return where(x > high, high, x)


def pieces(breakpoints, start, end, dtype):
    """The piece between breakpoints that each step is in: the one with its middle.

    In float64 arrays, rounding alone may separate a middle from a breakpoint. Such a
    middle is in the piece that begins there, in either direction of time. Tensors have
    the dtype.
    """
    if not breakpoints:
        return np.zeros(1, "int64")
    middle = (start + end) / 2
    if isinstance(middle, np.ndarray):
        rounding = 4 * np.spacing(np.maximum(abs(start), abs(end)).max())
        return np.searchsorted(np.array(breakpoints), middle + rounding, side="right")
    # Count edges, since some export formats have no search operation.
    edges = ops.convert_to_tensor(np.array(breakpoints, dtype))
    return ops.sum(ops.cast(middle[:, None] >= edges, "int32"), axis=-1)


def _within_piece(times, piece, breakpoints, dtype):
    """Moves `times` (steps, sets) into each step's piece between breakpoints.

    A stage on a jump of z must see the side that its step is on, but a rounded time may
    lie on either side. Takes arrays or tensors.
    """
    planned = isinstance(times, np.ndarray)
    times = times.astype(dtype) if planned else times
    if not breakpoints:
        return times
    edges = np.array(breakpoints, dtype)
    # Finite limits, since a check for infinities in a graph would find infinite ones.
    limits = np.finfo(dtype)
    first = np.append(limits.min, edges)
    last = np.nextafter(np.append(edges, limits.max), first)
    if planned:
        return np.clip(times, first[piece][:, None], last[piece][:, None])
    low, high = (
        backend.take(ops.convert_to_tensor(x), piece)[:, None] for x in (first, last)
    )
    return _clipped(times, low, high)


@dataclasses.dataclass(frozen=True)
class VectorField:
    """dy/dt = func(t, y, theta).

    `func` takes a scalar tensor, the state and one set of weights. It gives the state's
    derivative, with the state's structure, shapes and dtypes. `scale(theta, h)` gives
    weights that make the derivative h times as large; None if there are none.

    The constants are the other tensors that `func` reads, such as integers, masks and
    frozen weights. They get no gradient. `bind(constants)` gives a `func` that reads
    these instead. So a custom gradient can take the constants as arguments: it must not
    close over tensors.
    """

    func: Callable[..., Structure]
    weights: FixedWeights | BasisWeights = FixedWeights()  # noqa: RUF009
    scale: Callable[[Structure, Any], Structure] | None = None
    constants: Structure = ()
    bind: Callable[[Structure], Callable] | None = None

    @classmethod
    def of(
        cls,
        bind: Callable,
        constants: Structure,
        weights: FixedWeights | BasisWeights,
        scale: Callable | None,
    ) -> "VectorField":
        """The field whose `func` is `bind(constants)`."""
        return cls(bind(constants), weights, scale, constants, bind)

    def with_constants(self, constants: Structure) -> "VectorField":
        # Without a tensor among the constants there is nothing to replace.
        if self.bind is None or not tree.flatten(constants):
            return self
        func = self.bind(constants)
        return dataclasses.replace(self, func=func, constants=constants)

    def at(self, t: Any, y: Structure, params: Structure, dtype: str) -> Structure:
        """dy/dt at a time, with theta computed from the parameters."""
        weights, t = self.weights, ops.cast(t, dtype)
        here = ops.reshape(t, (1,))
        located = weights.locate(here, here, here[:, None], dtype)
        theta = weights.at(weights.prepare(params, located), 0)[0]
        return self.func(t, y, theta)
