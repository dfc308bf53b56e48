"""The norm of an error, and the lengths of the first and the next step."""

import math
import operator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, tree
from keras_nanode.arrays import as_like, isfinite, where
from keras_nanode.structures import advance
from keras_nanode.tree import Structure

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0
# Numbers of NumPy warn where tensors are silently infinite or NaN.
_quietly = np.errstate(all="ignore")


def error_norm(rtol: float, atol: float, x: Structure, *sizes: Structure) -> Any:
    """The root mean square of x / (atol + rtol max(|sizes|)) over the structure.

    It is finite and nonzero wherever these ratios are, in any unit of x."""
    # Work in units of the larger tolerance: then small states do not underflow to 0.
    unit = max(rtol, atol)
    absolute, relative = atol / unit, rtol / unit

    def ratio(x, *sizes):
        size, *others = (abs(y) for y in sizes)
        for other in others:
            size = ops.where(other > size, other, size)
        allowed = absolute + (size if relative == 1 else relative * size)
        if absolute > 0:
            return x / allowed
        # An error of 0 meets any tolerance, even 0. Any other has an infinite ratio.
        return x / ops.where((allowed > 0) | (x != 0), allowed, ops.ones_like(x))

    ratios = tree.flatten(tree.map_structure(ratio, x, *sizes))
    return backend.shared(_root_mean_square(ratios) / unit)


def step_factor(norm: Any, previous: Any, order: int) -> Any:
    """The factor by which to change the step after an error of the given norm.

    This is a PI controller. `previous` is the norm of the last accepted step. At every
    order the exponents are those of Hairer's code DOPRI5. With them, errors settle at
    0.4 of the tolerance.
    """
    # Keep away from 0, which has no logarithm.
    size = where(norm > 1e-10, norm, 1e-10)
    previous = where(previous > 1e-4, previous, 1e-4)
    grown = size ** (-0.85 / order) * previous ** (0.2 / order)
    factor = _SAFETY * where(norm <= 1, grown, size ** (-1 / order))
    factor = where(factor < _GROW, factor, _GROW)
    return where((factor > _SHRINK) & isfinite(norm), factor, _SHRINK)


def first_length(problem, norm, evaluate, y, first, step_to, most, least):
    """The first step's length, between `least` and `most`.

    Hairer, Norsett and Wanner I, section II.4.
    """
    last = len(problem.solver.nodes) - 1
    d0, d1 = (as_like(norm(x, y), most) for x in (y, first[0]))
    h0 = _first_guess(d0, d1, most, least)
    fraction = problem.solver.nodes[last]
    probe = advance(y, problem.direction * h0, (fraction,), [first[0]])
    slope, _ = evaluate(step_to(h0), last, probe)
    change = tree.map_structure(operator.sub, slope, first[0])
    # d2 / h0 is the second derivative, which may be too large for the dtype.
    d2 = as_like(norm(change, y), most) / fraction
    return _second_guess(h0, d1, d2, 1 / problem.solver.order, least)


@_quietly
def _first_guess(d0, d1, most, least):
    # No scale: the state or slope is nearly 0, or the slope's norm is infinite.
    unknown = (d0 < 1e-5) | (d1 < 1e-5) | ~isfinite(d1)
    # A debugger for NaN would find the quotients of 0 and 0 that are not used.
    one = as_like(1.0, d0)
    h0 = where(unknown, as_like(1e-6, d0), 0.01 * d0 / where(unknown, one, d1))
    h0 = where(h0 > least, h0, least)
    return where(h0 < most, h0, most)


@_quietly
def _second_guess(h0, d1, d2, exponent, least):
    by_slope, by_change = (_power(0.01, exponent, d) for d in (d1, d2))
    by_change = by_change * h0**exponent
    h1 = where(by_change < by_slope, by_change, by_slope)
    tiny = where(h0 * 1e-3 > 1e-6, h0 * 1e-3, as_like(1e-6, h0))
    h1 = where((d1 <= 1e-15) & (d2 <= 1e-15 * h0), tiny, h1)
    h1 = where((h1 < 100 * h0) & isfinite(d1), h1, 100 * h0)
    return where(h1 > least, h1, least)


def _power(numerator: float, exponent: float, x: Any) -> Any:
    """(numerator / x) ** exponent, even if the fraction may underflow."""
    x = where(x > 0, x, _tiny(x.dtype))
    return numerator**exponent * x**-exponent


def _tiny(dtype: Any) -> float:
    return float(np.finfo(keras.backend.standardize_dtype(dtype)).tiny)


def _root_mean_square(leaves: list) -> Any:
    """The root mean square of all entries. Scaling prevents over- and underflow."""
    dtypes = {keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves}
    dtype = "float64" if "float64" in dtypes else "float32"
    sizes = [ops.cast(_largest(leaf), dtype) for leaf in leaves]
    largest = ops.max(ops.stack(sizes)) if len(sizes) > 1 else sizes[0]
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = [ops.sum((leaf / ops.cast(scale, leaf.dtype)) ** 2) for leaf in leaves]
    total = sum(ops.cast(x, dtype) for x in squares)
    return largest * (total / _count(leaves, dtype)) ** 0.5


def _largest(leaf):
    # A known number of entries saves an operation, which matters for tiny states.
    known = None not in leaf.shape and math.prod(leaf.shape)
    return ops.max(abs(leaf)) if known else ops.max(abs(leaf), initial=0.0)


def _count(leaves: list, dtype: str) -> Any:
    """The number of entries, but at least 1, since an empty batch has no error."""
    if all(None not in leaf.shape for leaf in leaves):
        return max(sum(math.prod(leaf.shape) for leaf in leaves), 1)
    count = sum(ops.cast(ops.size(leaf), dtype) for leaf in leaves)
    return ops.where(count > 0, count, ops.ones_like(count))
