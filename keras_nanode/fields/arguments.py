"""The arguments of a vector field, apart by how they depend on time and parameters."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_nanode import tree
from keras_nanode.fields.signal import Signal
from keras_nanode.fields.weights import BasisWeights, FixedWeights, Weights
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of `func(t, y, *args)` beside t and y, in any structure.

    The floating tensors are a part of theta, and each `Signal` is one more. The other
    tensors cannot be differentiated: they are constants of the vector field.
    """

    args: tuple[Structure, ...] = ()

    @functools.cached_property
    def _kinds(self) -> list[str]:
        # Once, since Keras takes 10 us for a dtype, and each evaluation fills them.
        return [_kind(x) for x in tree.flatten(self.args)]

    def _those(self, kind: str) -> list:
        flat = zip(tree.flatten(self.args), self._kinds, strict=True)
        return [x for x, its_kind in flat if its_kind == kind]

    @property
    def signals(self) -> list[Signal]:
        return self._those("signal")

    @property
    def others(self) -> list:
        return self._those("other")

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The parts of theta."""
        return FixedWeights(), *(BasisWeights(u.basis) for u in self.signals)

    @property
    def params(self) -> tuple:
        """The parameters of these parts."""
        return self._those("float"), *(u.coefficients for u in self.signals)

    def filled(self, theta: tuple, others: Iterable) -> tuple[Structure, ...]:
        """The arguments at a time, from these parts of theta and other constants."""
        floats, *signals = theta
        given = {
            "float": iter(floats),
            "signal": iter(signals),
            "other": iter(others),
        }
        leaves = [next(given[kind]) for kind in self._kinds]
        return tree.pack_sequence_as(self.args, leaves)

    def at(self, t: Any) -> tuple[Structure, ...]:
        """The arguments at a time."""
        return tree.map_structure(
            lambda x: x(t) if isinstance(x, Signal) else x, self.args
        )

    def bound(self, func: Callable, others: list) -> Callable:
        """`func(t, y, theta, *others)` as a function of t, y and theta."""
        if not others:
            return func
        return lambda t, y, theta: func(t, y, theta, *others)

    def __len__(self):
        return len(self.args)


def _kind(x: Any) -> str:
    if isinstance(x, Signal):
        return "signal"
    return "float" if keras.backend.is_float_dtype(x.dtype) else "other"


NO_ARGUMENTS = Arguments()
