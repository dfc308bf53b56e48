"""What public layers do with the arguments of their constructors."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from keras_nanode import checks
from keras_nanode.copying.trainable import TrainableParts
from keras_nanode.keywords import by_position, too_many, unknown

# What `keras.layers.Dense` accepts: a name, a function, an object or a config.
Activation = str | Callable | dict | None
Initializer = str | Callable | dict | None
Regularizer = str | Callable | dict | None
Constraint = str | Callable | dict | None

# The arguments that Keras takes in every layer's constructor.
_OF_KERAS = (
    "activity_regularizer",
    "dtype",
    "input_dim",
    "input_shape",
    "name",
    "trainable",
)


class CheckedArguments(TrainableParts):
    """Names a wrong keyword, and makes the constructor's arguments read-only. Refuses
    inputs that are no tensor, at the outer call alone.

    An attribute that may be changed later is a property with a setter.
    """

    # The arguments of this library's constructors in the class hierarchy.
    _given: frozenset[str] = frozenset()
    call: Callable

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and is_ours(cls):
            cls._given = cls._given.union(arguments_of(cls))

    def __new__(cls, *args, **kwargs):
        # A user's subclass may have arguments that it does not pass on.
        if is_ours(cls.__init__):
            known, first = arguments_of(cls), by_position(cls.__init__)
            if first is not None and len(args) > len(first):
                raise too_many(cls, first, known, args)
            for name in kwargs:
                if name not in (*known, *_OF_KERAS):
                    raise unknown(cls, known, name, kwargs[name], _OF_KERAS)
        return super().__new__(cls, *args, **kwargs)

    def __call__(self, *args, **kwargs):
        if args or "inputs" in kwargs:
            inputs = args[0] if args else kwargs["inputs"]
            dtype = getattr(inputs, "dtype", None)
            odd = dtype is None or _NO_NUMBERS.search(str(dtype))
            if odd and is_ours(type(self).call):
                _check_inputs(self, inputs)
        return super().__call__(*args, **kwargs)  # type: ignore[misc]

    def __setattr__(self, name, value):
        known = getattr(type(self), name, None)
        if isinstance(known, property):
            is_fixed = known.fset is None
        else:
            is_fixed = hasattr(self, name)
        if is_fixed and name in self._given:
            raise AttributeError(
                f"`{name}` of a {type(self).__name__} cannot be changed after "
                f"construction. {_how_to_change(type(self), name)} "
                f"Received: {name}={value!r}"
            )
        super().__setattr__(name, value)


def _how_to_change(cls: type, name: str) -> str:
    """How to have another value of an argument that cannot be changed."""
    # A class may make it for its base class, from arguments of its own.
    base = next(b for b in reversed(cls.__mro__) if name in _own_arguments(b))
    own = [n for n in arguments_of(cls) if n not in arguments_of(base)]
    if name in arguments_of(cls) or not own:
        return f"Make a new layer, for example with {_made_with(name)}."
    names = ", ".join(f"`{n}`" for n in own)
    return (
        f"It follows from {names}. Make a new layer, for example with "
        f"{_made_with(own[0])}, or use `{base.__name__}`, which takes `{name}`."
    )


def _own_arguments(cls: type) -> tuple[str, ...]:
    return arguments_of(cls) if is_ours(cls) and "__init__" in vars(cls) else ()


def _made_with(name: str) -> str:
    return f"`type(layer).from_config({{**layer.get_config(), {name!r}: ...}})`"


# Dtypes as NumPy, TensorFlow, JAX and PyTorch write them.
_NO_NUMBERS = re.compile(r"complex|str|object|[US]\d")


def _check_inputs(layer, inputs):
    if "complex" in str(getattr(inputs, "dtype", "")):
        checks.no_complex("inputs", inputs)
    given = hasattr(inputs, "dtype") or inputs is None
    if given or isinstance(inputs, (list, tuple, dict)):
        raise ValueError(
            f"The layer {layer.name!r} takes one tensor of numbers as `inputs`. "
            f"Received: {checks.shown('inputs', inputs)}"
        )


def arguments_of(cls: Any) -> tuple[str, ...]:
    """The argument names of a class's constructor, without those of Keras."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return tuple(p.name for p in parameters if p.kind in kinds)


def takes_arguments_of(parent: Any, but: str = "") -> Callable:
    """Shows the parent's arguments in place of a constructor's `**kwargs`.

    `help` and editors that run the code then list them.

    Args:
        parent: The class whose constructor takes `**kwargs`.
        but: The argument that the decorated constructor sets itself.
    """

    def decorate(init):
        def parameters(function):
            return list(inspect.signature(function).parameters.values())

        *own, rest = parameters(init)
        taken = {but, *(p.name for p in own)}
        others = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in parameters(parent.__init__)[1:-1]
            if p.name not in taken
        ]
        init.__signature__ = inspect.Signature([*own, *others, rest])
        return init

    return decorate


def is_ours(thing: type | Callable) -> bool:
    """Whether a class or a function belongs to this library."""
    return thing.__module__.partition(".")[0] == __name__.partition(".")[0]
