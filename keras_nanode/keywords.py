"""Keywords that a layer or a function does not take, and the right ones."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from keras_nanode import checks

_Function = TypeVar("_Function", bound=Callable)

# The names of arguments in other libraries, and ours.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("method", "integrator"), ("solver",)),
    **dict.fromkeys(("num_steps", "n_steps"), ("steps",)),
    **dict.fromkeys(("t0", "t1", "ts", "tspan", "t_eval", "times"), ("t_span", "t")),
    **dict.fromkeys(("gradient", "adjoint_method", "sensitivity"), ("adjoint",)),
    **dict.fromkeys(("f", "fun", "vector_field", "terms"), ("dynamics", "func")),
    **dict.fromkeys(("x0", "y", "z0", "initial_state"), ("y0",)),
    **dict.fromkeys(("full_output", "stats", "throw"), ("return_stats",)),
    **dict.fromkeys(("num_frequencies", "num_harmonics"), ("order",)),
    **dict.fromkeys(("buckets", "num_pieces"), ("num_buckets",)),
    **dict.fromkeys(("num_layers", "num_blocks"), ("depth",)),
    # One of ours in place of another.
    "t": ("t_span",),
    "t_span": ("t",),
    "func": ("dynamics",),
    "dynamics": ("func",),
}
_ADAPTIVE = "Use `steps=keras_nanode.Adaptive(rtol, atol, max_steps)`."
_LENGTH = (
    "Use `steps`, the number of equal steps and not their length, or "
    "`keras_nanode.Adaptive` for steps chosen by the error."
)
_WHERE = "The solution is returned at the times that you give."
_SHAPE = (
    "It keeps the shape of its input: change that before or after it, with a layer of "
    "Keras."
)
# What stands in place of arguments that other libraries have, by one of our arguments
# that an owner must have.
_INSTEAD: dict[str, dict[str, str]] = {
    "steps": {
        **{
            name: f"Use `steps=keras_nanode.Adaptive({name}=...)`."
            for name in ("rtol", "atol", "max_steps")
        },
        **dict.fromkeys(("stepsize_controller", "controller", "options"), _ADAPTIVE),
        **dict.fromkeys(("mxstep", "max_num_steps"), _ADAPTIVE),
        **dict.fromkeys(("step_size", "dt", "dt0", "h", "h0", "first_step"), _LENGTH),
        **dict.fromkeys(("max_step", "hmax", "hmin"), _LENGTH),
    },
    "func": {
        **dict.fromkeys(("dense_output", "saveat", "interpolator"), _WHERE),
        **dict.fromkeys(
            ("events", "event", "event_fn"), "It does not look for events."
        ),
        **dict.fromkeys(
            ("jac", "Dfun"), 'Only `solver="bdf"` needs a Jacobian, and finds it.'
        ),
        "tfirst": "`func` takes the time first: (t, y).",
        "adjoint_params": "Gradients flow to the weights of a layer and to `args`.",
    },
    "t_span": {
        **dict.fromkeys(("strides", "padding", "dilation_rate"), _SHAPE),
        **dict.fromkeys(("data_format", "return_sequences"), _SHAPE),
    },
}
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
    close = checks.closest(name, (*known, *of_keras))
    ours = [n for n in OTHER_NAMES.get(name, ()) if n in known]
    hidden = [n for n in known if n.startswith("hidden_")]
    instead = [
        hints[name] for n, hints in _INSTEAD.items() if n in known and name in hints
    ]
    if instead:
        hint = instead[0]
    elif ours:
        hint = f"Did you mean `{ours[0]}`?"
    elif name in _WIDTHS and hidden:
        hint = (
            "It keeps the width of its input: change that before or after it, with a "
            f"layer of Keras, or set the width inside of it with `{hidden[0]}`."
        )
    elif close:
        hint = f"Did you mean `{close}`?"
    else:
        hint = _all(known, of_keras)
    return ValueError(
        f"`{owner.__name__}` takes no argument `{name}`. {hint} "
        f"Received: {checks.shown(name, value)}"
    )


def too_many(
    owner: Callable, by_position: Sequence[str], known: Sequence[str], args: tuple
) -> ValueError:
    """The error for more positional arguments than a class or a function takes."""
    count = len(by_position)
    first = ", ".join(map("`{}`".format, by_position))
    return ValueError(
        f"`{owner.__name__}` takes {count or 'no'} argument{'s' * (count != 1)} by "
        f"position{first and f', {first}'}. Give the others by their names. "
        f"{_all(known)} Received: {checks.shown('arguments', args)}"
    )


def _all(known: Sequence[str], of_keras: Sequence[str] = ()) -> str:
    rest = ", and those of `keras.Layer`" if of_keras else ""
    return f"Its arguments are {', '.join(known)}{rest}."


def by_position(function: Callable) -> tuple[str, ...] | None:
    """The names of the arguments that may be given without them, but for `self`; None
    if there may be any number."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in parameters if p.kind in kinds and p.name != "self")


def named_if_wrong(function: _Function) -> _Function:
    """The function, whose wrong keywords are named with the right ones, and which says
    how many arguments it takes."""
    known = tuple(inspect.signature(function).parameters)
    first = by_position(function)

    @functools.wraps(function)
    def checked(*args, **kwargs):
        if first is not None and len(args) > len(first):
            raise too_many(function, first, known, args)
        for name, value in kwargs.items():
            if name not in known:
                raise unknown(function, known, name, value)
        return function(*args, **kwargs)

    return cast(_Function, checked)
