"""The arguments of a vector field, apart by whether they can have a gradient."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_nanode import tree
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of `func(t, y, *args)` beside t and y, tensors in any structure.

    The floating ones are a part of theta. The others cannot be differentiated: they are
    constants of the vector field.
    """

    args: tuple[Structure, ...] = ()

    def _apart(self, floating: bool) -> list:
        return [x for x in tree.flatten(self.args) if _is_floating(x) == floating]

    @property
    def floats(self) -> list:
        return self._apart(True)

    @property
    def others(self) -> list:
        return self._apart(False)

    def filled(self, floats: list, others: Iterable) -> tuple[Structure, ...]:
        """The arguments, with other tensors."""
        given, rest = iter(floats), iter(others)
        return tree.map_structure(
            lambda x: next(given if _is_floating(x) else rest), self.args
        )

    def bound(self, func: Callable, others: list) -> Callable:
        """`func(t, y, theta, *others)` as a function of t, y and theta."""
        if not others:
            return func
        return lambda t, y, theta: func(t, y, theta, *others)

    def __len__(self):
        return len(self.args)


NO_ARGUMENTS = Arguments()


def _is_floating(x: Any) -> bool:
    return keras.backend.is_float_dtype(x.dtype)
