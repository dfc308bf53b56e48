"""Layers as one caller wants them, without a change that other callers would see."""

from typing import Any

import keras


class _Alias:
    """Keras' `__call__` runs on the alias, and so finds the alias' own attributes.

    All that it looks up and sets beside these is the layer's, and the code of the
    layer's `call`, `build` and `compute_mask` runs on the layer itself.
    """

    def __init__(self, layer: keras.Layer, attributes: dict):
        vars(self).update(attributes, _aliased=layer)

    @property  # type: ignore[misc]
    def __class__(self):
        return self._aliased.__class__

    def __getattr__(self, name):
        return getattr(vars(self)["_aliased"], name)

    def __setattr__(self, name, value):
        setattr(self._aliased, name, value)

    def __call__(self, *args, **kwargs):
        return self.__class__.__call__(self, *args, **kwargs)


def alias(layer: keras.Layer, **attributes: Any) -> Any:
    """What is called as the layer, but with other values of some attributes.

    Threads share layers. One that changed the layer and changed it back after its call
    would change what the others compute in between.
    """
    return _Alias(layer, attributes)
