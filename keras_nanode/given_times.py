"""Checks of times that are given to layers and bases when they are called.

A solver gives tensors or floats at each stage, which pass at once.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import checks


def one_time(name: str, value: Any) -> Any:
    """`value` as a number or a tensor, if it is one time: finite, if it is a number."""
    if isinstance(value, float) and math.isfinite(value):
        return value
    expected = "one time, a finite number or a tensor with one element"
    if _is_tensor(value):
        # Of a symbolic tensor, an axis may be unknown.
        if any(n not in (1, None) for n in value.shape):
            raise checks.wrong(name, value, expected)
        return value
    found = checks.array(name, value, expected)
    if found.size != 1 or not np.isfinite(found).all():
        raise checks.wrong(name, value, expected)
    return float(found.reshape(()))


def times(name: str, value: Any, expected: str) -> Any:
    """`value` as it is if it is a tensor, else as an array of finite numbers."""
    if _is_tensor(value):
        return value
    leaves = value if isinstance(value, (list, tuple)) else []
    if any(map(_is_tensor, leaves)):
        return ops.stack(leaves)
    found = checks.array(name, value, expected)
    if not np.isfinite(found).all():
        raise checks.wrong(name, value, expected)
    given = np.asarray(value).dtype
    keeps = isinstance(value, (np.ndarray, np.floating)) and given.kind == "f"
    return found.astype(given if keeps else keras.config.floatx())


def _is_tensor(value: Any) -> bool:
    symbolic = isinstance(value, (keras.KerasTensor, keras.Variable))
    return symbolic or ops.is_tensor(value)
