"""Which parts of a layer are trainable: in its configuration, and in its copies.

Keras keeps the flag of each layer that it describes. Parts that a layer makes by itself
have no description of their own.
"""

from collections.abc import Iterator
from typing import Any

import keras

from keras_nanode import checks

# Flags by the paths of parts; the empty path is the layer itself.
Flags = dict[str, bool]

# Where a configuration has the flags of parts.
FLAGS = "trainable_parts"


class TrainableParts:
    """Keeps the flags `trainable` of the parts that a layer makes.

    A part that a frozen layer gets is frozen, as Keras freezes its variables. Whatever
    is set on a part later is in the configuration.
    """

    # The name of the argument that is a layer, whose description has its flags.
    nested = ""
    # The flags of parts that `build` will make.
    _awaited: Flags = {}
    built: bool

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "trainable":
            self._awaited = {}
        elif name == "built":
            if value and self._awaited:
                set_flags(self, self._awaited)
                self._awaited = {}
        elif not getattr(self, "_trainable", True):
            for _, leaf in _leaves(name, value):
                if isinstance(leaf, keras.Layer):
                    _set_all(leaf, False)

    def get_config(self):
        config = super().get_config()  # type: ignore[misc]
        found = flags(self)
        made = {path: flag for path, flag in found.items() if self._is_made(path)}
        if len(found) == 1 or not (made or _made_parts(self)):
            return config
        # Written even if empty: the parts are then as the layer is, not as `nested` is.
        return {**config, FLAGS: made}

    @classmethod
    def from_config(cls, config):
        config = dict(checks.config(cls, config))
        found = config.pop(FLAGS, None)
        layer = super().from_config(config)  # type: ignore[misc]
        if found is not None:
            for part in _made_parts(layer).values():
                _set_all(part, layer.trainable)
            set_flags(layer, checked_flags(found))
        return layer

    def _is_made(self, path: str) -> bool:
        return path.partition("/")[0] not in ("", self.nested)


def flags(part: keras.Layer | keras.Variable) -> Flags:
    """The flag of a layer, and those of the parts that differ from what has them."""
    found = {"": part.trainable}
    if isinstance(part, TrainableParts):
        found.update(part._awaited)
    for name, inner in _parts(part).items():
        for path, flag in flags(inner).items():
            if path or flag != part.trainable:
                found[f"{name}/{path}".rstrip("/")] = flag
    return found


def set_flags(part: keras.Layer | keras.Variable, given: Flags) -> Flags:
    """Sets flags that `flags` found, and returns those of parts that are not there.

    A layer of this library waits for its own.
    """
    if "" in given:
        _set_all(part, given[""])
    inner: dict[str, Flags] = {}
    for path, flag in given.items():
        if path:
            name, _, rest = path.partition("/")
            inner.setdefault(name, {})[rest] = flag
    known, left = _parts(part), {}
    for name, found in inner.items():
        if name in known:
            found = set_flags(known[name], found)
        left.update({f"{name}/{path}".rstrip("/"): f for path, f in found.items()})
    if left and isinstance(part, TrainableParts) and not part.built:
        part._awaited, left = left, {}
    return left


def _set_all(part: keras.Layer | keras.Variable, flag: bool) -> None:
    """Sets the flag of all parts. On TensorFlow, a layer does not pass on to its parts
    what it is already."""
    for inner in _parts(part).values():
        _set_all(inner, flag)
    part.trainable = flag


def serialize(layer: keras.Layer) -> dict:
    """As `keras.saving.serialize_keras_object`, with the flags of all parts."""
    config = keras.saving.serialize_keras_object(layer)
    found = flags(layer)
    says_all = isinstance(layer, TrainableParts) or found == {"": True}
    return config if says_all else {**config, FLAGS: found}


def deserialize(config: dict, **options: Any) -> keras.Layer:
    """The layer that `serialize` described."""
    layer = keras.saving.deserialize_keras_object(config, **options)
    set_flags(layer, checked_flags(config.get(FLAGS, {})))
    return layer


def checked_flags(found: Any) -> Flags:
    """Checks flags from a configuration."""
    is_right = isinstance(found, dict) and all(
        isinstance(path, str) and isinstance(flag, bool) for path, flag in found.items()
    )
    if not is_right:
        raise checks.wrong(FLAGS, found, "a dict of paths of parts and booleans")
    return found


def _made_parts(layer: Any) -> dict:
    return {k: part for k, part in _parts(layer).items() if layer._is_made(k)}


def _parts(layer: keras.Layer | keras.Variable) -> dict:
    """The variables and layers whose flags Keras sets with the layer's, each by the
    public attribute that has it, or else by its place among them."""
    if isinstance(layer, keras.Variable):
        return {}
    paths: dict[int, str] = {}
    for name, value in vars(layer).items():
        if not name.startswith("_"):
            for path, leaf in _leaves(name, value):
                paths.setdefault(id(leaf), path)
    tracked = [*_leaves("variable", layer._trainable_variables)]
    tracked += _leaves("layer", layer._layers)
    return {paths.get(id(part), path): part for path, part in tracked}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value, or the members of a list or dict and of those in it, and their paths."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(f"{path}.{key}".replace("/", "_"), item)
