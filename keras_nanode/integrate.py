"""`odeint`, the functional entry, and `integrate`, which it shares with the layers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_nanode import adjoints, backend, checks, solvers
from keras_nanode.adaptive import Adaptive, Status, bdf
from keras_nanode.pure import LayerFunction, PlainFunction, value_of
from keras_nanode.solvers import BDF, Solver
from keras_nanode.steps import Problem
from keras_nanode.tableaus import Tableau
from keras_nanode.vector_field import Structure, VectorField

_STATS = ("num_steps", "num_accepted", "num_rejected", "num_fevals", "status")


def odeint(
    func: Callable | keras.Layer,
    y0: Structure,
    t,
    args: tuple = (),
    *,
    solver: str | Tableau | Solver = "dopri5",
    steps: int | str | Adaptive | None = None,
    adjoint: str | adjoints.Adjoint = "checkpoint",
    return_stats: bool = False,
) -> Any:
    """Integrates dy/dt = func(t, y, *args) from y(t[0]) = y0.

    Args:
        func: A function of a scalar tensor t, the state y and `args`, which gives dy/dt
            in the structure and shapes of y; or a Keras layer that is called so.
        y0: A floating tensor of any shape, or a structure of such tensors.
        t: At least two finite times, increasing or decreasing: numbers, or a tensor of
            shape `(times,)`, to which gradients then flow.
        args: What `func` takes beside t and y, any structure of tensors and numbers;
            Python floats get the precision of y0.
        solver: A name in `keras_nanode.solvers.ALL`, a `Tableau`, or a `Reversible`;
            or `"bdf"` for stiff problems on TensorFlow, which TensorFlow Probability
            solves (the extra `stiff`). That factorizes a dense Jacobian at each step
            and, for the gradient, one of two states and all parameters.
        steps: Positive integer, the number of equal steps between neighbouring times;
            `"adaptive"` or `Adaptive(rtol, atol, max_steps)` for steps chosen by the
            estimated error; None for adaptive steps if the solver has an estimate.
        adjoint: How gradients are found: `"checkpoint"`, `Checkpoint(num)`,
            `"reversible"`, `"backsolve"` or `"direct"`. `"bdf"` has its own continuous
            adjoint, which `"checkpoint"` and `"backsolve"` both mean, and refuses the
            others.
        return_stats: Boolean, whether to return `(y, stats)`, with scalars
            `num_steps` (tried), `num_accepted`, `num_rejected`, `num_fevals`
            (evaluations of `func` for y, without those for gradients) and `status`, a
            `keras_nanode.adaptive.Status` as an integer, 0 for success.

    Returns:
        y at each time, stacked along a new leading axis of length len(t); row 0 is y0.
        Gradients flow to `y0`, to the floating tensors in `args`, and to the trainable
        weights if `func` is a layer. What a function closes over gets none (with
        `adjoint="direct"` it does, but not from adaptive steps on JAX): pass it in
        `args`. The gradient in a time t_i is that of the exact solution,
        <a(t_i), func(t_i, y_i)> with the cotangent a.

        If adaptive steps fail, the times that were not reached have NaN.

    Raises:
        ValueError: if an argument is not as described, or `func` gives another
            structure or shape than y's, or reads or updates a Keras variable that the
            adjoint would miss.
        RuntimeError: if adaptive steps fail in eager mode, unless the status is
            returned.
        ImportError: if what `solver="bdf"` needs is not installed.

    Example:

    >>> import keras
    >>> from keras_nanode import Adaptive, odeint
    >>> y, stats = odeint(
    ...     lambda t, y: -y,
    ...     keras.ops.ones(()),
    ...     [0.0, 1.0],
    ...     steps=Adaptive(rtol=1e-6),
    ...     return_stats=True,
    ... )
    >>> round(float(y[-1]), 4), int(stats["status"])
    (0.3679, 0)
    """
    y0 = tree.map_structure(as_state, y0)
    times = _times(t, time_dtype(y0))
    if isinstance(func, keras.Layer) and not func.built:
        func(ops.cast(times[0], time_dtype(y0)), y0, *args)
    adjoint = adjoints.get(adjoint)
    call, weights = _as_function(func, adjoint)
    args = tree.map_structure(lambda x: _as_arg(x, time_dtype(y0)), tuple(args))
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
        # A loop's state keeps its dtype, whatever those of t and `args` promote to.
        return tree.map_structure(_like, y, dy)

    method, params = solvers.get(solver), (weights, floats)
    steps = check_steps(method, steps)
    moving = not isinstance(times, np.ndarray)
    start, times_of = y0, times
    if moving:
        times_of = ops.stop_gradient(times)
        start = _shifted(slope, times[0], y0, params, -1)
    ends, stats = integrate(
        VectorField(slope),
        start,
        params,
        times_of,
        solver=method,
        steps=steps,
        adjoint=adjoint,
        name="`odeint`",
        fails=not return_stats,
    )
    if moving:
        ends = ops.map(
            lambda end: _shifted(slope, end[0], end[1], params, 1), (times[1:], ends)
        )
    y = tree.map_structure(lambda y, rest: ops.concatenate([y[None], rest]), y0, ends)
    if not return_stats:
        return y
    if not isinstance(steps, Adaptive):
        return y, _fixed_stats(method, (len(times) - 1) * steps, ends)
    return y, {key: stats[key] for key in _STATS}


def integrate(
    field: VectorField,
    y0: Structure,
    params: Structure,
    times,
    *,
    solver: Any,
    steps: int | Adaptive,
    adjoint: adjoints.Adjoint,
    name: str,
    fails: bool = True,
) -> tuple[Structure, dict]:
    """The states at `times[1:]`, stacked, differentiable in y0 and params.

    And of adaptive steps the statistics, {} of others. `name` is who raises the error
    if these fail.
    """
    adjoint.check(solver)
    problem = Problem(field, solver, times, time_dtype(y0))
    if not isinstance(steps, Adaptive):
        return adjoint.fixed(problem, steps, y0, params), {}
    solve = bdf.solve if isinstance(solver, BDF) else adjoint.adaptive
    ends, stats = solve(problem, steps, y0, params)
    if fails and backend.is_known(stats["status"]):
        status, t, h = (
            ops.convert_to_numpy(stats[key]).item() for key in ("status", "t", "h")
        )
        if status != Status.SUCCESS:
            raise RuntimeError(
                f"The adaptive steps of {name} ended before the last time. "
                f"{Status(status).message} Received: status={Status(status).name}, "
                f"t={t:.9g}, step size={h:.3g}, solver={solver.name!r}, steps={steps}"
            )
    return ends, stats


def _times(t, dtype: str):
    """Times as float64 numbers, or as a tensor if they are one."""
    if not ops.is_tensor(t) and not isinstance(t, keras.Variable):
        return checks.times("t", t)
    t = ops.convert_to_tensor(t)
    if backend.is_known(t):
        checks.times("t", ops.convert_to_numpy(t))
    elif len(t.shape) != 1 or t.shape[0] < 2:
        raise ValueError(
            "`t` must be at least two times, a tensor of shape (times,). "
            f"Received: shape={tuple(t.shape)}"
        )
    return ops.cast(t, dtype)


def _as_arg(x, dtype: str):
    # Keras would round a Python float to float32, also beside a float64 state.
    return ops.convert_to_tensor(x, dtype if isinstance(x, float) else None)


def _shifted(slope, t, y: Structure, params, sign: int) -> Structure:
    """y, with the derivative `sign` func(t, y) in t."""
    by = sign * (t - ops.stop_gradient(t))
    return tree.map_structure(
        lambda y, dy: y + ops.cast(by, y.dtype) * dy, y, slope(t, y, params)
    )


def _fixed_stats(solver: Solver, count: int, ends) -> dict:
    finite = [ops.all(ops.isfinite(y)) for y in tree.flatten(ends)]
    good = ops.all(ops.stack(finite))
    status = ops.where(good, int(Status.SUCCESS), int(Status.NON_FINITE))
    nfe = count * solver.evaluations + solver.carries_slopes
    values = (count, count, 0, nfe, status)
    return {k: ops.cast(v, "int32") for k, v in zip(_STATS, values, strict=True)}


def _as_function(func, adjoint: adjoints.Adjoint) -> tuple[Callable, list]:
    """`func` as a function of weights beside its arguments, and these weights."""
    if isinstance(func, keras.Layer):
        return LayerFunction(func), [value_of(v) for v in func.trainable_variables]
    # The backend itself finds what is closed over.
    plain = func if adjoint == adjoints.get("direct") else PlainFunction(func)
    return lambda _, *inputs: plain(*inputs), []


def as_state(y):
    """A tensor as a solver's state: floating, and float32 at least."""
    y = ops.convert_to_tensor(y)
    checks.floating(y)
    half = keras.backend.standardize_dtype(y.dtype) in ("float16", "bfloat16")
    return ops.cast(y, "float32") if half else y


def time_dtype(y: Structure) -> str:
    dtypes = {keras.backend.standardize_dtype(x.dtype) for x in tree.flatten(y)}
    return "float64" if "float64" in dtypes else "float32"


def check_steps(solver: Solver | BDF, steps) -> int | Adaptive:
    """The number of steps, or what chooses them."""
    if isinstance(steps, dict):
        steps = keras.saving.deserialize_keras_object(steps)
    adaptive = Adaptive() if steps is None or steps == "adaptive" else steps
    if isinstance(solver, BDF):
        return _check_adaptive(solver, adaptive)
    if not isinstance(adaptive, Adaptive):
        return checks.integer("steps", steps)
    if not solver.estimates_error:
        raise ValueError(
            f"The solver {solver.name!r} has no error estimate, so that it cannot "
            "choose its steps. Give their number, for example `steps=10`, or use a "
            "solver that has: 'bosh3', 'dopri5', 'tsit5' or 'dopri8'. "
            f"Received: steps={steps!r}"
        )
    return adaptive


def _check_adaptive(solver: BDF, steps) -> Adaptive:
    if not isinstance(steps, Adaptive):
        raise ValueError(
            f"The solver {solver.name!r} chooses its steps by the estimated error and "
            "takes no number of them. Leave `steps` out, or give "
            f"`Adaptive(rtol, atol, max_steps)`. Received: steps={steps!r}"
        )
    return steps


def serialize_steps(steps: int | Adaptive):
    """What `check_steps` reads back."""
    if isinstance(steps, Adaptive):
        return keras.saving.serialize_keras_object(steps)
    return steps


def _outline(structure) -> str:
    """A structure with the names of its leaves' types."""
    return str(tree.map_structure(lambda x: type(x).__name__, structure))


def _has_rank(x) -> bool:
    """Not so in a graph of what TensorFlow's `numpy_function` gives."""
    return getattr(x.shape, "rank", 0) is not None


def _like(y, dy):
    dy = ops.cast(dy, y.dtype)
    return dy if _has_rank(dy) else ops.reshape(dy, ops.shape(y))


def _check_slope(y: Structure, dy: Structure) -> None:
    try:
        tree.assert_same_structure(y, dy)
    except (TypeError, ValueError):
        raise ValueError(
            "`func` must give dy/dt in the structure of y. Received: y "
            f"{_outline(y)}, dy/dt {_outline(dy)}"
        ) from None
    for value, slope in zip(tree.flatten(y), tree.flatten(dy), strict=True):
        if not _has_rank(slope):
            continue
        if tuple(value.shape) != tuple(slope.shape):
            raise ValueError(
                "`func` must give dy/dt in the shape of y. Received: y with shape "
                f"{tuple(value.shape)}, dy/dt with shape {tuple(slope.shape)}"
            )
