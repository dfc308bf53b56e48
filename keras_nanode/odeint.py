"""`odeint`, the functional interface."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import adjoints, backend, checks, output_times, solvers, tree
from keras_nanode.fields import own_times
from keras_nanode.fields.arguments import Arguments
from keras_nanode.fields.dynamics import (
    Flow,
    WeightsOverTime,
    arrangement,
    function_field,
    vector_field,
)
from keras_nanode.fields.signal import Signal
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.integrate import STATS, as_state, integrate, time_dtype
from keras_nanode.keywords import named_if_wrong
from keras_nanode.solvers import Solver, SolverLike
from keras_nanode.stepping import Adaptive, Status, StepsLike, get_steps
from keras_nanode.tree import Structure


@named_if_wrong
def odeint(
    func: Callable | keras.Layer,
    y0: Structure,
    t: Any,
    args: tuple = (),
    *,
    solver: SolverLike = "dopri5",
    steps: StepsLike = None,
    adjoint: adjoints.AdjointLike = "checkpoint",
    return_stats: bool = False,
) -> Any:
    """Integrates dy/dt = func(t, y, *args) from y(t[0]) = y0.

    Args:
        func: A function of a scalar tensor t, the state y and `args`. It gives a
            floating dy/dt with the structure and shapes of y. Or a Keras layer, called
            as in `layers.ODE`: with (y, *args), plus the time if its `call` has an
            input `t`; with (t, y, *args) if `t` is the first input.
        y0: A floating tensor of any shape, or a structure of such tensors.
        t: At least two finite times in one direction. They are numbers, a tensor or
            variable of shape `(times,)`, or a list that contains scalar ones. Gradients
            flow to tensors and variables. Equal neighbours, as at the end of a padded
            series, have equal states. If all times are equal, each state is y0.
            Or, for a number of steps, times of shape `(batch, times)`: each sample has
            its own, and `func` gets t in a shape that broadcasts with y. They are
            subtracted in the precision in which they are given: Unix seconds in float32
            are 128 s apart.
        args: The further arguments of `func`, any structure of tensors and numbers.
            Python floats get the precision of y0. A `Signal` reaches `func` as its
            value at the time.
        solver: A name in `keras_nanode.solvers.ALL`, a `Tableau`, or a `Reversible`.
            Or `"bdf"` for stiff problems on TensorFlow, which TensorFlow Probability
            solves (the extra `stiff`). It factorizes a dense Jacobian at each step. For
            the gradient, this Jacobian covers two states and all parameters.
        steps: Positive integer, the number of equal steps between neighbouring times.
            Or `"adaptive"` or `Adaptive(rtol, atol, max_steps)`, for steps chosen by
            the estimated error. Each time in `t` ends a step, and so costs one. None
            means adaptive steps, if the solver has an estimate. Adaptive steps work in
            all of TensorFlow's loops, except in
            `tf.vectorized_map` without `adjoint="backsolve"`: there, solve for all rows
            at once instead. In `torch.func.vmap`, which takes `adjoint="direct"` alone,
            all rows share the steps that the most difficult of them needs.
        adjoint: How gradients are found: `"checkpoint"`, `Checkpoint(num)`,
            `"reversible"`, `"backsolve"` or `"direct"`. All but `"backsolve"` give the
            exact gradient of the steps, which are long where the solution is at rest:
            see `Adaptive`. `"bdf"` has its own continuous
            adjoint: it takes `"checkpoint"` and `"backsolve"` for that and refuses the
            others.
        return_stats: Boolean, whether to return `(y, stats)`, with scalars
            `num_steps` (tried), `num_accepted`, `num_rejected`, `num_fevals`
            (function evaluations for y, without those for gradients) and `status`, a
            `keras_nanode.stepping.Status` as an integer, 0 for success.

    Returns:
        y at each time, stacked along a new leading axis of length len(t). Row 0 is y0.
        Gradients flow to `y0`, to the floating tensors in `args`, and to the trainable
        weights if `func` is a layer. Tensors that a function closes over get no
        gradient: pass them in `args`. (With `adjoint="direct"` they do get one, but not
        from adaptive steps on JAX.)

        The gradient with respect to a time t_i is that of the exact solution, <a(t_i),
        func(t_i, y_i)> with the cotangent a. If the weights of `func` jump at t_i,
        those of the interval before count. With `adjoint="direct"` it is that of the
        discrete steps and can be differentiated again. Equal steps then move with the
        times, and so do the places where they see a jump. Among equal times,
        the first then receives the whole gradient. The extra evaluations happen only if
        that gradient is requested. Times of shape (batch, times) get the gradient of
        the discrete steps under every exact adjoint.

        If adaptive steps fail, y is NaN at the times that were not reached. A compiled
        function cannot raise an error: if its times are tensors that do not run in one
        direction, y is NaN in all rows but row 0.

    Raises:
        ValueError: if an argument is invalid, if the structure or shapes of `func`'s
            result differ from those of y, or if `func` reads or updates a Keras
            variable that the adjoint would miss.
        RuntimeError: if adaptive steps fail in eager mode and `return_stats` is False.
        ImportError: if `solver="bdf"` lacks TensorFlow Probability.

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
    for name, given in (("y0", y0), ("t", t), ("args", args)):
        _check_values(name, given)
    y0 = _as_y0(y0)
    dtype = time_dtype(y0)
    rows = own_times.read(t)
    series = t if rows is None else np.arange(rows.shape[1])
    times = output_times.read(series, dtype)
    adjoint, method = adjoints.get(adjoint), solvers.get(solver)
    steps = get_steps(method, checks.configured("steps", steps))
    checks.boolean("return_stats", return_stats)
    arguments = _as_arguments(args, dtype)
    if rows is not None:
        own_times.check(rows, y0, func, arguments, isinstance(steps, Adaptive))
    elif not times.is_tensor:
        for signal in arguments.signals:
            signal.check_covers("t", times.given)
    field, params = _as_field(func, adjoint, times.given, y0, arguments)
    if rows is not None:
        field, params = own_times.per_sample(field, params, rows, dtype)

    def solve():
        follows = times.is_tensor and not adjoint.differentiates_times
        start, attach = y0, lambda y: y
        if follows:
            start, attach = output_times.with_time_gradients(
                times, field, dtype, y0, params, adjoint.refusal
            )
        if times.moves:
            ys, stats = integrate(
                field,
                start,
                params,
                times.unique if follows else times.differentiable(),
                count=times.count,
                solver=method,
                steps=steps,
                adjoint=adjoint,
                name="`odeint`",
                fails=not return_stats,
            )
            ys = times.expand(start, ys)
        else:
            ys, stats = times.repeat(start), dict.fromkeys(STATS, 0)
        y = tree.map_structure(
            lambda y, rest: ops.concatenate([y[None], rest]), y0, attach(ys)
        )
        return y, stats

    y, stats = backend.held_by_outputs(solve)
    if not return_stats:
        return y
    if not isinstance(steps, Adaptive):
        stats = _fixed_stats(method, times.num_intervals * steps, y)
    stats = {key: ops.convert_to_tensor(stats[key], "int32") for key in STATS}
    if times.ordered is not None:
        unordered = ops.cast(int(Status.UNORDERED), "int32")
        stats["status"] = ops.where(times.ordered, stats["status"], unordered)
    return y, stats


def _as_y0(y0: Structure) -> Structure:
    if not tree.flatten(y0):
        raise checks.wrong("y0", y0, "a floating tensor, or a structure of such")
    return tree.map_structure(lambda x: as_state(x, "y0"), y0)


def _check_values(name: str, given: Structure) -> None:
    if _has_keys_without_order(given):
        raise ValueError(
            f"The keys of a dict in `{name}` must be of one type, since backends sort "
            f"them. Use strings, for example. Received: {checks.shown(name, given)}"
        )
    if any(isinstance(x, keras.KerasTensor) for x in tree.flatten(given)):
        raise ValueError(
            f"`odeint` computes with values, and `{name}` is symbolic. In a functional "
            "model use the layer `keras_nanode.layers.ODE(dynamics, t_span=...)`, or "
            "call `odeint` in the `call` of a layer of your own. "
            f"Received: {checks.shown(name, given)}"
        )


def _has_keys_without_order(structure: Structure) -> bool:
    if not isinstance(structure, tree.NESTED):
        return False
    if not isinstance(structure, dict):
        return any(map(_has_keys_without_order, structure))
    try:
        sorted(structure)
    except TypeError:
        return True
    return any(map(_has_keys_without_order, structure.values()))


def _as_arguments(args: Any, dtype: str) -> Arguments:
    """The further arguments of `func`, as tensors."""
    if not isinstance(args, (tuple, list)):
        raise checks.wrong(
            "args", args, "a tuple of what `func` takes beside t and y, such as `(a,)`"
        )
    return Arguments(tree.map_structure(lambda x: _as_arg(x, dtype), tuple(args)))


def _as_arg(x: Any, dtype: str) -> Any:
    if isinstance(x, Signal):
        return x
    # Keras would round a Python float to float32, even with a float64 state.
    tensor = checks.tensor("args", x, dtype if isinstance(x, float) else None)
    checks.no_complex("args", tensor)
    return tensor


def _fixed_stats(solver: Solver, count: Any, ys: Structure) -> dict:
    finite = [ops.all(ops.isfinite(y)) for y in tree.flatten(ys)]
    good = ops.all(ops.stack(finite))
    status = ops.where(good, int(Status.SUCCESS), int(Status.NON_FINITE))
    nfe = count * solver.evaluations + solver.carries_slopes
    values = (count, count, 0, nfe, status)
    return {k: ops.cast(v, "int32") for k, v in zip(STATS, values, strict=True)}


def _as_field(
    func: Callable | keras.Layer,
    adjoint: adjoints.Adjoint,
    times: Any,
    y0: Structure,
    arguments: Arguments,
) -> tuple[VectorField, tuple]:
    """`func` as a vector field, and its parameters."""
    if flow := _flow(func):
        raise ValueError(
            f"`func` must give dy/dt, and the layer {flow.name!r} solves an ODE itself "
            "and gives y. Give what it integrates, `odeint(layer.dynamics, y0, t)`, or "
            f"call it alone, `layer(y0)`. Received: func={func!r}"
        )
    if not isinstance(func, keras.Layer):
        return function_field(func, adjoint.differentiates_closures, arguments)
    arrange = arrangement(func, len(arguments))
    if not func.built:
        inputs, others = arrange(
            ops.cast(times[0], time_dtype(y0)), y0, *arguments.at(times[0])
        )
        try:
            func(inputs, **others)
        except ValueError as error:
            raise ValueError(
                f"The layer `func` cannot be built for `y0`. {error} Received: "
                f"func={func!r}, y0 of shape {_shapes(y0)}"
            ) from error
    if isinstance(func, WeightsOverTime) and isinstance(times, np.ndarray):
        func.basis.check_covers("t", times)
    return vector_field(func, adjoint.differentiates_closures, arguments)


def _flow(func: Callable | keras.Layer) -> Flow | None:
    """The ODE layer whose result `func` gives, also as the last layer of a model."""
    layer = getattr(func, "__self__", func)
    while isinstance(layer, keras.Sequential) and layer.layers:
        layer = layer.layers[-1]
    return layer if isinstance(layer, Flow) else None


def _shapes(y0: Structure) -> Structure:
    return tree.map_structure(lambda x: tuple(x.shape), y0)
