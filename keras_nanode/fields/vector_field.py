"""The vector field of a model, dy/dt = func(t, y, theta)."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_nanode import tree
from keras_nanode.fields.weights import Parts
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class VectorField:
    """dy/dt = func(t, y, theta).

    `func` takes a scalar tensor, the state and theta, a tuple with one set of weights
    for each part. It gives the state's derivative, with the state's structure, shapes
    and dtypes. `scale(weights, h)` gives weights of the first part that make the
    derivative h times as large; None if there are none.

    The constants are the other tensors that `func` reads, such as integers, masks and
    frozen weights. They get no gradient. `bind(constants)` gives a `func` that reads
    these instead. So a custom gradient can take the constants as arguments: it must not
    close over tensors.
    """

    func: Callable[..., Structure]
    weights: Parts = Parts()
    scale: Callable[[Structure, Any], Structure] | None = None
    constants: Structure = ()
    bind: Callable[[Structure], Callable] | None = None

    @classmethod
    def of(
        cls,
        bind: Callable,
        constants: Structure,
        weights: Parts,
        scale: Callable | None = None,
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
        self, t: Any, beside: Any, y: Structure, params: tuple, dtype: str
    ) -> Structure:
        """dy/dt at a time, with theta computed from the parameters. If the weights jump
        there, those on the side of `beside` count, a time in the same piece."""
        t = ops.cast(t, dtype)
        here, beside = (ops.reshape(x, (1,)) for x in (t, beside))
        piece = self.weights.pieces(beside, beside)
        located = self.weights.locate(piece, here, here, here[:, None], dtype)
        return self.func(t, y, self.theta(params, located))

    def theta(self, params: tuple, located: tuple) -> tuple:
        """theta at a single located time."""
        sets = self.weights.at(self.weights.prepare(params, located), 0)
        return tuple(part.at(0) for part in sets)
