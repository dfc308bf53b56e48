"""Layers that take another layer as an argument."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_nanode import checks, tree
from keras_nanode.tree import Structure

# The arguments that layers of Keras pass on to `keras.Layer`.
_OF_KERAS = ("activity_regularizer", "trainable", "dtype", "name")
_BUILD = "build_config"


class Nesting:
    """Configuration of a layer that takes a layer as the argument named `nested`."""

    nested: str

    def get_config(self):
        config = super().get_config()  # type: ignore[misc]
        return {**config, self.nested: self._nested_config()}

    def _nested_config(self) -> dict:
        layer = checks.layer(self.nested, getattr(self, self.nested))
        return _serialized(self, self.nested, layer)

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config[cls.nested])
        return cls(**{**config, cls.nested: layer})


class Held:
    """Hides a layer and its variables from Keras, since they are not part of the layer
    that holds them."""

    def __init__(self, layer: keras.Layer):
        self.layer = layer
        self.weights: list[keras.Variable] = []
        self.others: list[keras.Variable] = []
        self.config: dict | None = None
        self.is_given = False

    def keep(self) -> None:
        """Keeps what the layer is now, since it may be frozen or changed later, or be
        part of another model."""
        self.weights = list(self.layer.trainable_variables)
        self.others = list(self.layer.non_trainable_variables)
        self.config = _config(self.layer, keras.saving.serialize_keras_object)

    @property
    def has_same_variables(self) -> bool:
        """Whether the layer has the variables that were kept, frozen or not."""
        return _ids(self.layer.variables) == _ids(self.weights + self.others)

    @property
    def has_same_weights(self) -> bool:
        """Whether the variables that were kept as trainable are the trainable ones."""
        same = _ids(self.layer.trainable_variables) == _ids(self.weights)
        return same and self.has_same_variables

    def copy(self) -> keras.Layer:
        """A copy of the layer as it was kept, not built."""
        if self.config is None or self.has_same_weights:
            return copy_layer(self.layer)
        return keras.saving.deserialize_keras_object(self.config, safe_mode=False)


def _ids(variables: list[keras.Variable]) -> set[int]:
    return {id(v) for v in variables}


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and all layers in its attributes, in their attributes, and so on."""
    found, queue = {id(layer): layer}, [layer]
    while queue:
        for value in _leaves(vars(queue.pop(0))):
            if isinstance(value, keras.Layer) and id(value) not in found:
                found[id(value)] = value
                queue.append(value)
    return list(found.values())


def _leaves(value):
    # Not `keras.tree.flatten`: it sorts dictionary keys, and some keys are layers.
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, Held):
        value = value.layer
    if isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def copy_layer(layer: keras.Layer, seed_offset: int = 0) -> keras.Layer:
    """Copies a layer, with new weights, and with other seeds if asked for.

    Unlike saving, it needs nothing serializable: the copy takes functions, and objects
    of any class, as they are in the layer.
    """
    copy = functools.partial(copy_layer, seed_offset=seed_offset)
    is_functional = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
    if is_functional or isinstance(layer, keras.Sequential):
        return keras.models.clone_model(layer, clone_function=copy)
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


def symbolic_output(layer: keras.Layer, x: keras.KerasTensor, **others: Any) -> Any:
    """What a layer gives for a symbolic input. It is built if necessary.

    Keras numbers the symbolic calls of a layer, and a file of a functional model names
    those that are part of it. This one is part of no model and takes no number.
    """
    calls = layer._inbound_nodes
    number = len(calls)
    try:
        return layer(x, **others)
    finally:
        del calls[number:]


def built_copy(
    layer: keras.Layer, input_shape: tuple[int | None, ...], seed_offset: int = 0
) -> keras.Layer:
    copy = copy_layer(layer, seed_offset)
    symbolic_output(copy, keras.KerasTensor(input_shape, dtype=copy.compute_dtype))
    return copy


def _made_again(layer: keras.Layer, copy: Callable, seed_offset: int) -> keras.Layer:
    cls = type(layer)
    config = _config(layer, cls.get_config)
    if config is None:
        # Its attributes hold its arguments, if it follows Keras' convention.
        values = {name: getattr(layer, _attribute(layer, name)) for name in _names(cls)}
        return cls(**_copies(values, copy, seed_offset))
    live = {}
    if cls.get_config is not keras.Layer.get_config:  # which has plain values only
        names = [name for name in config if _attribute(layer, name)]
        values = {name: getattr(layer, _attribute(layer, name)) for name in names}
        live = {k: v for k, v in values.items() if _is_described(config[k], v)}
    own = {**_reseeded(config, seed_offset), **_copies(live, copy, seed_offset)}
    if not live or own.keys() - set(_names(cls)):
        return cls.from_config(own)
    try:
        # `from_config` would expect the descriptions instead.
        return cls(**{**own, "dtype": layer.dtype_policy})
    except (TypeError, ValueError):  # a layer that is not described by one alone
        return cls.from_config(_reseeded(config, seed_offset))


def _config(layer: keras.Layer, describe: Callable) -> dict | None:
    """What `describe` says about the layer's configuration, or None if it fails."""
    with warnings.catch_warnings():
        # Keras warns about lambdas, which are a problem in files only.
        warnings.simplefilter("ignore")
        try:
            return describe(layer)
        except Exception:  # from any object in it that cannot be described
            return None


def _names(cls: type) -> list[str]:
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


def _attribute(layer: keras.Layer, argument: str) -> str:
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


def _serialized(owner: keras.Layer, argument: str, layer: keras.Layer) -> dict:
    """Serializes a layer that is an argument of another layer."""
    try:
        return keras.saving.serialize_keras_object(layer)
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
    for name in filter(functools.partial(_attribute, layer), _names(type(layer))):
        value = getattr(layer, _attribute(layer, name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                keras.saving.serialize_keras_object(value)
            except (NotImplementedError, TypeError, ValueError):
                inner = [x for x in tree.flatten(value) if isinstance(x, keras.Layer)]
                deeper = filter(None, map(_culprit, inner))
                return next(deeper, f"`{name}` of {layer.name!r}, {value!r}")
    return ""
