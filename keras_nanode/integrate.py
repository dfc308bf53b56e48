"""`odeint`, the functional entry, and `integrate`, which it shares with the layers."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops, tree

from keras_nanode import adjoints, checks, tableaus
from keras_nanode.solve import Grid
from keras_nanode.tableaus import Tableau
from keras_nanode.vector_field import LayerFunction, Structure, VectorField, value_of


def odeint(
    func: Callable | keras.Layer,
    y0: Structure,
    t: Sequence[float],
    args: tuple = (),
    *,
    solver: str | Tableau = "rk4",
    steps: int,
    adjoint: str | adjoints.Adjoint = "checkpoint",
) -> Structure:
    """Integrates dy/dt = func(t, y, *args) from y(t[0]) = y0.

    Args:
        func: A function of a scalar tensor t, the state y and `args`, which gives dy/dt
            in the structure and shapes of y; or a Keras layer that is called so.
        y0: A floating tensor of any shape, or a structure of such tensors.
        t: At least two finite times, increasing or decreasing.
        args: What `func` takes beside t and y, any structure of tensors and numbers.
        solver: A name in `keras_nanode.tableaus.ALL`, or a `Tableau`.
        steps: Positive integer, the number of equal steps between neighbouring times.
        adjoint: How gradients are found: `"checkpoint"`, `Checkpoint(num)`,
            `"backsolve"` or `"direct"`.

    Returns:
        y at each time, stacked along a new leading axis of length len(t); row 0 is y0.
        Gradients flow to `y0`, to the floating tensors in `args`, and to the trainable
        weights if `func` is a layer. What a function closes over gets none: pass it in
        `args`.

    Raises:
        ValueError: if an argument is not as described, or `func` gives another
            structure or shape than y's.

    Example:

    >>> import keras
    >>> from keras_nanode import odeint
    >>> y = odeint(lambda t, y: -y, keras.ops.ones(()), [0.0, 1.0], steps=10)
    >>> round(float(y[-1]), 4)
    0.3679
    """
    y0 = tree.map_structure(as_state, y0)
    times = checks.times("t", t)
    if isinstance(func, keras.Layer) and not func.built:
        func(ops.cast(times[0], time_dtype(y0)), y0, *args)
    call, weights = _as_function(func)
    args = tree.map_structure(ops.convert_to_tensor, tuple(args))
    flat = tree.flatten(args)
    # Integers cannot be differentiated: they do not take the way through the adjoint.
    is_float = [keras.backend.is_float_dtype(x.dtype) for x in flat]
    floats = [x for x, yes in zip(flat, is_float, strict=True) if yes]

    def slope(t, y, params):
        weights, floats = params
        given = iter(floats)
        filled = [
            next(given) if yes else x for x, yes in zip(flat, is_float, strict=True)
        ]
        dy = call(weights, t, y, *tree.pack_sequence_as(args, filled))
        _check_slope(y, dy)
        return dy

    ends = integrate(
        VectorField(slope),
        y0,
        (weights, floats),
        times,
        solver=tableaus.get(solver),
        steps=check_steps(tableaus.get(solver), steps),
        adjoint=adjoints.get(adjoint),
    )
    return tree.map_structure(
        lambda y, rest: ops.concatenate([y[None], rest]), y0, ends
    )


def integrate(
    field: VectorField,
    y0: Structure,
    params: Structure,
    times: np.ndarray,
    *,
    solver: Tableau,
    steps: int,
    adjoint: adjoints.Adjoint,
) -> Structure:
    """The states at `times[1:]`, stacked, differentiable in y0 and params."""
    return adjoint(Grid(field, solver, times, steps, time_dtype(y0)), y0, params)


def _as_function(func) -> tuple[Callable, list]:
    """`func` as a function of weights beside its arguments, and these weights."""
    if isinstance(func, keras.Layer):
        return LayerFunction(func), [value_of(v) for v in func.trainable_variables]
    return lambda _, *inputs: func(*inputs), []


def as_state(y):
    """A tensor as a solver's state: floating, and float32 at least."""
    y = ops.convert_to_tensor(y)
    checks.floating(y)
    half = keras.backend.standardize_dtype(y.dtype) in ("float16", "bfloat16")
    return ops.cast(y, "float32") if half else y


def time_dtype(y: Structure) -> str:
    dtypes = {keras.backend.standardize_dtype(x.dtype) for x in tree.flatten(y)}
    return "float64" if "float64" in dtypes else "float32"


def check_steps(solver: Tableau, steps) -> int:
    if steps is None or steps == "adaptive":
        raise ValueError(
            f"The solver {solver.name!r} has no error estimate, so that it cannot "
            "choose its steps. Give their number, for example `steps=10`. "
            f"Received: steps={steps!r}"
        )
    return checks.count("steps", steps)


def _check_slope(y: Structure, dy: Structure) -> None:
    tree.assert_same_structure(y, dy)
    for value, slope in zip(tree.flatten(y), tree.flatten(dy), strict=True):
        if tuple(value.shape) != tuple(slope.shape):
            raise ValueError(
                "`func` must give dy/dt in the shape of y. Received: y with shape "
                f"{tuple(value.shape)}, dy/dt with shape {tuple(slope.shape)}"
            )
