"""Checks of arguments that more than one part of the library takes."""

import keras
import numpy as np


def integer(name: str, value, least: int = 1) -> int:
    """`value` as an int, if it is an integer of at least `least`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def one_of(name: str, value, known):
    if value not in known:
        raise ValueError(
            f"Unknown `{name}`. Use one of {tuple(known)}. Received: {name}={value!r}"
        )
    return value


def layer(name: str, value) -> keras.Layer:
    if not isinstance(value, keras.Layer):
        raise ValueError(
            f"`{name}` must be a Keras layer or model. Received: {name}={value!r} of "
            f"type {type(value).__name__}"
        )
    return value


def times(name: str, value, repeated: bool = False) -> np.ndarray:
    """`value` as an array of times, if they are two at least and in one direction;
    neighbours may be equal if `repeated`."""
    array = np.asarray(value, "float64")
    steps = np.diff(array) if array.ndim == 1 else np.zeros(0)
    order = np.greater_equal if repeated else np.greater
    monotonic = len(steps) > 0 and (np.all(order(steps, 0)) or np.all(order(-steps, 0)))
    if not monotonic or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be at least two finite times, all increasing or all "
            f"decreasing. Received: {name}={value!r}"
        )
    return array


def floating(y) -> None:
    dtype = keras.backend.standardize_dtype(y.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "The state of an ODE must be floating, since it changes continuously. Cast "
            "the input, for example with `keras.ops.cast(x, 'float32')`. "
            f"Received: dtype={dtype}, shape={tuple(y.shape)}"
        )
