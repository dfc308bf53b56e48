"""A first evaluation of the dynamics, which finds what they must not do."""

from collections.abc import Callable

import keras


def try_out(function: Callable, x: keras.KerasTensor) -> None:
    """Calls a function symbolically, as in training: what it refuses it refuses now."""
    traced = _Traced(function)
    try:
        traced(x, training=True)
    except ValueError:
        if traced.error is None:
            raise
        # Without the message that Keras adds about `_Traced`.
        raise traced.error from None


class _Traced(keras.Layer):
    """Traces a function of one input symbolically, as Keras traces a layer's call."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.error: ValueError | None = None

    def call(self, inputs, training=None):
        try:
            return self.function(inputs)
        except ValueError as error:
            self.error = error
            raise
