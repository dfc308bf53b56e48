"""What a layer has in its attributes."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras


class Holder:
    """Hides a layer from Keras.

    Attributes:
        layer: The layer, which is found here all the same.
    """

    layer: keras.Layer


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and all layers in its attributes, in their attributes, and so on."""
    found, queue = {id(layer): layer}, [layer]
    while queue:
        for value in _leaves(vars(queue.pop(0))):
            if isinstance(value, keras.Layer) and id(value) not in found:
                found[id(value)] = value
                queue.append(value)
    return list(found.values())


def attributes_in(layer: keras.Layer) -> Iterator[Any]:
    """All that a layer and the layers in it have in their attributes."""
    return itertools.chain.from_iterable(_leaves(vars(x)) for x in all_layers(layer))


def _leaves(value):
    # Not `keras.tree.flatten`: it sorts dictionary keys, and some keys are layers.
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, Holder):
        value = value.layer
    if isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
