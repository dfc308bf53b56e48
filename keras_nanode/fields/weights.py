"""theta over time, in parts, and the parameters' gradient from the cotangents of theta.

A vector field reads theta, a tuple of parts: the weights of a layer, the arguments of a
function, a signal. Each part depends on time in its own way, and is linear in its own
parameters. Parameters, theta and gradients have an entry for each part.

Steps come in batches: a batch computes all its weights at once and contracts all their
cotangents at once. So a basis costs two matrix products per batch, and the cost of a
step hardly depends on the number of basis functions.
"""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_nanode import backend, tree
from keras_nanode.arrays import namespace, take
from keras_nanode.bases import Basis
from keras_nanode.fields.pieces import pieces, within_piece
from keras_nanode.structures import add, row, stack, stacked, unstack, write
from keras_nanode.tree import Structure


class Sets(NamedTuple):
    """The weights of a part in one step, or their cotangents.

    Attributes:
        nodes: One set for each node of the step, or a single one for all of them.
        before: The set that the step before has at the start of this one, if the
            weights may jump there; else empty.
    """

    nodes: Sequence[Structure]
    before: Sequence[Structure] = ()

    def at(self, node: int) -> Structure:
        return self.nodes[node if len(self.nodes) > 1 else 0]


Theta = tuple[Sets, ...]  # an entry for each part


class Weights(abc.ABC):
    """How one part of theta depends on time.

    Attributes:
        breakpoints: The times at which it jumps.
        is_piecewise_constant: Whether it is constant between breakpoints. Then a step
            has a single set of weights, else one for each node.
    """

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return ()

    @property
    def is_piecewise_constant(self) -> bool:
        return True

    def locate(
        self,
        piece: Any,
        start: Any,
        end: Any,
        nodes: Any,
        dtype: str,
        jumps: bool = False,
    ) -> Any:
        """The input of `prepare` for the steps from `start` to `end`.

        Args:
            piece: `(n,)`, the number of breakpoints before each step. None if there are
                no breakpoints.
            start, end: `(n,)`, arrays in float64 or tensors.
            nodes: `(n, nodes)`, the times of each step's nodes.
            dtype: The dtype of time in the solver.
            jumps: Whether to add the set before each step's start.
        """
        return ()

    @abc.abstractmethod
    def prepare(self, params: Structure, located: Any) -> Structure:
        """The weights of a batch of steps."""

    @abc.abstractmethod
    def at(self, prepared: Structure, j: Any, jumps: bool) -> Sets:
        """The sets of weights of the batch's j-th step."""

    @abc.abstractmethod
    def collector(
        self, prepared: Structure, size: int, gradient: Structure
    ) -> Structure:
        """The initial accumulator for the cotangents of a batch of `size` steps."""

    @abc.abstractmethod
    def collect(self, collected: Structure, j: Any, cotangents: Sets) -> Structure:
        """Adds the cotangents of the batch's j-th step."""

    @abc.abstractmethod
    def total(
        self, params: Structure, gradient: Structure, collected: Structure, located: Any
    ) -> Structure:
        """Adds the contribution of a batch to the gradient of the parameters."""

    @abc.abstractmethod
    def add_step(
        self, params: Structure, gradient: Structure, cotangents: Sets, located: Any
    ) -> Structure:
        """Adds the contribution of a single step, as a batch of size 1."""


class FixedWeights(Weights):
    """A part that equals its parameters at all times."""

    def prepare(self, params, located):
        return params

    def at(self, prepared, j, jumps):
        return Sets([prepared])

    def collector(self, prepared, size, gradient):
        return gradient

    def collect(self, collected, j, cotangents):
        return add(collected, cotangents.nodes[0])

    def total(self, params, gradient, collected, located):
        return collected

    def add_step(self, params, gradient, cotangents, located):
        return add(gradient, cotangents.nodes[0])


@dataclasses.dataclass(frozen=True)
class BasisWeights(Weights):
    """A part sum_k z_k(t) alpha_k, where the parameters are the alphas, `(K, ...)`."""

    basis: Basis

    @property
    def breakpoints(self):
        return self.basis.breakpoints

    @property
    def is_piecewise_constant(self):
        return self.basis.piecewise_constant

    def locate(self, piece, start, end, nodes, dtype, jumps=False):
        times = (start + end)[:, None] / 2 if self.is_piecewise_constant else nodes
        times = within_piece(times, piece, self.breakpoints, dtype)
        if jumps and self.breakpoints:
            xp = namespace(piece)
            before = xp.concatenate([piece[:1], piece[:-1]])
            start = within_piece(start[:, None], before, self.breakpoints, dtype)
            times = xp.concatenate([times, start], axis=1)
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

    def at(self, prepared, j, jumps):
        number, theta = prepared
        sets = unstack(row(theta, j), number) if number > 1 else [row(theta, j)]
        if jumps and self.breakpoints:
            return Sets(sets[:-1], sets[-1:])
        return Sets(sets)

    def collector(self, prepared, size, gradient):
        _, theta = prepared
        return tree.map_structure(lambda w: backend.buffer(size, w[0]), theta)

    def collect(self, collected, j, cotangents):
        return write(collected, j, _one(cotangents))

    def total(self, params, gradient, collected, located):
        return self._add(gradient, stacked(collected), located)

    def add_step(self, params, gradient, cotangents, located):
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


def _one(cotangents: Sets) -> Structure:
    """The cotangents of a step's sets, stacked along an axis if there are several."""
    sets = [*cotangents.nodes, *cotangents.before]
    return stack(sets) if len(sets) > 1 else sets[0]


class Parts:
    """theta as a tuple of parts. Each method calls that of every part with its entry.

    Args:
        *parts: How each part depends on time.
    """

    def __init__(self, *parts: Weights):
        self.parts = parts

    @functools.cached_property
    def breakpoints(self) -> tuple[float, ...]:
        """The times at which any part jumps."""
        return tuple(sorted({time for part in self.parts for time in part.breakpoints}))

    @property
    def is_piecewise_constant(self) -> bool:
        return all(part.is_piecewise_constant for part in self.parts)

    def pieces(self, start: Any, end: Any) -> Any:
        """`(n,)`, the number of breakpoints before each step. None if there are none.

        Args:
            start, end: `(n,)`, the ends of the steps, arrays in float64 or tensors. No
                breakpoint may be between them.
        """
        return pieces(self.breakpoints, start, end) if self.breakpoints else None

    @functools.cached_property
    def _own(self) -> list[np.ndarray | None]:
        """For each part, how many of its own breakpoints are passed after 0, 1, 2, ...
        of all. None if it has all or none of them."""
        return [
            None
            if part.breakpoints in ((), self.breakpoints)
            else np.searchsorted(
                part.breakpoints, (-np.inf, *self.breakpoints), side="right"
            ).astype("int32")
            for part in self.parts
        ]

    def locate(self, piece, start, end, nodes, dtype, jumps=False):
        def own(passed):
            if passed is None:
                return piece
            known = isinstance(piece, np.ndarray)
            return take(passed if known else ops.convert_to_tensor(passed), piece)

        return tuple(
            part.locate(own(passed), start, end, nodes, dtype, jumps)
            for part, passed in self._with(self._own)
        )

    def prepare(self, params, located):
        return tuple(w.prepare(*own) for w, *own in self._with(params, located))

    def at(self, prepared: tuple, j: Any, jumps: bool = False) -> Theta:
        return tuple(w.at(own, j, jumps) for w, own in self._with(prepared))

    def collector(self, prepared, size, gradient):
        each = self._with(prepared, gradient)
        return tuple(w.collector(theta, size, total) for w, theta, total in each)

    def collect(self, collected, j, cotangents):
        each = self._with(collected, cotangents)
        return tuple(w.collect(found, j, new) for w, found, new in each)

    def total(self, params, gradient, collected, located):
        each = self._with(params, gradient, collected, located)
        return tuple(w.total(*own) for w, *own in each)

    def add_step(self, params, gradient, cotangents, located):
        each = self._with(params, gradient, cotangents, located)
        return tuple(w.add_step(*own) for w, *own in each)

    def _with(self, *entries: Sequence) -> zip:
        """Each part, with its entries."""
        return zip(self.parts, *entries, strict=True)
