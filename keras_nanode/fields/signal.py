"""An input that depends on time, given by its values at some times."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks
from keras_nanode.bases.sampled import KINDS
from keras_nanode.given_times import one_time

Times = Sequence[float] | np.ndarray


class Signal:
    """An input u(t) of a vector field, given by its values at some times.

    It is a basis and its coefficients, u(t) = sum_k z_k(t) u_k, like weights over time.
    So a step never sees both sides of a knot: fixed steps see a held input at the
    middle of the step, and keep their order if the knots are among their ends. Adaptive
    steps end on knots ("hold", "linear"). Gradients flow to the values.

    Args:
        values: A floating tensor `(batch, times, channels)` or `(times, channels)`,
            without NaN: fill it before, or hold the last value seen. u(t) is
            `(batch, channels)` or `(channels,)`.
        times: The increasing times of the values, numbers that the batch shares. As
            numbers they have 64 bits; a solver computes with them in the state's
            precision, so count from a near time (Unix seconds in float32 are 128 s
            apart).
        kind: `"hold"` holds the last value, also after the last time: it is causal.
            `"linear"` joins the values. `"cubic"` joins them with continuous slopes
            (Hermite with backward differences, Morrill et al., 2021). Both use the next
            value between two times, so they are causal at these times only, and are
            refused outside of them. (A compiled solve over tensor times cannot refuse:
            there the first and the last piece go on.)

    Raises:
        ValueError: if an argument is not as described.

    Example:

    >>> import numpy as np
    >>> from keras_nanode import Signal, odeint
    >>> u = Signal(np.array([[1.0], [3.0], [0.0]]), times=[0.0, 1.0, 2.0])
    >>> y = odeint(lambda t, y, u: u, np.zeros(1), [0.0, 1.0, 2.0], args=(u,))
    >>> [round(float(x), 3) for x in y[:, 0]]
    [0.0, 1.0, 4.0]

    References:
        - [Kidger et al., 2020](https://arxiv.org/abs/2005.08926)
    """

    def __init__(self, values: Any, times: Times, kind: str = "hold"):
        self.kind = checks.one_of("kind", kind, KINDS)
        self.times = _as_times(times, 1 if kind == "hold" else 2)
        self.values = _as_values(values, len(self.times))
        self.basis = KINDS[self.kind](self.times)

    @property
    def coefficients(self) -> Any:
        """The values with their times along the first axis."""
        if len(self.values.shape) == 2:
            return self.values
        return ops.swapaxes(self.values, 0, 1)

    def __call__(self, t: Any) -> Any:
        """u at a time, a number or a scalar tensor."""
        t = one_time("t", t)
        if not ops.is_tensor(t):
            self.check_covers("t", [t])
        dtype = keras.backend.standardize_dtype(self.values.dtype)
        # `ops.cast` would round a number to float32 first.
        t = ops.cast(t, dtype) if ops.is_tensor(t) else ops.convert_to_tensor(t, dtype)
        t = ops.reshape(t, (1,))
        return self.basis.combine(self.basis.locate(t), self.coefficients)[0]

    def check_covers(self, name: str, times: Any) -> None:
        """Raises a ValueError if there is no value at some of these times."""
        first, last = float(min(times)), float(max(times))
        start, end = self.times[0], self.times[-1]
        if first < start or (last > end and self.kind != "hold"):
            until = "on" if self.kind == "hold" else f"to {end}"
            raise ValueError(
                f"A `Signal` of kind {self.kind!r} has values from {start} {until}, "
                f"and `{name}` leaves them. Give values for all of `{name}`"
                f"{'' if self.kind == 'hold' else ', or hold the last one'}. "
                f"Received: {name} from {first} to {last}"
            )

    def __repr__(self):
        shape = tuple(self.values.shape)
        knots = f"{len(self.times)} times"
        return f"Signal(values of shape {shape}, {knots}, {self.kind!r})"


def _as_times(times: Any, least: int) -> tuple[float, ...]:
    some = "times" if least == 1 else f"times, at least {least}"
    expected = f"finite, increasing {some}, numbers in one series"
    found = checks.array("times", times, expected)
    good = found.ndim == 1 and len(found) >= least and np.isfinite(found).all()
    if not (good and np.all(np.diff(found) > 0)):
        raise checks.wrong("times", times, expected)
    return tuple(found.tolist())


def _as_values(values: Any, number: int) -> Any:
    if isinstance(values, keras.KerasTensor):
        raise ValueError(
            "A `Signal` holds values, and `values` is symbolic. Make it in the `call` "
            f"of a layer of your own. Received: values={values!r}"
        )
    found = checks.tensor("values", values)
    checks.floating("values", found)
    shape = tuple(found.shape)
    if len(shape) not in (2, 3) or shape[-2] != number:
        raise ValueError(
            f"`values` must be of shape (batch, {number}, channels) or ({number}, "
            f"channels), a value for each of the {number} `times`. "
            f"Received: shape={shape}"
        )
    if backend.is_known(found) and np.isnan(backend.values(found)).any():
        where = np.argwhere(np.isnan(backend.values(found)))[0].tolist()
        raise ValueError(
            "`values` must not have NaN, which would reach the whole solution. Fill it "
            "with the last value seen, say, and give what is missing as one more "
            f"channel. Received: NaN at index {where}"
        )
    return found
