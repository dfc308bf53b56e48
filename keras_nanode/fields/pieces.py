"""Times within steps, and the pieces between breakpoints that steps are in."""

from typing import Any

import numpy as np
from keras import ops

from keras_nanode import backend
from keras_nanode.arrays import eps, namespace, where


def between(start: Any, end: Any, fraction: Any, forwards: bool | None = None) -> Any:
    """The time at a fraction of a step: exactly `start` at 0 and `end` at 1. It is
    never outside the step by rounding. Arguments broadcast. See `nearest`."""
    # At 0 and 1 the other end is multiplied by 0, so the result is exact.
    time = start * (1 - fraction) + end * fraction
    if isinstance(time, np.ndarray):
        return np.clip(time, np.minimum(start, end), np.maximum(start, end))
    return nearest(time, start, end, forwards)


def nearest(time: Any, start: Any, end: Any, forwards: bool | None = None) -> Any:
    """`time`, or the nearest end of the step if `time` is outside the step.

    Args:
        time, start, end: Tensors or arrays that broadcast.
        forwards: Whether all steps run forwards in time, for times without a gradient.
            None finds the direction of each step, and keeps the derivatives of `time`.
    """
    if forwards is not None:
        return _clipped(time, *((start, end) if forwards else (end, start)))
    ahead = start <= end
    low, high = ops.where(ahead, start, end), ops.where(ahead, end, start)
    return time + ops.stop_gradient(_clipped(time, low, high) - time)


def _clipped(x, low, high):
    # `ops.clip` would turn float64 into float32 on PyTorch.
    x = where(x < low, low, x)
    return where(x > high, high, x)


def rounding(times: Any, dtype: str) -> Any:
    """The distance by which rounding alone may separate a time from a breakpoint.

    Args:
        times: The first to the last time, an array or a tensor.
        dtype: The dtype of time in the solver.
    """
    given = eps(times) * namespace(times).max(abs(times))
    computed = eps(dtype) * abs(times[-1] - times[0])
    return 8 * where(computed > given, computed, given)


def into_interval_before(times: Any, dtype: str) -> Any:
    """The way from any of the times into the interval before it: a distance that is
    longer than what rounding may have put between the time and a breakpoint at it."""
    return 2 * rounding(times, dtype) * ops.sign(times[0] - times[-1])


def pieces(breakpoints, start, end):
    """The piece between breakpoints that each step is in: the one with its middle.

    Rounding alone may separate a middle from a breakpoint. Such a middle is in the
    piece that begins there, in either direction of time.
    """
    middle = (start + end) / 2
    if isinstance(middle, np.ndarray):
        middle = middle + 4 * np.spacing(np.maximum(abs(start), abs(end)).max())
        found = np.searchsorted(np.array(breakpoints), middle, side="right")
        return found.astype("int32")
    rounding, most = 2 * eps(middle) * (abs(start) + abs(end)), abs(end - start) / 8
    middle = middle + where(rounding < most, rounding, most)
    # Count edges, since some export formats have no search operation.
    edges = ops.convert_to_tensor(np.array(breakpoints), middle.dtype)
    return ops.sum(ops.cast(middle[:, None] >= edges, "int32"), axis=-1)


def within_piece(times, piece, breakpoints, dtype):
    """Moves `times` (steps, sets) into each step's piece between breakpoints.

    A stage on a jump of z must see the side that its step is on, but a rounded time may
    lie on either side. Takes arrays or tensors.
    """
    planned = isinstance(times, np.ndarray)
    times = times.astype(dtype) if planned else ops.cast(times, dtype)
    if not breakpoints:
        return times
    edges = np.array(breakpoints, dtype)
    # Finite limits, since a check for infinities in a graph would find infinite ones.
    limits = np.finfo(dtype)
    first = np.append(limits.min, edges)
    last = np.nextafter(np.append(edges, limits.max), first)
    if planned:
        return np.clip(times, first[piece][:, None], last[piece][:, None])
    low, high = (
        backend.take(ops.convert_to_tensor(x), piece)[:, None] for x in (first, last)
    )
    return _clipped(times, low, high)
