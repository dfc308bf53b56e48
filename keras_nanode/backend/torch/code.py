"""Which code is of Keras or of this library, and which of the user's is harmless."""

import dis
import functools
import operator
import types
from typing import Any

import keras

LIBRARY = ("keras", "keras_nanode")
# Instructions whose names are neither arguments nor attributes.
_NAMING = ("LOAD_GLOBAL", "STORE_GLOBAL", "LOAD_DEREF", "IMPORT_NAME")
_WRAPPERS = (property, staticmethod, classmethod, functools.cached_property)
_WRAPPED = ("fget", "fset", "fdel", "__func__", "func")
# What each class held when it was last found to be of a library.
_CONTENTS: dict[type, list] = {}


def is_of_library(function: types.FunctionType, others: tuple = ()) -> bool:
    # Not `__module__`, which `functools.wraps` copies from what is wrapped.
    name = function.__globals__.get("__name__", "")
    return name.partition(".")[0] in (*LIBRARY, *others)


def formula(function: types.FunctionType) -> tuple | None:
    """What a user's function depends on, such as `lambda x: ops.sin(x) ** 3`, if it
    reads only its argument and names only operations of Keras. None otherwise."""
    if function.__defaults__ or function.__kwdefaults__ or function.__closure__:
        return None
    named = _named(function.__code__)
    if named is None or any(
        function.__globals__.get(x) is not keras.ops for x in named
    ):
        return None
    operations = [getattr(keras.ops, x, None) for x in function.__code__.co_names]
    if not all(map(_is_harmless, operations)):
        return None
    return function.__code__, *operations


@functools.lru_cache(256)
def _named(code: types.CodeType) -> tuple | None:
    """The names that are neither arguments nor attributes. None if there is a function
    inside."""
    if any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        return None
    found = dis.get_instructions(code)
    return tuple(x.argval for x in found if x.opname in _NAMING)


def content(kind: type) -> list | None:
    """What a class holds, the same list as before if it has not changed.

    None if it has code of the user: the class is his, or a method was replaced.
    """
    known, now = _CONTENTS.get(kind), vars(kind).values()
    if known is not None and len(known) == len(now):
        if all(map(operator.is_, known, now)):
            return known
    if kind.__module__.partition(".")[0] not in (*LIBRARY, "torch", "builtins", "abc"):
        return None
    if not all(map(_is_harmless, now)):
        return None
    _CONTENTS[kind] = list(now)
    return _CONTENTS[kind]


def _is_harmless(member: Any) -> bool:
    """Whether a member of a class runs no code of the user."""
    if isinstance(member, _WRAPPERS):
        inner = (getattr(member, name, None) for name in _WRAPPED)
        return all(map(_is_harmless, inner))
    if isinstance(member, types.FunctionType):
        return is_of_library(member, ("torch", "abc"))
    # A mock, for instance, can be called.
    return not callable(member) or type(member).__module__ == "builtins"
