"""Keywords that a layer or a function does not take, and the right ones."""

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from keras_nanode import checks

_Function = TypeVar("_Function", bound=Callable)

# The names of arguments in other libraries, and ours.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("method", "integrator"), ("solver",)),
    **dict.fromkeys(("num_steps", "n_steps", "step_size", "dt", "h"), ("steps",)),
    **dict.fromkeys(("t0", "t1", "ts", "tspan", "t_eval", "times"), ("t_span", "t")),
    **dict.fromkeys(("gradient", "adjoint_method"), ("adjoint",)),
    **dict.fromkeys(("f", "fun", "vector_field"), ("dynamics", "func")),
    **dict.fromkeys(("x0", "y", "z0", "initial_state"), ("y0",)),
    **dict.fromkeys(("full_output", "stats"), ("return_stats",)),
    **dict.fromkeys(("num_frequencies", "num_harmonics"), ("order",)),
    **dict.fromkeys(("buckets", "num_pieces"), ("num_buckets",)),
    **dict.fromkeys(("num_layers", "num_blocks"), ("depth",)),
    # One of ours in place of another.
    "t": ("t_span",),
    "t_span": ("t",),
    "func": ("dynamics",),
    "dynamics": ("func",),
}
_OF_ADAPTIVE = ("rtol", "atol", "max_steps")
_WIDTHS = ("units", "filters", "channels")


def unknown(
    owner: Callable,
    known: Sequence[str],
    name: str,
    value: Any,
    of_keras: Sequence[str] = (),
) -> ValueError:
    """The error for a keyword `name` of a layer's class or a function.

    Args:
        owner: The class or the function.
        known: The names of its own arguments.
        name: The keyword that it does not take.
        value: The value of this keyword.
        of_keras: The names of the arguments that it takes as every layer of Keras.
    """
    close = difflib.get_close_matches(name, (*known, *of_keras), 1)
    ours = [n for n in OTHER_NAMES.get(name, ()) if n in known]
    hidden = [n for n in known if n.startswith("hidden_")]
    if name in _OF_ADAPTIVE and "steps" in known:
        hint = f"Use `steps=keras_nanode.Adaptive({name}=...)`."
    elif ours:
        hint = f"Did you mean `{ours[0]}`?"
    elif name in _WIDTHS and hidden:
        hint = (
            "It keeps the width of its input: change that before or after it, with a "
            f"layer of Keras, or set the width inside of it with `{hidden[0]}`."
        )
    elif close:
        hint = f"Did you mean `{close[0]}`?"
    else:
        rest = ", and those of `keras.Layer`" if of_keras else ""
        hint = f"Its arguments are {', '.join(known)}{rest}."
    return ValueError(
        f"`{owner.__name__}` takes no argument `{name}`. {hint} "
        f"Received: {checks.shown(name, value)}"
    )


def named_if_wrong(function: _Function) -> _Function:
    """The function, whose wrong keywords are named with the right ones."""
    known = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args, **kwargs):
        for name, value in kwargs.items():
            if name not in known:
                raise unknown(function, known, name, value)
        return function(*args, **kwargs)

    return cast(_Function, checked)
