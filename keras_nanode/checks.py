"""Checks of arguments, shared by several parts of the library."""

import difflib
import inspect
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import keras
import numpy as np

_Name = TypeVar("_Name", bound=str | None)

_LONGEST = 200
# What the input that is the time may be called.
TIME = ("t", "time")


def wrong(name: str, value: Any, expected: str) -> ValueError:
    """The error for an argument that is not `expected`."""
    return ValueError(f"`{name}` must be {expected}. Received: {shown(name, value)}")


def shown(name: str, value: Any) -> str:
    """`name=value`, shortened if it is long, with the type unless it is obvious."""
    text = repr(value)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    plain = value is None or isinstance(value, (bool, int, float, str, tuple, list))
    return f"{name}={text}" + ("" if plain else f" of type {type(value).__name__}")


def integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int, if it is an integer from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    too_large = whole and most is not None and value > most
    if not whole or value < least or too_large:
        end = f" and at most {most}" if too_large else ""
        raise wrong(name, value, f"an integer of at least {least}{end}")
    return int(value)


def number(
    name: str, value: Any, expected: str, fits: Callable[[float], bool]
) -> float:
    """`value` as a float, if it is a finite real number that fits."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        found = float(value) if real else math.nan
    except OverflowError:  # an int or a fraction above all floats
        found = math.inf
    if not math.isfinite(found) or not fits(found):
        raise wrong(name, value, expected)
    return found


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise wrong(name, value, "True or False")
    return bool(value)


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(name, value, "a string")
    return value


def one_of(
    name: str,
    value: Any,
    known: Iterable[_Name],
    others: str = "",
    synonyms: Mapping[str, str] | None = None,
) -> _Name:
    """`value`, if it is one of the known names. One of these may be None.

    `others` describes other accepted values for the error message. `synonyms` maps
    other names to known names, or to a sentence, for suggestions.
    """
    known = tuple(known)
    if not (value is None or isinstance(value, str)) or value not in known:
        raise ValueError(
            f"Unknown `{name}`. Use one of {known}{others and f' or {others}'}."
            f"{_suggestion(value, known, synonyms or {})} "
            f"Received: {shown(name, value)}"
        )
    return value


def _suggestion(
    value: Any, known: Iterable[str | None], synonyms: Mapping[str, str]
) -> str:
    names = {name.lower(): name for name in known if name is not None} | dict(synonyms)
    # For a class, use its name.
    text = value if isinstance(value, str) else getattr(value, "__name__", "")
    close = closest(text.lower(), names)
    if close is None:
        return ""
    found = names[close]
    return f" Did you mean {found!r}?" if found in set(known) else f" {found}"


def closest(text: str, names: Iterable[str]) -> str | None:
    """The name that `text` is a misspelling of, if any.

    Names of several words are compared word by word: `time_regularizer` is most of
    `bias_regularizer`, and means something else.
    """
    for name in difflib.get_close_matches(text, names, 3, 0.8):
        words, others = text.split("_"), name.split("_")
        if len(words) != len(others) or all(map(_is_misspelt, words, others)):
            return name
    return None


def _is_misspelt(word: str, right: str) -> bool:
    swapped = sorted(word) == sorted(right)
    return swapped or difflib.SequenceMatcher(None, word, right).ratio() > 0.75


def installation(extra: str) -> str:
    """The command that installs what a part of the library needs."""
    return (
        f'`pip install "./keras_nanode[{extra}]"`, where ./keras_nanode is the path of '
        "a clone or an archive of it"
    )


def path(name: str, value: Any) -> None:
    if not (value is None or isinstance(value, (str, os.PathLike))):
        raise wrong(name, value, "a path, or None")


def integers(name: str, value: Any, expected: str, count: int) -> tuple[int, ...]:
    """`value` as a tuple, if it consists of `count` positive integers."""
    try:
        found = tuple(integer(name, n) for n in value)
    except (TypeError, ValueError):
        raise wrong(name, value, expected) from None
    if len(found) != count:
        raise wrong(name, value, expected)
    return found


def of_keras(name: str, value: Any, module: ModuleType) -> Any:
    """The result of `module.get(value)`, for a module such as `keras.initializers`."""
    try:
        return module.get(value)
    except (AttributeError, TypeError, ValueError) as error:
        kind = module.__name__.rpartition(".")[2]
        expected = f"a name or an object of `keras.{kind}`, or a function"
        raise wrong(name, value, expected) from error


def function(name: str, value: Any, expected: str = "a function") -> Callable:
    if not callable(value):
        raise wrong(name, value, expected)
    return value


def function_of_time(func: Any, num_args: int) -> None:
    """Checks that `func` can be called as `func(t, y, *args)`."""
    if not callable(func):
        raise wrong("func", func, "a function of (t, y, *args), or a layer")
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):  # from some functions not written in Python
        return
    first, second, *_ = (*signature.parameters, "", "")
    if second in TIME and first not in TIME:
        raise ValueError(
            "`func` must take the time first, (t, y, *args), as in "
            "`scipy.integrate.solve_ivp`, and not (y, t) as in `scipy.integrate.odeint`"
            f". Give `lambda t, y: func(y, t)`. Received: func{signature}"
        )
    try:
        signature.bind(*range(2 + num_args))
    except TypeError as error:
        raise ValueError(
            f"`func` must take (t, y, *args), here with {num_args} entries of `args`: "
            f"{error}. Received: func{signature}"
        ) from None


def layer(name: str, value: Any) -> keras.Layer:
    if not isinstance(value, keras.Layer):
        raise wrong(name, value, "a Keras layer or model")
    return value


def array(name: str, value: Any, expected: str) -> np.ndarray:
    """`value` as an array of float64, if it contains real numbers."""
    try:
        found = np.asarray(value)
    except Exception:  # ragged or mixed lists raise errors of many kinds
        raise wrong(name, value, expected) from None
    if found.dtype.kind not in "iuf" and found.dtype.name != "bfloat16":
        raise wrong(name, value, expected)
    return found.astype("float64")


def times(name: str, value: Any, repeated: bool = False) -> np.ndarray:
    """`value` as an array, if it is at least two finite times in one direction.
    Neighbours may be equal if `repeated`."""
    expected = "at least two finite times, all increasing or all decreasing"
    found = array(name, value, expected)
    if found.ndim > 1:
        raise wrong(name, value, one_series(found.shape))
    steps = np.diff(found) if found.ndim == 1 else np.zeros(0)
    order = np.greater_equal if repeated else np.greater
    monotonic = len(steps) > 0 and (np.all(order(steps, 0)) or np.all(order(-steps, 0)))
    if not monotonic or not np.isfinite(found).all():
        raise wrong(name, value, expected)
    return found


def one_series(shape: Sequence[int | None]) -> str:
    """What times of several axes should be."""
    expected = "one series of times for the whole batch, of shape (times,)"
    return f"{expected}, not {tuple(shape)}"


def config(owner: type, value: Any, *needed: str) -> dict:
    """`value`, if it is a configuration of `owner` with the keys that are `needed`."""
    if not isinstance(value, dict) or any(key not in value for key in needed):
        keys = f", with {', '.join(map(repr, needed))}" if needed else ""
        expected = f"a dict as `get_config` of a {owner.__name__} gives it{keys}"
        raise wrong("config", value, expected)
    return value


def span(name: str, value: Any) -> tuple[float, float]:
    """`value` as two numbers, if it is two different, finite times."""
    expected = "two different, finite times (t0, t1), as in (0, 10)"
    found = array(name, value, expected)
    if found.shape != (2,) or not np.isfinite(found).all() or found[0] == found[1]:
        raise wrong(name, value, expected)
    t0, t1 = found.tolist()
    return t0, t1


def configured(name: str, value: Any) -> Any:
    """The object that `value` describes, if it is a configuration, as a file has it.
    Any other value is returned as it is."""
    if not isinstance(value, dict):
        return value
    try:
        return keras.saving.deserialize_keras_object(value)
    except ValueError:  # the words of its constructor
        raise
    except Exception as error:
        raise ValueError(
            f"`{name}` cannot be read from its configuration. Register its class with "
            "`keras.saving.register_keras_serializable`, or give the object itself. "
            f"Received: {shown(name, value)}"
        ) from error


def tensor(name: str, value: Any, dtype: str | None = None) -> Any:
    """`value` as a tensor, if it is numeric."""
    expected = "a tensor, an array or a number"
    if isinstance(value, np.float64):
        # It is a float as well, which Keras would round to float32.
        value = np.asarray(value)
    try:
        found = keras.ops.convert_to_tensor(value, dtype)
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise wrong(name, value, expected) from None
    if keras.backend.standardize_dtype(found.dtype) == "string":
        raise wrong(name, value, expected)
    return found


def no_complex(name: str, value: Any) -> None:
    dtype = keras.backend.standardize_dtype(value.dtype)
    if dtype.startswith("complex"):
        raise ValueError(
            f"`{name}` must not be complex. Make the real and the imaginary part an "
            "axis, with `keras.ops.stack([keras.ops.real(x), keras.ops.imag(x)], -1)`. "
            f"Received: dtype={dtype}, shape={tuple(value.shape)}"
        )


def floating(name: str, value: Any) -> None:
    """Raises a ValueError if a tensor cannot be the state of an ODE."""
    no_complex(name, value)
    dtype = keras.backend.standardize_dtype(value.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"`{name}` must be floating, since the state of an ODE changes "
            "continuously. Cast it, for example with `keras.ops.cast(x, 'float32')`. "
            f"Received: dtype={dtype}, shape={tuple(value.shape)}"
        )
