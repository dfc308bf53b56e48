"""Masks on the way through layers that do not know them."""

from typing import Any

import keras
from keras import ops

from keras_nanode.copying.alias import alias


class _Masked(keras.Layer):
    """Returns its input, with the mask that it is called with attached."""

    def __init__(self):
        super().__init__(autocast=False, name="masked")
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return ops.copy(inputs)


# Without state, so that all threads can call it.
_MASKED = _Masked()


def with_mask(x, mask=None):
    """x with the mask attached, where Keras' layers look for it. A mask of None leaves
    x unchanged."""
    return x if mask is None else _MASKED(x, mask=mask)


def passing_on(layer: keras.Layer, mask: Any = None) -> Any:
    """The layer, without Keras' warning that it loses the mask: its caller passes the
    mask on."""
    if mask is None or layer.supports_masking:
        return layer
    return alias(layer, supports_masking=True)
