"""Bases whose coefficients are the values of a function at given times."""

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from keras_nanode.bases.basis import Basis, Broadcasting
from keras_nanode.bases.piecewise import BSpline, Pieces, piece_of


class Hold(Pieces):
    """The value at the last of `times` that is not later. The last value stays."""

    unbounded = True

    def __init__(self, times: Sequence[float]):
        self.times, self.size = tuple(times), len(times)
        self.domain = self.times[0], self.times[-1]
        self.breakpoints = self.times[1:]

    def get_config(self):
        return {"times": self.times}


class Hermite(Broadcasting):
    """Cubic pieces through the values at `times`, with continuous slopes.

    The slope at each time is that of the line from the time before; at the first time,
    to the one behind.

    References:
        - [Morrill et al., 2021](https://arxiv.org/abs/2106.11028), section 4.2
    """

    def __init__(self, times: Sequence[float]):
        self.times, self.size = tuple(times), len(times)
        self.domain = self.times[0], self.times[-1]
        lines = np.diff(np.eye(self.size), axis=0) / np.diff(times)[:, None]
        self._slopes = np.concatenate([lines[:1], lines])

    def __call__(self, t):
        t = self.as_times(t)
        i = piece_of(self.times[1:-1], t)
        knots, units, slopes = (
            ops.convert_to_tensor(x, t.dtype)
            for x in (np.array(self.times), np.eye(self.size), self._slopes)
        )
        start, end = (ops.take(knots, j, axis=0) for j in (i, i + 1))
        h = ops.expand_dims(end - start, -1)
        s = ops.expand_dims(t - start, -1) / h
        rise, bend = s * s * (3 - 2 * s), s * (1 - s)
        return (
            (1 - rise) * ops.take(units, i, axis=0)
            + rise * ops.take(units, i + 1, axis=0)
            + h * bend * (1 - s) * ops.take(slopes, i, axis=0)
            - h * bend * s * ops.take(slopes, i + 1, axis=0)
        )

    def get_config(self):
        return {"times": self.times}


def _linear(times: Sequence[float]) -> Basis:
    return BSpline(len(times), 1, tuple(times[1:-1]), (times[0], times[-1]))


KINDS: dict[str, Callable[[Sequence[float]], Basis]] = {
    "hold": Hold,
    "linear": _linear,
    "cubic": Hermite,
}
