"""The output times of `odeint`: how they are given, and the gradients in them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks, tree
from keras_nanode.fields.pieces import into_interval_before
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.structures import (
    add,
    nan_rows,
    nan_where,
    row,
    stop_gradient,
    zeros_like,
)
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class Times:
    """The output times, with and without repetitions.

    Attributes:
        given: `(times,)`, float64 numbers or a floating tensor.
        unique: The times in `given` that differ from the one before: exactly those
            if the times are known, else a tensor as long as `given`.
        inverse: For each time in `given`, its index in `unique`. None if all differ.
        count: The number of intervals between the different times, if that is a tensor;
            None otherwise.
        ordered: None if the times are known. Otherwise a boolean tensor: whether they
            are finite and in one direction. If not, no time counts as different.
    """

    given: Any
    unique: Any
    inverse: Any = None
    count: Any = None
    ordered: Any = None

    @property
    def is_tensor(self) -> bool:
        return not isinstance(self.given, np.ndarray)

    @property
    def moves(self) -> bool:
        """Whether there may be an interval to integrate over."""
        return self.count is not None or len(self.unique) > 1

    @property
    def num_intervals(self):
        """The number of intervals between different times."""
        return len(self.unique) - 1 if self.count is None else self.count

    def differentiable(self):
        """The different times, in a form that lets gradients flow to `given`."""
        if self.count is not None or self.inverse is None:
            return self.unique if self.count is not None else self.given
        firsts = np.flatnonzero(np.diff(self.inverse, prepend=-1))
        return ops.take(self.given, firsts) if self.is_tensor else self.unique

    def expand(self, start: Structure, ys: Structure) -> Structure:
        """The states at the given times after the first, from those at `unique`."""
        if self.inverse is None:
            return ys
        inverse = ops.convert_to_tensor(self.inverse[1:])
        every = tree.map_structure(
            lambda start, ys: ops.concatenate([start[None], ys]), start, ys
        )
        given = tree.map_structure(lambda y: ops.take(y, inverse, axis=0), every)
        return given if self.ordered is None else self._nan_unless_ordered(given)

    def _nan_unless_ordered(self, ys: Structure) -> Structure:
        t = self.given[1:] + self.given[0]
        # 0 with a gradient of 0, or NaN with a gradient of NaN: without this it is 0.
        nothing = t * (nan_where(~self.ordered, t.dtype) - 1)

        def leaf(y):
            rows = ops.reshape(nothing, (-1, *[1] * (len(y.shape) - 1)))
            return y + ops.cast(rows, y.dtype)

        return tree.map_structure(leaf, nan_rows(ys, ~self.ordered))

    def repeat(self, start: Structure) -> Structure:
        """Like `expand`, if all times are equal."""
        number = len(self.inverse) - 1
        return tree.map_structure(lambda y: ops.repeat(y[None], number, axis=0), start)


def read(t: Any, dtype: str) -> Times:
    """Reads the times in any of the accepted forms.

    Args:
        t: Numbers, a tensor or a variable, or a list of numbers, tensors and variables.
        dtype: The dtype of time in the solver. More precise tensors keep their own.

    Raises:
        ValueError: if the times are not one-dimensional, or fewer than two. If their
            values are known, also if they are not finite and in one direction.
    """
    if not _is_tensor(t):
        if not isinstance(t, (list, tuple)) or not any(map(_is_tensor, t)):
            return _known(checks.times("t", t, repeated=True))
        t = _stacked(t)
    t = _floating(t, dtype)
    if backend.is_known(t):
        numbers = checks.times("t", backend.values(t), repeated=True)
        return dataclasses.replace(_known(numbers), given=t)
    if len(t.shape) > 1:
        raise ValueError(
            f"`t` must be {checks.one_series(t.shape)}. "
            f"Received: shape={tuple(t.shape)}"
        )
    if len(t.shape) != 1 or (t.shape[0] is not None and t.shape[0] < 2):
        raise ValueError(
            "`t` must be at least two times, a tensor of shape (times,). "
            f"Received: shape={tuple(t.shape)}"
        )
    return _unknown(t)


def _is_tensor(t: Any) -> bool:
    return ops.is_tensor(t) or isinstance(t, keras.Variable)


def _floating(t: Any, *dtypes: str) -> Any:
    """`t` as a tensor of the most precise of its dtype and these."""
    t = ops.copy(ops.convert_to_tensor(t))
    dtype = keras.backend.standardize_dtype(t.dtype)
    if not (keras.backend.is_float_dtype(dtype) or keras.backend.is_int_dtype(dtype)):
        raise ValueError(
            f"`t` must be real numbers. Received: a tensor of dtype={dtype}"
        )
    found = {dtype, *dtypes}
    return ops.cast(t, "float64" if "float64" in found else "float32")


def _stacked(times):
    """Stacks a list of scalars, some of which are tensors."""
    tensors = [
        _floating(t if _is_tensor(t) else checks.array("t", t, "real numbers"))
        for t in times
    ]
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


def _unknown(t: Any) -> Times:
    number = ops.shape(t)[0]
    change = t[1:] - t[:-1]
    # NaN has no order, and inf - inf is NaN.
    ordered = ops.all(ops.isfinite(t)) & (ops.all(change >= 0) | ops.all(change <= 0))
    new = ops.cast(ops.append(ops.zeros_like(t[:1]), change) != 0, "int32")
    inverse = ops.where(ordered, ops.cast(ops.cumsum(new), "int32"), 0)
    # The first index of each different time, then the last index repeated.
    numbers = ops.arange(number, dtype="int32")
    firsts = ops.sort(ops.where((new > 0) | (numbers == 0), numbers, number - 1))
    return Times(t, ops.take(t, firsts), inverse, ops.max(inverse), ordered)


def with_time_gradients(
    times: Times,
    field: VectorField,
    dtype: str,
    y0: Structure,
    params: Structure,
    refusal: str,
) -> tuple[Structure, Callable]:
    """Attaches to y its derivatives in the times, those of the exact solution.

    dy_i/dt_i is the field at (t_i, y_i). At the start, dy_0/dt_0 is minus the field at
    (t_0, y0). If the weights jump there, it is that on the side of the interval before
    t_i, and behind t_0. It is evaluated, with times in the dtype, only if a gradient in
    the times is requested.

    Returns:
        y0 with its derivative, and a function that does this for the other states.
    """

    def moved(t, beside, y, sign):
        def forward(*primals):
            return zeros_like(primals[2]), primals

        def backward(residuals, cotangents):
            t, beside, y, params, constants = residuals
            here = field.with_constants(constants)

            def one(i, found):
                time, side = ops.take(t, i), ops.take(beside, i)
                dy = here.at(time, side, row(y, i), params, dtype)
                parts = tree.map_structure(_product, row(cotangents, i), dy)
                parts = [ops.cast(part, t.dtype) for part in tree.flatten(parts)]
                return backend.write(found, i, sign * sum(parts))

            number = t.shape[0] if t.shape[0] is not None else ops.shape(t)[0]
            found = backend.buffer(number, ops.zeros_like(t[0]))
            found = backend.stack(backend.fori_loop(number, one, found))
            return found, *zeros_like(residuals[1:])

        still = stop_gradient((beside, y, params, field.constants))
        return add(y, backend.custom_vjp(forward, backward, refusal, t, *still))

    t, jump = times.given, bool(field.weights.breakpoints)
    back = into_interval_before(t, dtype) if jump else 0.0
    start = tree.map_structure(lambda y: y[None], y0)
    start = moved(t[:1], t[:1] - back, start, -1)
    # Before a time that equals the first one there is no interval.
    beside = ops.where(t == t[0], t - back, t + back)[1:] if jump else t[1:]
    return row(start, 0), lambda y: moved(t[1:], beside, y, 1)


def _product(cotangent, slope):
    # A zero cotangent gives a zero gradient, even if the slope is infinite.
    product = cotangent * ops.where(cotangent == 0, ops.zeros_like(slope), slope)
    return ops.sum(product)
