"""A vector field that each sample sees at times of its own.

Samples have different times but share the steps. These run over s in (0, n) for n
gaps. In gap i, sample b goes from t[b, i] to t[b, i + 1]: dy/ds = gap(s) f(t(s), y),
where t(s) is linear between the integers and its slope gap(s) is held. Both are parts
of theta with the times as coefficients, so gradients in the times need nothing more.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks, tree
from keras_nanode.arrays import as_tensor
from keras_nanode.bases.sampled import KINDS
from keras_nanode.fields.arguments import Arguments
from keras_nanode.fields.dynamics import WeightsOverTime
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.fields.weights import BasisWeights, Parts
from keras_nanode.tree import Structure

_EXPECTED = (
    "at least two finite times for each sample, of shape (batch, times), all "
    "increasing or all decreasing in a row; equal ones where it is padded"
)


def read(t: Any) -> Any:
    """`t` as an array or a tensor, if it is of shape (batch, times). Else None.

    Raises:
        ValueError: if the values are known, and not finite or in one direction.
    """
    if isinstance(t, keras.Variable):
        t = t.value
    if ops.is_tensor(t):
        if len(t.shape) != 2:
            return None
        if backend.is_known(t):
            _check(t, checks.array("t", backend.values(t), _EXPECTED))
        elif t.shape[1] is None or t.shape[1] < 2:
            raise checks.wrong("t", t, _EXPECTED)
        return t
    try:
        found = np.asarray(t)
    except Exception:  # ragged or mixed lists, of which there is a message elsewhere
        return None
    if found.ndim != 2 or found.dtype.kind not in "iuf":
        return None
    _check(t, found)
    return found.astype("float64")


def _check(t: Any, rows: np.ndarray) -> None:
    gaps = np.diff(rows, axis=1)
    ordered = np.all(gaps >= 0, axis=1) | np.all(gaps <= 0, axis=1)
    if rows.shape[1] < 2 or not (np.isfinite(rows).all() and ordered.all()):
        raise checks.wrong("t", t, _EXPECTED)


_SHARED = (
    "If the batch shares its times, give one series of times for the whole batch, of "
    "shape (times,)."
)


def check(
    rows: Any, y0: Structure, func: Any, arguments: Arguments, adaptive: bool
) -> None:
    """Raises a ValueError if this problem cannot have times of shape (batch, times)."""
    given = f"Received: t of shape {tuple(rows.shape)}"
    shapes = [tuple(y.shape) for y in tree.flatten(y0)]
    batch, first = rows.shape[0], {shape[:1] for shape in shapes}
    if len(set(map(len, shapes))) > 1 or not first <= {(batch,), (None,)}:
        raise ValueError(
            "With times of shape (batch, times), every tensor of `y0` must have the "
            "batch as its first axis, and equally many axes: f gets t in a shape that "
            f"broadcasts with y. {_SHARED} {given}, y0 of shapes {shapes}"
        )
    if adaptive:
        raise ValueError(
            "Samples with times of their own share their steps, so no error can choose "
            "these. Give the number of steps between neighbouring times, such as "
            f"`steps=4`. {_SHARED} {given} and adaptive steps"
        )
    over_time = [func] if isinstance(func, WeightsOverTime) else arguments.signals
    if over_time:
        raise ValueError(
            "With times of shape (batch, times), each sample would have weights or "
            "inputs of another time. Let f depend on time as f(t, y) alone. "
            f"{_SHARED} {given}, {over_time[0]!r}"
        )


def per_sample(
    field: VectorField, params: tuple, rows: Any, dtype: str
) -> tuple[VectorField, tuple]:
    """The field over s, in which each sample is at its own time, and its parameters.

    Args:
        field: The field over time. Its weights do not depend on time.
        params: Its parameters.
        rows: `(batch, times)`, an array in float64 or a tensor.
        dtype: The dtype of time in the solver.
    """
    numbers = range(rows.shape[1])
    parts = (
        *field.weights.parts,
        BasisWeights(KINDS["linear"](numbers)),
        BasisWeights(KINDS["hold"](numbers[:-1])),
    )

    def bind(constants: Structure) -> Any:
        func = field.func if field.bind is None else field.bind(constants)

        def over_gaps(s, y, theta):
            *theta, t, gap = theta
            rank = len(tree.flatten(y)[0].shape)
            t, gap = (ops.reshape(x, (-1, *[1] * (rank - 1))) for x in (t, gap))
            slope = func(t, y, tuple(theta))
            return tree.map_structure(lambda dy: dy * ops.cast(gap, dy.dtype), slope)

        return over_gaps

    # Subtracted before they are cast: large times may have small gaps.
    found = rows, rows[:, 1:] - rows[:, :-1]
    times = [ops.transpose(as_tensor(x, dtype)) for x in found]
    return VectorField.of(bind, field.constants, Parts(*parts)), (*params, *times)
