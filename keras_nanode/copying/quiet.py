"""Descriptions of layers without warnings that are about files."""

import contextlib
import threading
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet(described: Iterable[Any]) -> Iterator[None]:
    """Without Keras' warning about lambdas, which are a problem in files only.

    Python's filters of warnings are one list for all threads. They are changed only if
    a lambda is among what is described. Two threads that changed them at once could
    leave them changed, so one waits for the other.
    """
    if not any(map(_is_lambda, described)):
        yield
        return
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_lambda(x: Any) -> bool:
    return isinstance(x, types.FunctionType) and x.__name__ == "<lambda>"
