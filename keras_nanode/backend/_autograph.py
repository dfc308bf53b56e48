"""What TensorFlow's AutoGraph converts: the user's functions, and nothing of ours.

In a user's `tf.function`, AutoGraph would rewrite all of this library's code that it
meets, as if the user had written it. That takes ten times as long as tracing it.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import keras


def leave_unconverted(package: str) -> None:
    """Marks all functions, classes and methods of the imported modules of a package, as
    `tf.autograph.experimental.do_not_convert` does. They are not wrapped, so this costs
    no call anything, and what the user's functions call is converted as before."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    mark = vars(tf.autograph.experimental.do_not_convert(print))
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package:
            for code in _code(vars(module), name):
                for attribute, value in mark.items():
                    setattr(code, attribute, value)


def _code(names: Any, module: str) -> Iterator[Any]:
    """The functions and classes that a module defines, and their methods."""
    for thing in list(names.values()):
        if isinstance(thing, (classmethod, staticmethod)):
            thing = thing.__func__
        if getattr(thing, "__module__", None) != module:
            continue
        if inspect.isfunction(thing):
            yield thing
        elif inspect.isclass(thing):
            yield thing
            yield from _code(vars(thing), module)
