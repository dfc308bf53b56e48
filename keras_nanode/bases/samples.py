"""A basis at a sample of times, for the values that its coefficients start with."""

import numpy as np
from keras import ops

from keras_nanode.bases.basis import Basis, broken, not_finite

# Bounds the memory of a sample.
_MOST_VALUES = 2**21
# Least squares takes K^3 operations.
_MOST_FITTED = 512
# Of z in float32.
_ROUNDING = 1e-5


def sample(basis: Basis) -> np.ndarray:
    """z at times that are spread over the domain, with shape (times, K).

    There is one time in each of equal intervals, not at their middles: the pieces or
    the periods of z may be as long.
    """
    t0, t1 = basis.domain
    count = max(256, min(4 * basis.size, _MOST_VALUES // basis.size))
    places = (np.arange(count) + np.random.default_rng(0).random(count)) / count
    times = ops.convert_to_tensor(t0 + (t1 - t0) * places, dtype="float32")
    z = ops.convert_to_numpy(basis.values(times)).astype("float64")
    finite = np.isfinite(z).all(axis=1)
    if not finite.all():
        first = np.argmin(finite)
        t = t0 + (t1 - t0) * places[first]
        raise broken(basis, not_finite(t, z[first]))
    return z


def combination_of_one(basis: Basis, z: np.ndarray) -> np.ndarray:
    """The coefficients of the combination that is nearest to 1 at all sampled times."""
    size = z.shape[1]
    if np.allclose(z.sum(axis=1), 1, rtol=0, atol=_ROUNDING):
        return np.ones(size)
    constant = (np.ptp(z, axis=0) <= _ROUNDING * np.abs(z[0])) & (z[0] != 0)
    if constant.any():
        one = np.argmax(constant)
        return np.where(np.arange(size) == one, 1 / z[0, one], 0.0)
    if size > _MOST_FITTED:
        raise ValueError(
            f"A basis of more than {_MOST_FITTED} functions needs a simple combination "
            "that is 1 at all times. Make one of them constant, or let their sum be 1. "
            f"Received: size={size}, basis={basis!r}"
        )
    return np.linalg.lstsq(z, np.ones(len(z)), rcond=None)[0]
