"""An adapter for `tensorflow_probability.math.ode.BDF`, with its own adjoint.

BDF integrates forwards only, and its time is the distance from the first time. It does
not expect jumps: each piece from one output time or breakpoint of the weights to the
next is a solve of its own. The state and the parameters are one vector each, whatever
their structures and dtypes.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks, tree
from keras_nanode.arrays import take
from keras_nanode.fields.pieces import between
from keras_nanode.stepping.adaptive import Adaptive, statistics
from keras_nanode.stepping.problem import Problem
from keras_nanode.stepping.status import Status
from keras_nanode.stepping.stepping import Solution, Stepping
from keras_nanode.stepping.stops import Stops
from keras_nanode.structures import nan_if, select, zeros_like
from keras_nanode.tree import Structure

_AGAIN = (
    "The gradient of a solve is differentiated, in a gradient penalty or a Hessian "
    "perhaps, which the solver 'bdf' does not allow. Use an explicit solver with "
    "`adjoint=\"direct\"`. Received: solver='bdf'"
)


@dataclasses.dataclass(frozen=True)
class BDFSteps(Stepping):
    """The steps that TensorFlow Probability chooses, with the gradient of its
    continuous adjoint. If they fail, `t` is the last output time or breakpoint reached.
    """

    control: Adaptive

    def run(self, problem, y0, params, checkpoints=None):
        """Solves.

        Raises:
            ImportError: if TensorFlow Probability is not installed.
            ValueError: if the size of the state is unknown.
        """
        ys, stats = _with_known_size(self.control, problem, y0, params)
        return Solution(ys, stats)


def _with_known_size(
    control: Adaptive, problem: Problem, y0: Structure, params: Structure
) -> tuple[Structure, dict]:
    shapes = [tuple(y.shape) for y in tree.flatten(y0)]
    if any(None in shape for shape in shapes):
        raise ValueError(
            "The solver 'bdf' has to know the size of the state. Train on batches of "
            "one known size, for example `dataset.batch(32, drop_remainder=True)`. "
            f"Received: y0 with shape {', '.join(map(str, shapes))}"
        )
    run = functools.partial(_solve, problem, control)
    return backend.as_graph(run, y0, params)


def _solve(problem, control, y0, params):
    state, stops = _Layout(y0, problem.dtype), Stops.of(problem)
    at, y, pieces = ops.convert_to_tensor(stops.at), state.pack(y0), stops.pieces
    first = _counters(at[0], control.max_steps)

    def advance(i, carry):
        y, counters, ys = carry
        end = ops.take(at, i + 1)
        number = None if pieces is None else take(pieces, i)[None]
        piece = _Piece(problem, state, params, counters["s"], end, number)
        y, report = _solve_piece(piece, control, counters, y)
        # Each state overwrites the one before; the last of an interval remains.
        ys = backend.write(ys, stops.interval(i), y)
        counters = _count(counters, report, end, stops.interval(i + 1))
        arrived = counters["reached"] > stops.interval(i)
        most = counters["tried"] + control.max_steps
        most = ops.where(arrived, most, counters["most"])
        return y, {**counters, "most": most}, ys

    carry = (y, first, backend.buffer(problem.num_intervals, y))
    _, counters, ys = backend.fori_loop(stops.number, advance, carry)
    stats = statistics(problem, {**counters, "distance": counters["s"]})
    return state.unpack(backend.stack(ys)), stats


class _Layout:
    """Packs structures like a given one into vectors of one dtype, and unpacks them."""

    def __init__(self, like: Structure, dtype: str):
        self.dtypes, self.dtype = tree.map_structure(lambda x: x.dtype, like), dtype
        self.shapes = [ops.shape(x) for x in tree.flatten(like)]
        self.edges = [0]
        for shape in self.shapes:
            self.edges.append(self.edges[-1] + math.prod(shape))

    def pack(self, structure: Structure) -> Any:
        leaves = [ops.cast(x, self.dtype) for x in tree.flatten(structure)]
        return ops.concatenate([ops.reshape(x, (-1,)) for x in leaves])

    def unpack(self, vectors: Any) -> Structure:
        """Unpacks vectors along the last axis. The other axes stay in front."""
        front = ops.shape(vectors)[:-1]
        leaves = [
            ops.cast(ops.reshape(vectors[..., a:b], (*front, *shape)), dtype)
            for (a, b), shape, dtype in zip(
                itertools.pairwise(self.edges),
                self.shapes,
                tree.flatten(self.dtypes),
                strict=True,
            )
        ]
        return tree.pack_sequence_as(self.dtypes, leaves)


class _Piece:
    """The vector field from distance `start` to `end`, with no jump between them: in
    the piece of this number between breakpoints.

    The gradient flows to `constants`: the weights if they are constant in the piece,
    else the parameters.
    """

    def __init__(
        self,
        problem: Problem,
        state: _Layout,
        params: Structure,
        start: Any,
        end: Any,
        number: Any,
    ):
        self.problem, self.state, self.number = problem, state, number
        self.start, self.end = start, end
        self.is_constant = problem.field.weights.is_piecewise_constant
        self.given = self._theta(params, 0.5) if self.is_constant else params
        self.constants: dict[str, Any] = {}
        # TensorFlow Probability does not accept an empty vector.
        if tree.flatten(self.given):
            self.layout = _Layout(self.given, problem.dtype)
            self.constants = {"weights": self.layout.pack(self.given)}

    def _time(self, s):
        first = ops.cast(self.problem.times[0], self.problem.dtype)
        return first + self.problem.direction * s

    def _theta(self, params: tuple, fraction: Any) -> tuple:
        """The weights at a fraction of the piece."""
        field, dtype = self.problem.field, self.problem.dtype
        start, end = (self._time(s)[None] for s in (self.start, self.end))
        times = between(start, end, fraction)[:, None]
        located = field.weights.locate(self.number, start, end, times, dtype)
        return field.theta(params, located)

    def slope(self, s, y, weights=None):
        # The library looks a little ahead for a first step, and in the adjoint at -s.
        s = ops.minimum(ops.maximum(s, self.start), self.end)
        theta = self.given if weights is None else self.layout.unpack(weights)
        if not self.is_constant:
            theta = self._theta(theta, (s - self.start) / (self.end - self.start))
        dy = self.problem.field.func(self._time(s), self.state.unpack(y), theta)
        return self.problem.direction * self.state.pack(dy)


def _solve_piece(
    piece: _Piece, control: Adaptive, counters: dict, y: Any
) -> tuple[Any, dict]:
    """The state at the end of the piece, NaN if no step reaches it, and a report."""
    run, all_steps = _library()
    # No steps are left after a failure.
    left = ops.where(counters["status"] == 0, counters["most"] - counters["tried"], 0)

    def forward(y, constants):
        slope = functools.partial(piece.slope, **constants)
        found = run(control, left, slope, piece.start, y, all_steps(piece.end))
        y, counts = found.states[-1], found.diagnostics
        report = {
            "status": counts.status,
            "jacobians": counts.num_jacobian_evaluations,
            "factorizations": counts.num_matrix_factorizations,
            "evaluations": counts.num_ode_fn_evaluations,
            "h": found.solver_internal_state.step_size,
        }
        return (y, report), (found.times, found.states, constants)

    def backward(residuals, cotangents):
        times, states, constants = residuals
        return _adjoint(piece, control, times, states, constants, cotangents[0])

    # The gradient of the library's `solve` would stay in TensorFlow's registry.
    y, report = backend.custom_vjp(forward, backward, _AGAIN, y, piece.constants)
    # In this way, the cotangent becomes NaN as well.
    return nan_if(report["status"] != 0, y), report


def _adjoint(
    piece: _Piece, control: Adaptive, times: Any, states: Any, constants: dict, a: Any
) -> tuple[Any, dict]:
    """The gradients in the first state of a piece and in its constants.

    It is integrated from step to step, with the forward pass's state after each. From
    the last state alone, a stiff problem would be integrated backwards, which is
    unstable.
    """
    run, _ = _library()
    layout = _Layout((a, a, constants), piece.problem.dtype)

    def slopes(s, z):
        y, a, _ = layout.unpack(z)
        slope, pullback = backend.vjp(
            lambda y, constants: piece.slope(-s, y, **constants), y, constants
        )
        return layout.pack((-slope, *pullback(ops.stop_gradient(a))))

    def back(i, a, gradient, status):
        start = ops.where(i > 0, take(times, ops.maximum(i - 1, 0)), piece.start)
        z = layout.pack((take(states, i), a, gradient))
        found = run(control, control.max_steps, slopes, -take(times, i), z, [-start])
        status = found.diagnostics.status
        _, a, gradient = nan_if(status != 0, layout.unpack(found.states[-1]))
        return i - 1, a, gradient, status

    last = ops.shape(times)[0] - 1
    carry = (last, a, zeros_like(constants), ops.zeros((), "int32"))
    _, a, gradient, _ = backend.while_loop(
        lambda i, a, gradient, status: ops.logical_and(i >= 0, status == 0), back, carry
    )
    return a, gradient


@functools.cache
def _library():
    """A solve by BDF without a gradient, and the option that requests the state after
    each of its steps."""
    try:
        import tensorflow_probability as tfp
    except ImportError as error:
        raise ImportError(
            "The solver 'bdf' is TensorFlow Probability's. Install it with "
            f"{checks.installation('stiff')}."
        ) from error

    class BDF(tfp.math.ode.BDF):
        def run(self, *args):
            return self._solve(*args)

    def run(control, max_steps, *args):
        solver = BDF(
            rtol=control.rtol,
            atol=control.atol,
            max_num_steps=max_steps,
            # The statistics count one Jacobian per step, one factorization per attempt.
            evaluate_jacobian_lazily=False,
        )
        return solver.run(*args)

    return run, tfp.math.ode.ChosenBySolver


def _counters(distance: Any, max_steps: int) -> dict:
    """The first counters, those of the adaptive loop."""
    none, zero = ops.convert_to_tensor(0, "int32"), ops.zeros_like(distance)
    names = ("tried", "accepted", "num_fevals", "status", "reached")
    counts = {**dict.fromkeys(names, none), "most": none + max_steps}
    return {**counts, "s": zero, "h": zero}


def _count(counters: dict, report: dict, end: Any, interval: Any) -> dict:
    """The counters after one more piece, unchanged if an earlier piece failed."""
    failed, jacobians, h = report["status"] != 0, report["jacobians"], report["h"]
    # A Jacobian costs one function evaluation, the choice of the first step three.
    num_fevals = report["evaluations"] + jacobians + 3
    status = ops.where(failed, _cause(h, counters["s"]), int(Status.SUCCESS))
    here = {
        "tried": counters["tried"] + report["factorizations"],
        "accepted": counters["accepted"] + jacobians - ops.cast(failed, "int32"),
        "num_fevals": counters["num_fevals"] + num_fevals,
        "status": ops.cast(status, "int32"),
        "reached": ops.where(failed, counters["reached"], interval),
        "most": counters["most"],
        "s": ops.where(failed, counters["s"], end),
        "h": h,
    }
    return select(counters["status"] == 0, here, counters)


def _cause(h, s):
    """Why a piece from s on did not finish, judged by the length of its last step."""
    limits = np.finfo(keras.backend.standardize_dtype(h.dtype))
    lost = h <= 4 * float(limits.eps) * s + float(limits.tiny)
    cause = ops.where(lost, int(Status.UNDERFLOW), int(Status.MAX_STEPS))
    return ops.where(ops.isfinite(h), cause, int(Status.NON_FINITE))
