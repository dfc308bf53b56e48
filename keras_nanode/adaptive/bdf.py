"""`tensorflow_probability.math.ode.BDF` as a solver here, with its own adjoint.

It integrates forwards, so that its time is the distance from the first time, and knows
no jumps, so that each piece between breakpoints of the weights is a solve of its own.
The state and the parameters are one vector each, whatever their structures and dtypes.
"""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_nanode import backend
from keras_nanode.adaptive.control import Adaptive, Status
from keras_nanode.adaptive.march import Stops
from keras_nanode.adaptive.record import spoil
from keras_nanode.solve import select
from keras_nanode.steps import Problem, direction
from keras_nanode.vector_field import Structure

_AGAIN = (
    "The gradient of a solve is differentiated, in a gradient penalty or a Hessian "
    "perhaps, which the solver 'bdf' does not allow. Use an explicit solver with "
    '`adjoint="direct"`. Received: solver=\'bdf\''
)


def solve(
    problem: Problem, control: Adaptive, y0: Structure, params: Structure
) -> tuple[Structure, dict]:
    """The states at `problem.times[1:]`, stacked, and the statistics.

    As `Adjoint.adaptive`, with the gradient of the continuous adjoint. `t` says only
    which output time or breakpoint was reached last, `h` is the last step.

    Raises:
        ImportError: if TensorFlow Probability is not installed.
    """
    return backend.as_graph(lambda *primals: _solve(problem, control, *primals), y0, params)


def _solve(problem, control, y0, params):
    y0, params = backend.custom_vjp(
        lambda *primals: (primals, ()),
        lambda _, cotangents: cotangents,
        _AGAIN,
        y0,
        params,
    )
    state, stops = _Layout(y0, problem.dtype), Stops.of(problem)
    start, y = ops.zeros_like(stops.at[0]), state.pack(y0)
    stats, ends = _first_stats(start), []
    for section in _sections(stops):
        times = ops.stack([stops.at[i] for i in section])
        piece = _Piece(problem, state, params, start, times[-1])
        found = _solve_piece(piece, control, stats, y, times)
        stats = _next_stats(stats, found, start, times)
        start, y = times[-1], found.states[-1]
        ends.append(found.states)
    is_output = np.append(stops.rows[1:] != stops.rows[:-1], True)
    outputs = ops.take(ops.concatenate(ends), np.flatnonzero(is_output), axis=0)
    sign = direction(problem)
    t = ops.cast(problem.times[0], problem.dtype) + sign * stats.pop("s")
    stats |= {"t": t, "h": sign * stats["h"]}
    stats["num_rejected"] = stats["num_steps"] - stats["num_accepted"]
    return state.unpack(outputs), stats


def _sections(stops: Stops) -> list[np.ndarray]:
    """The numbers of the stops between jumps of the weights."""
    sections = np.split(np.arange(stops.number), np.flatnonzero(stops.jumps) + 1)
    return [section for section in sections if section.size]


class _Layout:
    """Structures of tensors like one as vectors of a dtype, and back."""

    def __init__(self, like: Structure, dtype: str):
        self.like, self.dtype = tree.map_structure(lambda x: x.dtype, like), dtype
        self.shapes = [ops.shape(x) for x in tree.flatten(like)]
        self.edges = [0]
        for shape in self.shapes:
            self.edges.append(self.edges[-1] + math.prod(shape))

    def pack(self, structure: Structure):
        leaves = [ops.cast(x, self.dtype) for x in tree.flatten(structure)]
        return ops.concatenate([ops.reshape(x, (-1,)) for x in leaves])

    def unpack(self, vectors) -> Structure:
        """Of vectors along the last axis; other axes stay in front."""
        front = ops.shape(vectors)[:-1]
        leaves = [
            ops.cast(ops.reshape(vectors[..., a:b], (*front, *shape)), dtype)
            for a, b, shape, dtype in zip(
                self.edges[:-1],
                self.edges[1:],
                self.shapes,
                tree.flatten(self.like),
                strict=True,
            )
        ]
        return tree.pack_sequence_as(self.like, leaves)


class _Piece:
    """The vector field from distance `start` to `end`, without a jump between.

    `constants` are what its gradient flows to: the weights if they are the same in all
    of the piece, else what they are made of.
    """

    def __init__(self, problem: Problem, state: _Layout, params, start, end):
        self.problem, self.state = problem, state
        self.start, self.end, self.sign = start, end, direction(problem)
        self.is_constant = problem.field.weights.slots((0.0, 1.0)) == [0, 0]
        given = self._theta(params, 0.5) if self.is_constant else params
        self.constants: dict[str, Any] = {}
        self.layout = None
        if tree.flatten(given):
            self.layout = _Layout(given, problem.dtype)
            self.constants = {"weights": self.layout.pack(given)}
        self.given = given

    def _time(self, s):
        return ops.cast(self.problem.times[0], self.problem.dtype) + self.sign * s

    def _theta(self, params, fraction) -> Structure:
        """The weights at a fraction of the piece."""
        weights = self.problem.field.weights
        start, end = (self._time(s)[None] for s in (self.start, self.end))
        located = weights.locate(start, end, (fraction,), self.problem.dtype)
        return weights.at(weights.prepare(params, located), 0)[0]

    def slope(self, s, y, weights=None):
        # BDF looks a little further than the piece, and its adjoint, once, at -s.
        s = ops.minimum(ops.maximum(s, self.start), self.end)
        theta = self.given if weights is None else self.layout.unpack(weights)
        if not self.is_constant:
            theta = self._theta(theta, (s - self.start) / (self.end - self.start))
        dy = self.problem.field.func(self._time(s), self.state.unpack(y), theta)
        return self.sign * self.state.pack(dy)


def _solve_piece(piece: _Piece, control: Adaptive, stats: dict, y, times):
    solver = _solver()(
        rtol=control.rtol,
        atol=control.atol,
        # None are left after a failure.
        max_num_steps=ops.where(
            stats["status"] == 0, control.max_steps - stats["num_steps"], 0
        ),
        # The statistics rest on a Jacobian a step and a factorization a try.
        evaluate_jacobian_lazily=False,
        make_adjoint_solver_fn=lambda: _solver()(
            rtol=control.rtol, atol=control.atol, max_num_steps=control.max_steps
        ),
    )
    return solver.solve(
        piece.slope, piece.start, y, times, constants=piece.constants
    )


@functools.cache
def _solver():
    try:
        import tensorflow_probability as tfp
    except ImportError as error:
        raise ImportError(
            "The solver 'bdf' is TensorFlow Probability's. Install it with "
            "`pip install keras_nanode[stiff]`."
        ) from error

    class OrNaN(tfp.math.ode.BDF):
        """Gives NaN, not the last state, at times that were not reached.

        Its adjoint, which would hand on what it has, is one too.
        """

        def solve(self, ode_fn, initial_time, *args, **kwargs):
            results = super().solve(ode_fn, initial_time, *args, **kwargs)
            return results._replace(states=spoil(results.states, _late(results)))

    return OrNaN


def _late(results):
    """Which of a solve's times were not reached."""
    numbers = ops.arange(results.times.shape[0], dtype="int32")
    return (results.diagnostics.status != 0) & (numbers >= _reached(results))


def _reached(results):
    """How many of its times a solve that failed has reached."""
    # Where nothing was written there is 0; the time at which it failed was written.
    return ops.sum(ops.cast(results.times != 0, "int32")) - 1


def _first_stats(zero) -> dict:
    names = ("num_steps", "num_accepted", "num_fevals", "status")
    none = ops.convert_to_tensor(0, "int32")
    return {**dict.fromkeys(names, none), "s": zero, "h": zero}


def _next_stats(stats: dict, found, start, times) -> dict:
    """The statistics after one more piece, or as they are if it began with a failure."""
    diagnostics, h = found.diagnostics, found.solver_internal_state.step_size
    failed, jacobians = diagnostics.status != 0, diagnostics.num_jacobian_evaluations
    reached = ops.take(ops.concatenate([start[None], times]), _reached(found))
    here = {
        "num_steps": stats["num_steps"] + diagnostics.num_matrix_factorizations,
        "num_accepted": stats["num_accepted"]
        + jacobians
        - ops.cast(failed, "int32"),
        # Each Jacobian evaluates the function once, the first step's length thrice.
        "num_fevals": stats["num_fevals"]
        + diagnostics.num_ode_fn_evaluations
        + jacobians
        + 3,
        "status": ops.where(failed, _cause(h, start), int(Status.SUCCESS)),
        "s": ops.where(failed, reached, times[-1]),
        "h": h,
    }
    return select(stats["status"] == 0, here, stats)


def _cause(h, start):
    """Why a piece was not finished, by the length of the last step."""
    limits = np.finfo(keras.backend.standardize_dtype(h.dtype))
    lost = h <= 4 * float(limits.eps) * start + float(limits.tiny)
    cause = ops.where(lost, int(Status.UNDERFLOW), int(Status.MAX_STEPS))
    return ops.where(ops.isfinite(h), cause, int(Status.NON_FINITE))
