"""A first evaluation of the dynamics, which finds what they must not do."""

import contextlib
from collections.abc import Callable, Iterator

import keras

from keras_nanode.layers.parts import all_layers


def try_out(
    function: Callable, layer: keras.Layer, x: keras.KerasTensor, training: bool
) -> None:
    """Calls a function that calls a layer, symbolically: what it refuses, it refuses
    now.

    Raises:
        ValueError: also if the layer uses rematerialization. That evaluates layers
            later, with the weights that they have then. What `keras.remat` returned
            before this call is not seen.
    """
    for part in all_layers(layer):
        if _is_rematerialized(part):
            raise ValueError(_no_remat(layer, f"{part.name!r}, made in a RematScope"))
    traced = _Traced(function)
    try:
        with _seeing_remat() as seen:
            traced(x, training=training)
    except ValueError:
        if traced.error is None:
            raise
        # Without the message that Keras adds about `_Traced`.
        raise traced.error from None
    if seen:
        raise ValueError(_no_remat(layer, f"keras.remat({seen[0]!r})"))


def _is_rematerialized(layer: keras.Layer) -> bool:
    scope = layer._remat_mode
    if scope is None or scope.mode is None:
        return False
    return scope.mode != "list_of_layers" or layer.name in scope.layer_names


@contextlib.contextmanager
def _seeing_remat() -> Iterator[list]:
    """Lists the functions that `keras.remat` is called with, and leaves them as they
    are."""
    seen: list = []

    def see(f):
        seen.append(f)
        return f

    remat = keras.remat
    keras.remat = see
    try:
        yield seen
    finally:
        keras.remat = remat


def _no_remat(layer: keras.Layer, received: str) -> str:
    return (
        f"The layer {layer.name!r} inside of an ODE or a TimeVarying must not use "
        "rematerialization, whose second evaluation would have other weights. Call "
        "the function itself, and make the layer outside of `keras.RematScope`. The "
        f"adjoint of the ODE bounds the memory. Received: {received}"
    )


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
