"""Arithmetic and buffers on structures: nested lists, tuples and dicts of tensors."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_nanode import backend, tree
from keras_nanode.arrays import is_boolean
from keras_nanode.tree import Structure


def add(x: Structure, y: Structure) -> Structure:
    # `ops.add` would turn float64 into float32 on JAX and PyTorch.
    return tree.map_structure(operator.add, x, y)


def zeros_like(x: Structure) -> Structure:
    return tree.map_structure(ops.zeros_like, x)


def stop_gradient(x: Structure) -> Structure:
    return tree.map_structure(ops.stop_gradient, x)


def as_scalar(x, dtype):
    """Casts a scalar so that it can multiply tensors of `dtype`. Python floats pass
    through."""
    # Skip the cast if possible: even a cast to the same dtype takes time in Keras.
    return x if isinstance(x, float) or x.dtype == dtype else ops.cast(x, dtype)


def weighted(*terms: tuple[float, Structure]) -> Structure:
    """sum_i weight_i x_i, for pairs (weight, x)."""
    weights, structures = zip(*terms, strict=True)

    def leaf(first, *leaves):
        total = first if weights[0] == 1 else weights[0] * first
        for weight, x in zip(weights[1:], leaves, strict=True):
            # A product by 1 would stay an operation in TensorFlow's graphs.
            total = total + x if weight == 1 else backend.add_scaled(total, weight, x)
        return total

    return tree.map_structure(leaf, *structures)


def increment(
    y: Structure, h: Any, coefficients: Sequence[float], k: list[Structure]
) -> Structure:
    """h sum_i coefficients_i k_i, for slopes k with the structure of y."""
    terms = _terms(h, coefficients, k)
    return _sum(h, terms) if terms else zeros_like(y)


def _terms(h, coefficients, k):
    """Pairs of each coefficient that is not 0 and its slope. h, if it is a number, is
    folded into the coefficients."""
    scale = h if isinstance(h, float) else 1
    return [(scale * c, slope) for c, slope in zip(coefficients, k, strict=True) if c]


def _sum(h, terms):
    """The sum of what `_terms` gives, times h if that is a tensor."""
    total = weighted(*terms)
    if isinstance(h, float):
        return total
    return tree.map_structure(lambda s: as_scalar(h, s.dtype) * s, total)


def advance(
    y: Structure, h: Any, coefficients: Sequence[float], k: list[Structure]
) -> Structure:
    """y + h sum_i coefficients_i k_i."""
    terms = _terms(h, coefficients, k)
    if not terms:
        return y
    if len(terms) == 1 and isinstance(h, float):
        return weighted((1, y), *terms)
    return add(y, _sum(h, terms))


def row(stacked: Structure, i: Any) -> Structure:
    if isinstance(i, (int, np.integer)):
        return tree.map_structure(lambda x: x[i], stacked)
    return tree.map_structure(lambda x: backend.take(x, i), stacked)


def stack(structures: list[Structure]) -> Structure:
    """Stacks structures of the same form along a new first axis."""
    if len(structures) == 1:
        return tree.map_structure(lambda x: x[None], structures[0])
    return tree.map_structure(lambda *leaves: ops.stack(leaves), *structures)


def unstack(stacked: Structure, number: int) -> list[Structure]:
    """The inverse of `stack`, for `number` structures."""
    leaves = [ops.unstack(x, number) for x in tree.flatten(stacked)]
    return [
        tree.pack_sequence_as(stacked, [leaf[i] for leaf in leaves])
        for i in range(number)
    ]


def select(condition: Any, x: Structure, y: Structure) -> Structure:
    # Where the condition is known, no gradient passes through the other structure.
    if is_boolean(condition):
        return x if condition else y
    return tree.map_structure(lambda x, y: ops.where(condition, x, y), x, y)


def apply_if(condition: Any, f: Callable, x: Structure) -> Structure:
    """`f(x)` if the scalar condition holds, else `x`."""
    if is_boolean(condition):
        return f(x) if condition else x
    # Use a loop of 0 or 1 rounds: tf2onnx loses the shapes of a loop with a branch.
    count = ops.cast(condition, "int32")
    return backend.fori_loop(count, lambda i, x: f(x), x, limit=1)


def buffers(size: int, like: Structure) -> Structure:
    """A buffer of `size` tensors for each leaf."""
    return tree.map_structure(lambda x: backend.buffer(size, x), like)


def write(saved: Structure, i: Any, x: Structure) -> Structure:
    return tree.map_structure(lambda b, x: backend.write(b, i, x), saved, x)


def read(saved: Structure, i: Any) -> Structure:
    return tree.map_structure(lambda b: backend.read(b, i), saved)


def stacked(saved: Structure) -> Structure:
    """The contents of buffers, as tensors."""
    return tree.map_structure(backend.stack, saved)


def nan_where(condition, dtype):
    """NaN where the condition holds, and 1 elsewhere."""
    # The square root of -1, since a check for NaN in a graph would find a constant NaN.
    return ops.cast(ops.where(condition, -1, 1), dtype) ** 0.5


def nan_if(condition: Any, x: Structure) -> Structure:
    """NaN everywhere if the scalar condition holds, else `x`."""
    return tree.map_structure(lambda x: x * nan_where(condition, x.dtype), x)


def nan_rows(stacked: Structure, condition: Any) -> Structure:
    """NaN in the rows where the condition, one boolean per row, holds."""
    if isinstance(condition, np.ndarray) and not condition.any():
        return stacked

    def leaf(x):
        rows = ops.reshape(condition, (-1, *[1] * (len(x.shape) - 1)))
        # Use a product: then the cotangent that passes through becomes NaN as well.
        return x * nan_where(rows, x.dtype)

    return tree.map_structure(leaf, stacked)
