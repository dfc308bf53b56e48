"""Layers that take another layer as an argument."""

from typing import Any

import keras

from keras_nanode import checks, tree
from keras_nanode.copying.alias import alias
from keras_nanode.copying.copies import (
    argument_names,
    attribute_of,
    config_of,
    copy_layer,
)
from keras_nanode.copying.parts import Holder, attributes_in
from keras_nanode.copying.quiet import quiet
from keras_nanode.copying.trainable import (
    Flags,
    deserialize,
    flags,
    serialize,
    set_flags,
)
from keras_nanode.fields.stateless import split_variables


class Nesting:
    """Configuration of a layer that takes a layer as the argument named `nested`.

    A subclass that makes this layer by itself has an empty name there.
    """

    nested: str

    def get_config(self):
        config = super().get_config()  # type: ignore[misc]
        return {**config, self.nested: self._nested_config()} if self.nested else config

    def _nested_config(self) -> dict:
        layer = checks.layer(self.nested, getattr(self, self.nested))
        return _serialized(self, self.nested, layer)

    @classmethod
    def from_config(cls, config):
        if not cls.nested:
            return cls(**config)
        layer = checks.config(cls, config, cls.nested)[cls.nested]
        if not isinstance(layer, keras.Layer):
            layer = deserialize(layer)
        kept = flags(layer)
        made: Any = cls(**{**config, cls.nested: layer})
        if not made.trainable:
            set_flags(layer, kept)  # which may be a thawed part of a frozen layer
        return made


class Held(Holder):
    """Hides a layer and its variables from Keras, since they are not part of the layer
    that holds them."""

    def __init__(self, layer: keras.Layer):
        self.layer = layer
        self.weights: list[keras.Variable] = []
        self.others: list[keras.Variable] = []
        self.config: dict | None = None
        self.flags: Flags = {}
        self.is_given = False

    def keep(self) -> None:
        """Keeps what the layer is now, since it may be frozen or changed later, or be
        part of another model."""
        self.weights, self.others = split_variables(self.layer)
        self.config = config_of(self.layer, serialize)
        self.flags = flags(self.layer)

    @property
    def has_same_variables(self) -> bool:
        """Whether the layer has the variables that were kept, frozen or not."""
        return _ids(self.layer.variables) == _ids(self.weights + self.others)

    @property
    def has_same_weights(self) -> bool:
        """Whether the variables that were kept as trainable are the trainable ones."""
        same = _ids(split_variables(self.layer)[0]) == _ids(self.weights)
        return same and self.has_same_variables

    def copy(self) -> keras.Layer:
        """A copy of the layer as it was kept, not built."""
        if self.config is None or self.has_same_weights:
            return copy_layer(self.layer)
        return deserialize(self.config, safe_mode=False)


def _ids(variables: list[keras.Variable]) -> set[int]:
    return {id(v) for v in variables}


def symbolic_output(layer: keras.Layer, x: keras.KerasTensor, **others: Any) -> Any:
    """What a layer gives for a symbolic input. It is built if necessary.

    Keras numbers the symbolic calls of a layer, and a file of a functional model names
    those that are part of it. This one is part of no model and takes no number.
    """
    return alias(layer, _inbound_nodes=[])(x, **others)


def built_copy(
    layer: keras.Layer, input_shape: tuple[int | None, ...], seed_offset: int = 0
) -> keras.Layer:
    copy = copy_layer(layer, seed_offset)
    symbolic_output(copy, keras.KerasTensor(input_shape, dtype=copy.compute_dtype))
    set_flags(copy, flags(layer))  # also of the parts that were only built now
    return copy


def _serialized(owner: keras.Layer, argument: str, layer: keras.Layer) -> dict:
    """Serializes a layer that is an argument of another layer."""
    try:
        return serialize(layer)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The layer {layer.name!r}, `{argument}` of the layer {owner.name!r}, "
            f"cannot be saved, because of {_culprit(layer) or 'its `get_config`'}. Use "
            "a function with a name or a class with a `get_config`, and register it "
            "with `keras.saving.register_keras_serializable`. "
            f"Received: {argument}={layer!r}"
        ) from error


def _culprit(layer: keras.Layer) -> str:
    """Names the argument of a layer that cannot be saved."""
    for name in argument_names(type(layer)):
        if not (attribute := attribute_of(layer, name)):
            continue
        value = getattr(layer, attribute)
        with quiet(attributes_in(layer)):
            try:
                keras.saving.serialize_keras_object(value)
            except (NotImplementedError, TypeError, ValueError):
                inner = [x for x in tree.flatten(value) if isinstance(x, keras.Layer)]
                deeper = filter(None, map(_culprit, inner))
                return next(deeper, f"`{name}` of {layer.name!r}, {value!r}")
    return ""
