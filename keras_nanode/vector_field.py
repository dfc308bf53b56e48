"""What a solver sees of a model: dy/dt = func(t, y, theta), and theta at each node.

theta is linear in the parameters. How it is made from them, and how its gradient goes
back, is one of two small classes that solvers and adjoints treat alike. Steps come in
batches: a batch makes its weights at once and contracts their cotangents at once. So a
basis costs two matrix products a batch, and the work of a step hardly depends on the
number of basis functions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_nanode import backend, tree
from keras_nanode.bases import Basis
from keras_nanode.structures import add, row, stack, stacked, unstack, write
from keras_nanode.tree import Structure


class FixedWeights:
    """theta = the parameters at all times: every step has this one set of weights."""

    breakpoints = ()

    def set_of_nodes(self, num_nodes: int) -> list[int]:
        """For each node of a step, which of the step's sets of weights it uses."""
        return [0] * num_nodes

    def locate(self, start, end, nodes, dtype, jumps: bool = False) -> Any:
        """What the steps from `start` to `end` need to know of their times.

        Args:
            start, end: `(n,)`, arrays in float64 or tensors.
            nodes: `(n, nodes)`, the times of each step's nodes.
            dtype: Of time in the solver.
            jumps: Whether to add a set of weights for each step's start, as the step
                before sees it.
        """
        return ()

    def prepare(self, params: Structure, located) -> Structure:
        """The weights of a batch of steps."""
        return params

    def at(self, prepared: Structure, j) -> list[Structure]:
        """The sets of weights of the batch's j-th step."""
        return [prepared]

    def collector(self, prepared, size: int, gradient) -> Structure:
        """Where the cotangents of the weights of a batch of `size` steps go."""
        return gradient

    def collect(self, collected, j, cotangents: list[Structure]) -> Structure:
        """Adds the cotangents of the batch's j-th step."""
        return add(collected, cotangents[0])

    def total(self, gradient, collected, located) -> Structure:
        """Adds the contribution of a batch to the gradient of the parameters."""
        return collected

    def add_step(self, gradient, cotangents: list[Structure], located) -> Structure:
        """Adds the contribution of one step, a batch of its own."""
        return add(gradient, cotangents[0])


@dataclasses.dataclass(frozen=True)
class BasisWeights:
    """theta(t) = sum_k z_k(t) alpha_k, where the parameters are the alphas.

    A step has a set of weights for each of its nodes, or a single one if the basis is
    constant within a step.
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
            # One set needs no axis, which saves operations at each step.
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
    """Those of a step's sets, along an axis if there are several."""
    return stack(cotangents) if len(cotangents) > 1 else cotangents[0]


def between(start, end, fraction, forwards: bool | None = None):
    """The time that divides a step so: exactly `start` at 0 and `end` at 1, and never
    outside of the step by rounding. They broadcast. `forwards` is as in `nearest`."""
    # At 0 and 1 the other end is multiplied by 0, so that no rounding is left.
    time = start * (1 - fraction) + end * fraction
    if isinstance(time, np.ndarray):
        return np.clip(time, np.minimum(start, end), np.maximum(start, end))
    return nearest(time, start, end, forwards)


def nearest(time, start, end, forwards: bool | None = None):
    """`time`, or the end of the step that is nearest to it if it is not in the step.

    Args:
        time, start, end: Tensors that broadcast.
        forwards: Whether all steps run forwards in time, for times without a gradient.
            With None the steps themselves say so, and derivatives stay those of `time`.
    """
    if forwards is not None:
        return _clipped(time, *((start, end) if forwards else (end, start)))
    ahead = start <= end
    low, high = ops.where(ahead, start, end), ops.where(ahead, end, start)
    return time + ops.stop_gradient(_clipped(time, low, high) - time)


def _clipped(x, low, high):
    # `ops.clip` would turn float64 into float32 on PyTorch.
    x = ops.where(x < low, low, x)
    return ops.where(x > high, high, x)


def pieces(breakpoints, start, end, dtype):
    """Which piece between breakpoints each step is in: that which holds its middle.

    Times that are laid out in float64 have middles that may differ from a breakpoint by
    rounding alone. Such a middle is in the piece that begins there, whichever way time
    runs. Tensors are of the dtype.
    """
    if not breakpoints:
        return np.zeros(1, "int64")
    middle = (start + end) / 2
    if isinstance(middle, np.ndarray):
        rounding = 4 * np.spacing(np.maximum(abs(start), abs(end)).max())
        return np.searchsorted(np.array(breakpoints), middle + rounding, side="right")
    # Counted, since not every format that a model is exported to can search.
    edges = ops.convert_to_tensor(np.array(breakpoints, dtype))
    return ops.sum(ops.cast(middle[:, None] >= edges, "int32"), axis=-1)


def _within_piece(times, piece, breakpoints, dtype):
    """`times` (steps, sets) moved into each step's piece between breakpoints.

    A stage on a jump of z must see the side that its step is on, and a rounded time
    may lie on either. Arrays or tensors.
    """
    planned = isinstance(times, np.ndarray)
    times = times.astype(dtype) if planned else times
    if not breakpoints:
        return times
    edges = np.array(breakpoints, dtype)
    # Finite, since a check for infinities in a graph would find these.
    limits = np.finfo(dtype)
    first = np.append(limits.min, edges)
    last = np.nextafter(np.append(edges, limits.max), first)
    if planned:
        return np.clip(times, first[piece][:, None], last[piece][:, None])
    low, high = (
        ops.take(ops.convert_to_tensor(x), piece)[:, None] for x in (first, last)
    )
    return _clipped(times, low, high)


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
        located = weights.locate(here, here, here[:, None], dtype)
        theta = weights.at(weights.prepare(params, located), 0)[0]
        return self.func(t, y, theta)
