"""Copies of layers, which need nothing serializable."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_nanode import tree
from keras_nanode.copying.alias import alias
from keras_nanode.copying.parts import attributes_in
from keras_nanode.copying.quiet import quiet
from keras_nanode.copying.trainable import flags, set_flags
from keras_nanode.tree import Structure

# The arguments that layers of Keras pass on to `keras.Layer`.
_OF_KERAS = ("activity_regularizer", "trainable", "dtype", "name")
_BUILD = "build_config"


def copy_layer(
    layer: keras.Layer,
    seed_offset: int = 0,
    replace: Callable[[keras.Layer, Callable], keras.Layer | None] | None = None,
) -> keras.Layer:
    """Copies a layer, with new weights, and with other seeds if asked for.

    Unlike saving, it needs nothing serializable: the copy takes functions, and objects
    of any class, as they are in the layer. A layer that is in it twice is copied once.

    Args:
        layer: The layer or model.
        seed_offset: What the seeds of the copy's initializers are larger by.
        replace: `replace(layer, copy)` gives what the copy has in place of a layer, or
            None for a copy; `copy` copies layers in it.
    """
    made: dict[int, keras.Layer] = {}

    def copy(layer):
        if id(layer) not in made:
            found = replace(layer, copy) if replace else None
            found = found or _copy(layer, copy, seed_offset)
            if found is not layer:
                set_flags(found, flags(layer))
            made[id(layer)] = found
        return made[id(layer)]

    return copy(layer)


def is_graph(layer: keras.Layer) -> bool:
    """Whether the layer is a functional or Sequential model that is built."""
    return isinstance(layer, keras.Model) and getattr(layer, "inputs", None) is not None


def cloned(model: keras.Model, copy: Callable) -> keras.Model:
    """A functional or Sequential model of copies of its layers, not compiled: Keras
    would look for the functions that it was compiled with by their names."""
    inputs = None
    if not isinstance(model, keras.Sequential):  # else Keras makes up their names
        inputs = keras.tree.map_structure(_new_input, model.input)
    source = alias(model, compiled=False)
    return keras.models.clone_model(source, inputs, clone_function=copy)


def _new_input(x: keras.KerasTensor) -> keras.KerasTensor:
    name = x._keras_history.operation.name
    return keras.Input(batch_shape=x.shape, dtype=x.dtype, name=name)


def _copy(layer, copy, seed_offset):
    if is_graph(layer) or isinstance(layer, keras.Sequential):
        return cloned(layer, copy)
    try:
        return _made_again(layer, copy, seed_offset)
    except Exception as error:
        if layer.built and not layer.variables:
            return layer  # Without weights it can serve as its own copy.
        raise ValueError(
            f"The layer {layer.name!r} cannot be copied, which a `ResidualStack` and "
            '`start="independent"` do. Give its class a `get_config`, or keep each '
            "argument of its constructor in an attribute of the same name. "
            f"Received: a layer of type {type(layer).__name__}"
        ) from error


def _made_again(layer: keras.Layer, copy: Callable, seed_offset: int) -> keras.Layer:
    cls = type(layer)
    config = config_of(layer, cls.get_config)
    if config is None:
        # Its attributes hold its arguments, if it follows Keras' convention.
        names = argument_names(cls)
        values = {name: getattr(layer, attribute_of(layer, name)) for name in names}
        return cls(**_copies(values, copy, seed_offset))
    live = {}
    if cls.get_config is not keras.Layer.get_config:  # which has plain values only
        names = [name for name in config if attribute_of(layer, name)]
        values = {name: getattr(layer, attribute_of(layer, name)) for name in names}
        live = {k: v for k, v in values.items() if _is_described(config[k], v)}
    own = {**_reseeded(config, seed_offset), **_copies(live, copy, seed_offset)}
    if not live or own.keys() - set(argument_names(cls)):
        return cls.from_config(own)
    try:
        # `from_config` would expect the descriptions instead.
        return cls(**{**own, "dtype": layer.dtype_policy})
    except (TypeError, ValueError):  # a layer that is not described by one alone
        return cls.from_config(_reseeded(config, seed_offset))


def config_of(layer: keras.Layer, describe: Callable) -> dict | None:
    """What `describe` says about the layer's configuration, or None if it fails."""
    with quiet(attributes_in(layer)):
        try:
            return describe(layer)
        except Exception:  # from any object in it that cannot be described
            return None


def argument_names(cls: type) -> list[str]:
    """The names of all arguments that a class's constructor takes or passes on."""
    names: dict[str, None] = {}
    for parent in cls.__mro__:
        if parent is keras.Layer:
            names.update(dict.fromkeys(_OF_KERAS))
            break
        if "__init__" not in vars(parent):
            continue
        _, *parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
        rest = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        named = [
            p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        # The constructors of subclasses supply what a parent requires.
        known = [p.name for p in named if not names or p.default is not p.empty]
        names.update(dict.fromkeys(known))
        if not rest:
            break
    return list(names)


def attribute_of(layer: keras.Layer, argument: str) -> str:
    """The name of the attribute that stores an argument, or an empty name."""
    if argument == "dtype":
        return "dtype_policy"
    known = [name for name in (argument, f"_{argument}") if hasattr(layer, name)]
    return known[0] if known else ""


def _is_described(described: Any, value: Any) -> bool:
    """Whether a configuration describes the value by a name or another configuration,
    from which Keras might not find the value again."""
    if isinstance(described, str):
        return callable(value) and not isinstance(value, keras.Layer)
    if isinstance(described, (list, tuple)):
        return _has_layers(value)
    return isinstance(described, dict) and callable(value)


def _has_layers(structure: Structure) -> bool:
    return any(isinstance(leaf, keras.Layer) for leaf in tree.flatten(structure))


def _copies(values: dict, copy: Callable, seed_offset: int) -> dict:
    def one(value):
        if isinstance(value, keras.Layer):
            return copy(value)
        if isinstance(value, keras.initializers.Initializer):
            return _other_draws(value, seed_offset)
        return value

    return {k: tree.map_structure(one, v) for k, v in values.items()}


def _other_draws(
    initializer: keras.initializers.Initializer, offset: int
) -> keras.initializers.Initializer:
    """The initializer made again from its configuration, to draw other numbers.

    An integer seed grows by `offset`. Without a seed, Keras chooses a new one. A user's
    initializer that cannot be made again is returned as it is.
    """
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config = {**config, "seed": config["seed"] + offset}
    try:
        return type(initializer).from_config(config)
    except TypeError:  # a user's class whose configuration lacks arguments
        return initializer


def _reseeded(config: Any, offset: int) -> Any:
    """`config` with `offset` added to the given seeds of its initializers, and without
    the shapes that its layers were built for."""
    if isinstance(config, (list, tuple)):
        return type(config)(_reseeded(x, offset) for x in config)
    if not isinstance(config, dict):
        return config
    config = {k: _reseeded(v, offset) for k, v in config.items() if k != _BUILD}
    inner = config.get("config")
    is_initializer = config.get("module") == "keras.initializers"
    if is_initializer and isinstance(inner.get("seed"), int):
        config["config"] = {**inner, "seed": inner["seed"] + offset}
    return config
