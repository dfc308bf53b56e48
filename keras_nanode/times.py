"""The times at which `odeint` gives y: their forms, and the gradients in them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks, tree
from keras_nanode.structures import add, nan_rows, row, stop_gradient, zeros_like
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class Times:
    """Where y is wanted.

    Attributes:
        given: `(times,)`, float64 numbers or a floating tensor.
        different: Those of `given` that differ from the one before: numbers where they
            are known, which are as many as there are, else a tensor as long as `given`.
        source: For each of `given` which of `different` it is; None if they are all.
        count: How many intervals between `different` there are if that is a tensor, and
            None else.
        ordered: None, or where it is not known yet a boolean tensor, whether the times
            are finite and in one direction. If not, none is different.
    """

    given: Any
    different: Any
    source: Any = None
    count: Any = None
    ordered: Any = None

    @property
    def is_tensor(self) -> bool:
        return not isinstance(self.given, np.ndarray)

    @property
    def moves(self) -> bool:
        """Whether there is any interval to go through, as far as is known."""
        return self.count is not None or len(self.different) > 1

    @property
    def num_intervals(self):
        """How many there are between different times."""
        return len(self.different) - 1 if self.count is None else self.count

    def differentiable(self):
        """Those that differ, so that a gradient flows to what was given."""
        if self.count is not None or self.source is None:
            return self.different if self.count is not None else self.given
        firsts = np.flatnonzero(np.diff(self.source, prepend=-1))
        return ops.take(self.given, firsts) if self.is_tensor else self.different

    def at_given(self, start: Structure, ys: Structure) -> Structure:
        """The states at all given times but the first, of those at different ones."""
        if self.source is None:
            return ys
        source = ops.convert_to_tensor(self.source[1:])
        every = tree.map_structure(
            lambda start, ys: ops.concatenate([start[None], ys]), start, ys
        )
        given = tree.map_structure(lambda y: ops.take(y, source, axis=0), every)
        return given if self.ordered is None else nan_rows(given, ~self.ordered)

    def at_rest(self, start: Structure) -> Structure:
        """The same where none differ."""
        number = len(self.source) - 1
        return tree.map_structure(lambda y: ops.repeat(y[None], number, axis=0), start)


def read(t, dtype: str) -> Times:
    """The times in whatever form they are given.

    Args:
        t: Numbers, a tensor or a variable, or a list of numbers, tensors and variables.
        dtype: Of time in the solver: tensors of another keep the more precise one.

    Raises:
        ValueError: if they are not one-dimensional, two at least, finite and in one
            direction, as far as is known.
    """
    if not _is_tensor(t):
        if not isinstance(t, (list, tuple)) or not any(map(_is_tensor, t)):
            return _known(checks.times("t", t, repeated=True))
        t = _stacked(t)
    t = _floating(t, dtype)
    if backend.is_known(t):
        numbers = checks.times("t", ops.convert_to_numpy(t), repeated=True)
        return dataclasses.replace(_known(numbers), given=t)
    if len(t.shape) != 1 or (t.shape[0] is not None and t.shape[0] < 2):
        raise ValueError(
            "`t` must be at least two times, a tensor of shape (times,). "
            f"Received: shape={tuple(t.shape)}"
        )
    return _unknown(t)


def _is_tensor(t) -> bool:
    return ops.is_tensor(t) or isinstance(t, keras.Variable)


def _floating(t, *dtypes: str):
    """As a tensor, of the most precise of its dtype and these."""
    t = ops.copy(ops.convert_to_tensor(t))
    found = {keras.backend.standardize_dtype(t.dtype), *dtypes}
    return ops.cast(t, "float64" if "float64" in found else "float32")


def _stacked(times):
    """A list of scalars, some of which are tensors."""
    tensors = [_floating(t if _is_tensor(t) else np.array(t, "float64")) for t in times]
    for t, given in zip(tensors, times, strict=True):
        if len(t.shape) > 0:
            raise ValueError(
                "`t` must be one-dimensional: in a list of times each must be a "
                f"scalar. Received: {given!r} with shape {tuple(t.shape)} in t"
            )
    dtypes = [keras.backend.standardize_dtype(t.dtype) for t in tensors]
    return ops.stack([_floating(t, *dtypes) for t in tensors])


def _known(times: np.ndarray) -> Times:
    new = np.append(True, times[1:] != times[:-1])
    if new.all():
        return Times(times, times)
    return Times(times, times[new], np.cumsum(new, dtype="int32") - 1)


def _unknown(t) -> Times:
    number = ops.shape(t)[0]
    change = t[1:] - t[:-1]
    # NaN is in no order, and infinity differs by NaN from itself.
    ordered = ops.all(ops.isfinite(t)) & (ops.all(change >= 0) | ops.all(change <= 0))
    new = ops.cast(ops.append(ops.zeros_like(t[:1]), change) != 0, "int32")
    source = ops.where(ordered, ops.cast(ops.cumsum(new), "int32"), 0)
    # The first of each, and then the last again and again.
    numbers = ops.arange(number, dtype="int32")
    firsts = ops.sort(ops.where((new > 0) | (numbers == 0), numbers, number - 1))
    return Times(t, ops.take(t, firsts), source, ops.max(source), ordered)


def follow(
    times: Times, slope: Callable, y0: Structure, params: Structure, refusal: str
) -> tuple[Structure, Callable]:
    """Attaches to y its derivatives in the times, those of the exact solution.

    dy_i/dt_i is func(t_i, y_i); at the start, dy_0/dt_0 is -func(t_0, y0). `slope` runs
    only if somebody differentiates in the times.

    Returns:
        The start, and a function that attaches them to the states at the other times.
    """

    def moved(t, y, sign):
        def forward(t, y, params):
            return zeros_like(y), (t, y, params)

        def backward(residuals, cotangents):
            t, y, params = residuals

            def one(i, found):
                time = ops.take(t, i)
                dy = slope(time, row(y, i), params)
                parts = tree.map_structure(_product, row(cotangents, i), dy)
                parts = [ops.cast(part, t.dtype) for part in tree.flatten(parts)]
                return backend.write(found, i, sign * sum(parts))

            number = t.shape[0] if t.shape[0] is not None else ops.shape(t)[0]
            found = backend.buffer(number, ops.zeros_like(t[0]))
            found = backend.stack(backend.fori_loop(number, one, found))
            return found, zeros_like(y), zeros_like(params)

        still = stop_gradient((y, params))
        return add(y, backend.custom_vjp(forward, backward, refusal, t, *still))

    t = times.given
    start = moved(t[:1], tree.map_structure(lambda y: y[None], y0), -1)
    return row(start, 0), lambda y: moved(t[1:], y, 1)


def _product(cotangent, slope):
    # An output without influence has no gradient, even where the slope is infinite.
    product = cotangent * ops.where(cotangent == 0, ops.zeros_like(slope), slope)
    return ops.sum(product)
