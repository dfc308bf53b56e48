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

from keras import ops

from keras_nanode import backend, tree
from keras_nanode.arrays import namespace
from keras_nanode.bases import Basis
from keras_nanode.pieces import pieces, within_piece
from keras_nanode.structures import add, row, stack, stacked, unstack, write
from keras_nanode.tree import Structure


class FixedWeights:
    """theta equals the parameters at all times: all steps share one set of weights."""

    breakpoints = ()

    def set_of_nodes(self, num_nodes: int) -> list[int]:
        """For each node of a step, the index of its set of weights."""
        return [0] * num_nodes

    def pieces(self, start: Any, end: Any) -> Any:
        """`(n,)`, the number of breakpoints before each step. None if there are none.

        Args:
            start, end: `(n,)`, the ends of the steps, arrays in float64 or tensors. No
                breakpoint may be between them.
        """
        return None

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
            piece: `(n,)`, what `pieces` gives for them.
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

    def pieces(self, start, end):
        return pieces(self.breakpoints, start, end) if self.breakpoints else None

    def locate(self, piece, start, end, nodes, dtype, jumps=False):
        times = (start + end)[:, None] / 2 if self.basis.piecewise_constant else nodes
        times = within_piece(times, piece, self.breakpoints, dtype)
        if jumps:
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

    def at(
        self, t: Any, beside: Any, y: Structure, params: Structure, dtype: str
    ) -> Structure:
        """dy/dt at a time, with theta computed from the parameters. If the weights jump
        there, those on the side of `beside` count, a time in the same piece."""
        weights, t = self.weights, ops.cast(t, dtype)
        here, beside = (ops.reshape(x, (1,)) for x in (t, beside))
        piece = weights.pieces(beside, beside)
        located = weights.locate(piece, here, here, here[:, None], dtype)
        theta = weights.at(weights.prepare(params, located), 0)[0]
        return self.func(t, y, theta)
