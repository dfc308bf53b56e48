"""The arguments of a vector field, apart by whether they can have a gradient."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

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

    @functools.cached_property
    def _are_floats(self) -> list[bool]:
        # Once, since Keras takes 10 us for a dtype, and each evaluation fills them.
        dtypes = (x.dtype for x in tree.flatten(self.args))
        return [keras.backend.is_float_dtype(dtype) for dtype in dtypes]

    def _those(self, are_floats: bool) -> list:
        flat = zip(tree.flatten(self.args), self._are_floats, strict=True)
        return [x for x, is_float in flat if is_float == are_floats]

    @property
    def floats(self) -> list:
        return self._those(True)

    @property
    def others(self) -> list:
        return self._those(False)

    def filled(self, floats: list, others: Iterable) -> tuple[Structure, ...]:
        """The arguments, with other tensors."""
        given, rest = iter(floats), iter(others)
        leaves = [next(given if yes else rest) for yes in self._are_floats]
        return tree.pack_sequence_as(self.args, leaves)

    def bound(self, func: Callable, others: list) -> Callable:
        """`func(t, y, theta, *others)` as a function of t, y and theta."""
        if not others:
            return func
        return lambda t, y, theta: func(t, y, theta, *others)

    def __len__(self):
        return len(self.args)


NO_ARGUMENTS = Arguments()
