"""`integrate`, what `odeint` and the layers share."""

from typing import Any

import keras
from keras import ops

from keras_nanode import adjoints, backend, checks, tree
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.stepping import Adaptive, Problem, Replayable, Status, stepping_of
from keras_nanode.structures import stack
from keras_nanode.tree import Structure

# The statistics of a solve that `odeint` gives.
STATS = ("num_steps", "num_accepted", "num_rejected", "num_fevals", "status")


def integrate(
    field: VectorField,
    y0: Structure,
    params: Structure,
    times: Any,
    *,
    count: Any = None,
    solver: Any,
    steps: int | Adaptive,
    adjoint: adjoints.Adjoint,
    name: str,
    fails: bool = True,
) -> tuple[Structure, dict]:
    """The states at `times[1:]`, stacked, differentiable in y0 and params.

    Also returns the statistics of adaptive steps, {} for equal ones. `count` is as in
    `Problem`, and `name` is the caller's, for the error message.
    """
    adjoint.check(solver)
    problem = Problem(field, solver, times, time_dtype(y0), count)
    if any(map(backend.is_shape, tree.flatten(y0))):
        return _shapes(problem, y0)
    stepping = stepping_of(solver, steps)
    if isinstance(stepping, Replayable):
        ys, stats = adjoint.solve(problem, stepping, y0, params)
    else:  # a library's steps, with its own gradient
        solution = stepping.run(problem, y0, params)
        ys, stats = solution.ys, solution.stats
    if fails and stats and backend.is_known(stats["status"]):
        status, t, h, reached = (
            backend.values(stats[key]).item() for key in ("status", "t", "h", "reached")
        )
        if status != Status.SUCCESS:
            raise RuntimeError(
                f"The adaptive steps of {name} ended before the last time. "
                f"{Status(status).message} Received: status={Status(status).name}, "
                f"t={t:.9g} behind {reached} of {problem.num_intervals} output times, "
                f"step size={h:.3g}, solver={solver.name!r}, steps={steps}"
            )
    return ys, stats


def _shapes(problem: Problem, y0: Structure) -> tuple[Structure, dict]:
    """Results of the right shapes, without a solve."""
    ys = stack([y0] * problem.num_intervals)
    return ys, dict.fromkeys(STATS, ops.zeros((), "int32"))


def as_state(y: Any, name: str = "inputs") -> Any:
    """A tensor as a solver's state: floating, and float32 at least."""
    y = checks.tensor(name, y)
    checks.floating(name, y)
    half = keras.backend.standardize_dtype(y.dtype) in ("float16", "bfloat16")
    return ops.cast(y, "float32") if half else y


def time_dtype(y: Structure) -> str:
    dtypes = {keras.backend.standardize_dtype(x.dtype) for x in tree.flatten(y)}
    return "float64" if "float64" in dtypes else "float32"
