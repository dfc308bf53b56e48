"""Layers that take another layer as an argument."""

import keras

from keras_nanode import checks


class Nesting:
    """Configuration of a layer whose argument called `nested` is a layer."""

    nested: str

    def get_config(self):
        layer = checks.layer(self.nested, getattr(self, self.nested))
        config = super().get_config()  # type: ignore[misc]
        return {**config, self.nested: keras.saving.serialize_keras_object(layer)}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config[cls.nested])
        return cls(**{**config, cls.nested: layer})


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and all that are in it, in its attributes and in theirs."""
    found, queue = {id(layer): layer}, [layer]
    while queue:
        for value in _leaves(vars(queue.pop())):
            if isinstance(value, keras.Layer) and id(value) not in found:
                found[id(value)] = value
                queue.append(value)
    return list(found.values())


def _leaves(value):
    # Not `keras.tree.flatten`, which sorts the keys of dictionaries: some are layers.
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def same_shape(first, second) -> bool:
    """Whether two shapes may be the same, as far as their axes are known."""
    return len(first) == len(second) and all(
        None in (a, b) or a == b for a, b in zip(first, second, strict=True)
    )


def copy_layer(layer: keras.Layer, seed_offset: int = 0) -> keras.Layer:
    """An equal layer with weights of its own, and with other seeds if asked for."""
    return type(layer).from_config(_reseeded(layer.get_config(), seed_offset))


def built_copy(layer: keras.Layer, input_shape, seed_offset: int = 0) -> keras.Layer:
    copy = copy_layer(layer, seed_offset)
    copy(keras.KerasTensor(input_shape, dtype=copy.compute_dtype))
    return copy


def _reseeded(config, offset: int):
    """`config` with `offset` added to the seeds that its initializers were given."""
    if isinstance(config, (list, tuple)):
        return type(config)(_reseeded(x, offset) for x in config)
    if not isinstance(config, dict):
        return config
    config = {key: _reseeded(value, offset) for key, value in config.items()}
    inner = config.get("config")
    is_initializer = config.get("module") == "keras.initializers"
    if is_initializer and isinstance(inner.get("seed"), int):
        config["config"] = {**inner, "seed": inner["seed"] + offset}
    return config
