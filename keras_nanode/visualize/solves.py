"""What the pictures show, as arrays."""

import functools
from typing import Any

import numpy as np
from keras import ops

from keras_nanode import backend, checks
from keras_nanode.bases import Constant
from keras_nanode.fields.dynamics import WeightsOverTime, arrangement, takes_time
from keras_nanode.integrate import as_state, time_dtype
from keras_nanode.layers import ODE, TimeVarying
from keras_nanode.odeint import odeint
from keras_nanode.stepping import Problem
from keras_nanode.stepping.adaptive_loop import Attempt, adaptive_loop
from keras_nanode.stepping.control import error_norm
from keras_nanode.stepping.stops import Stops
from keras_nanode.structures import stacked, write

_INTERVALS = 100  # of a path, if steps are adaptive


def span(layer: ODE | TimeVarying) -> tuple[float, float]:
    return layer.t_span if isinstance(layer, ODE) else layer.basis.domain


def breakpoints(layer: ODE | TimeVarying) -> list[float]:
    """Those between the ends of the span."""
    varying = layer.dynamics if isinstance(layer, ODE) else layer
    if not isinstance(varying, WeightsOverTime):
        return []
    first, last = sorted(span(layer))
    return [t for t in varying.basis.breakpoints if first < t < last]


def weights_at(
    layer: ODE | TimeVarying, times: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """The name of each weight, and its values `(times, ...)`."""
    found = map(ops.convert_to_numpy, layer.weights_at(times))
    varying = layer.dynamics if isinstance(layer, ODE) else layer
    return [
        (variable.name, values)
        for variable, values in zip(varying.coefficients, found, strict=True)
    ]


def starts(layer: ODE) -> np.ndarray:
    """Nine states from -2 to 2."""
    if not _checked(layer).built:
        raise ValueError(
            "`vector_field` needs a built layer, to know the size of its states. Call "
            "the layer first, or give `inputs`. "
            f"Received: the layer {layer.name!r}, not built, and inputs=None"
        )
    shape = layer.get_build_config()["input_shape"]
    if shape[1:] == (1,):
        return np.linspace(-2, 2, 9)[:, None]
    line = np.linspace(-2, 2, 3)
    square = np.stack(np.meshgrid(line, line), axis=-1).reshape(9, 2)
    return square if shape[1:] == (2,) else np.zeros((1, *shape[1:]))


def state(layer: ODE, inputs: Any) -> Any:
    """The inputs as a state, for which the layer is built."""
    dtype = _checked(layer).variable_dtype
    x = as_state(checks.tensor("inputs", inputs, dtype))
    if not layer.built:
        layer.build(tuple(x.shape))
    return x


def _checked(layer: ODE) -> ODE:
    if not isinstance(layer, ODE):
        raise checks.wrong("layer", layer, "an ODE layer")
    return layer


def path(layer: ODE, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the states there, `(times, batch, size)`."""
    adaptive = layer.is_adaptive
    times = np.linspace(*layer.t_span, (_INTERVALS if adaptive else layer.steps) + 1)
    steps = layer.steps if adaptive else 1
    y = odeint(layer.dynamics, x, times, solver=layer.solver, steps=steps)
    return times, ops.convert_to_numpy(y).reshape(len(times), x.shape[0], -1)


def principal(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components, and their shares of the variance."""
    flat = path.reshape(-1, path.shape[-1]).astype("float64")
    centred = flat - flat.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    variances = np.pad(sizes**2, (0, 2))
    shares = variances[:2] / (variances.sum() or 1)
    plane = np.zeros((2, flat.shape[1]))
    plane[: len(directions)] = directions[:2]
    return (centred @ plane.T).reshape(*path.shape[:2], 2), shares


def depends_on_time(layer: ODE) -> bool:
    if isinstance(layer.dynamics, TimeVarying):
        return not isinstance(layer.dynamics.basis, Constant)
    return takes_time(layer.dynamics)


def slopes(layer: ODE, t: float, points: np.ndarray) -> np.ndarray:
    """dx/dt at a time and at points `(rows, size)`."""
    x = ops.convert_to_tensor(points, layer.variable_dtype)
    first, others = arrangement(layer.dynamics)(ops.cast(t, x.dtype), x)
    return ops.convert_to_numpy(layer.dynamics(first, **others))


def attempts(layer: ODE, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The start, the length and the acceptance of each step that was tried, and the
    status after the last."""
    if layer.solver.has_own_gradient:
        raise ValueError(
            f"The solver {layer.solver.name!r} does not show its steps, which another "
            "library takes. Use a solver of this library, such as 'dopri5'. "
            f"Received: solver={layer.solver.name!r}"
        )
    if not layer.is_adaptive:
        edges = np.linspace(*layer.t_span, layer.steps + 1)
        lengths = abs(np.diff(edges))
        return edges[:-1], lengths, np.ones(len(lengths), bool), 0
    field, params = layer.field()
    times = np.array(layer.t_span)
    problem = Problem(field, layer.solver, times, time_dtype(x))
    stops = Stops.of(problem)
    most = layer.steps.max_steps
    zeros = stops.constant(0.0, problem.dtype), stops.constant(0, "int32")
    start, none = zeros
    kept = tuple(backend.buffer(most, like) for like in (start, start, none))

    def visit(extra: tuple, attempt: Attempt) -> tuple:
        count, kept = extra
        ok = ops.cast(attempt.ok, "int32")
        step = attempt.step
        return count + 1, write(kept, count, (step.times[0], step.h, ok))

    norm = functools.partial(error_norm, layer.steps.rtol, layer.steps.atol)
    end = adaptive_loop(stops, norm, (most, most), params, x, (none, kept), visit=visit)
    number = int(end["tried"])
    arrays = [ops.convert_to_numpy(b)[:number] for b in stacked(end["extra"][1])]
    starts, lengths, accepted = arrays
    return starts, abs(lengths), accepted.astype(bool), int(end["status"])
