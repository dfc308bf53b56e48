"""Traces the dynamics when a layer is built, so that errors come then."""

import traceback
from collections.abc import Callable

import keras

from keras_nanode.copying.parts import all_layers
from keras_nanode.fields.stateless import Trial

# The functions of the backends that evaluate a rematerialized function.
_REMAT = {
    ("jax._src.ad_checkpoint", "_trace_to_jaxpr"),
    ("tensorflow.python.ops.custom_gradient", "recompute_grad.<locals>.inner"),
    ("torch.utils.checkpoint", "checkpoint"),
}


def try_out(
    function: Callable, layer: keras.Layer, x: keras.KerasTensor, training: bool
) -> None:
    """Traces a function that calls a layer once, so that what is not allowed fails
    now, and not in training.

    Raises:
        ValueError: also if the layer reads weights in a function that is
            rematerialized. That is evaluated again later, with the weights of then.
    """
    for part in all_layers(layer):
        if _in_remat_scope(part):  # Keras can fail to call it at all
            raise ValueError(_no_remat(layer, f"{part.name!r}, made in a RematScope"))
    traced = _Traced(function)
    try:
        traced(x, training=training)
    except ValueError:
        if traced.error is None:
            raise
        # Without the message that Keras adds about `_Traced`.
        raise traced.error from None
    if traced.seen:
        raise ValueError(_no_remat(layer, f"keras.remat over {traced.seen[0]!r}"))


def _in_remat_scope(layer: keras.Layer) -> bool:
    scope = layer._remat_mode
    if scope is None or scope.mode is None:
        return False
    return scope.mode != "list_of_layers" or layer.name in scope.layer_names


def _no_remat(layer: keras.Layer, received: str) -> str:
    return (
        f"The layer {layer.name!r} inside of an ODE or a TimeVarying must not use "
        "rematerialization, whose second evaluation would have other weights. Call "
        "the function itself, and make the layer outside of `keras.RematScope`. The "
        f"adjoint of the ODE bounds the memory. Received: {received}"
    )


class _Traced(keras.Layer):
    """Traces a function of one input symbolically, as Keras traces a layer's call.

    Attributes:
        seen: The variables that were read in a function that is rematerialized.
    """

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.error: ValueError | None = None
        self.seen: list[str] = []

    def call(self, inputs, training=None):
        def note(variable):
            if _is_rematerialized():
                self.seen.append(variable.path)

        try:
            with Trial(note):
                return self.function(inputs)
        except ValueError as error:
            self.error = error
            raise


def _is_rematerialized() -> bool:
    """Whether what is evaluated now, within `_Traced`, is evaluated by `keras.remat`.

    The stack tells it of this thread alone, whatever `keras.remat` was called by and
    when.
    """
    for frame, _ in traceback.walk_stack(None):
        if frame.f_code is _Traced.call.__code__:
            return False
        if (frame.f_globals.get("__name__"), frame.f_code.co_qualname) in _REMAT:
            return True
    return False
