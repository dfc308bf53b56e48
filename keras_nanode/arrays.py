"""Functions of tensors, or of numbers and NumPy arrays.

The times of a solve, and the lengths and the number of its steps, are numbers if Python
runs the loop over the steps and the times are known. A Keras operation on a scalar
tensor takes about 20 us, and one on numbers 1 us. In a compiled function they are
tensors.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend


def unrolls_loops() -> bool:
    """Whether Python runs all loops, over tensors that may have no values yet."""
    return math.isinf(backend.most_unrolled())


def loops_in_python() -> bool:
    """Whether Python runs all loops, over tensors that have values."""
    # OpenVINO unrolls loops too, as PyTorch's compiler does, into nodes of a graph.
    return unrolls_loops() and backend.is_known(ops.zeros(()))


def namespace(x: Any) -> Any:
    """The functions for x: those of NumPy for an array, else those of Keras."""
    return np if isinstance(x, np.ndarray) else ops


def eps(dtype: Any) -> float:
    """The distance from 1 to the next number, of a dtype or that of a tensor."""
    name = keras.backend.standardize_dtype(getattr(dtype, "dtype", dtype))
    return float(np.finfo(name).eps)


def as_like(x, like):
    """The scalar x as a float64 number if `like` is one, else as a tensor of its
    dtype."""
    if not isinstance(like, float):
        return ops.cast(x, like.dtype)
    return np.float64(backend.values(x) if ops.is_tensor(x) else x)


def as_tensor(x: Any, dtype: str) -> Any:
    """An array, or a tensor, as a tensor of the dtype."""
    known = isinstance(x, np.ndarray)
    return ops.convert_to_tensor(x, dtype) if known else ops.cast(x, dtype)


def as_integer(x):
    """A scalar or a boolean as an integer."""
    return ops.cast(x, "int32") if ops.is_tensor(x) else int(x)


def is_boolean(condition: Any) -> bool:
    """Whether a condition is known, and no tensor."""
    return isinstance(condition, (bool, np.bool_))


def where(condition, x, y):
    if is_boolean(condition):
        return x if condition else y
    if isinstance(condition, np.ndarray):
        return np.where(condition, x, y)
    return ops.where(condition, x, y)


def cond(condition: Any, f: Callable[[], Any], g: Callable[[], Any]) -> Any:
    if is_boolean(condition):
        return f() if condition else g()
    return backend.cond(condition, f, g)


def isfinite(x):
    return ops.isfinite(x) if ops.is_tensor(x) else np.isfinite(x)


def take(x, i):
    return x[i] if isinstance(x, np.ndarray) else backend.take(x, i)


def vector(*scalars):
    return ops.stack(scalars) if ops.is_tensor(scalars[0]) else np.array(scalars)
