"""Piecewise bases: constants, buckets and B-splines."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks
from keras_nanode.bases.basis import MOST_FUNCTIONS, Broadcasting, check_domain

# Each degree takes several operations on all functions.
_MOST_DEGREE = 20


@keras.saving.register_keras_serializable("keras_nanode")
class Constant(Broadcasting):
    """z(t) = 1: weights that do not depend on time, as in an autonomous neural ODE.

    Args:
        domain: (t0, t1), the times for which the basis is meant.

    Example:

    >>> from keras_nanode import bases
    >>> bases.Constant().size
    1
    """

    size = 1
    piecewise_constant = True
    unbounded = True

    def __init__(self, domain: Sequence[float] = (0.0, 1.0)):
        self.domain = check_domain(domain)

    def __call__(self, t):
        t = self.as_times(t)
        return ops.expand_dims(ops.ones_like(t), -1)

    def get_config(self) -> dict:
        return {"domain": self.domain}


class Pieces(Broadcasting):
    """z_k(t) = 1 in the k-th of `size` pieces, which `breakpoints` part, else 0."""

    piecewise_constant = True

    def __call__(self, t):
        t = self.as_times(t)
        return ops.one_hot(self.locate(t), self.size, dtype=t.dtype)

    def locate(self, t):
        return piece_of(self.breakpoints, t)

    def combine(self, located, coefficients):
        return backend.take(coefficients, located)

    def combine_transpose(self, located, cotangents):
        # Not `ops.segment_sum`, which sums float64 in float32 on PyTorch.
        z = ops.one_hot(located, self.size, dtype=cotangents.dtype)
        return super().combine_transpose(z, cotangents)


@keras.saving.register_keras_serializable("keras_nanode")
class Bucket(Pieces):
    """z_k(t) = 1 in the k-th of K equal pieces of the domain, else 0.

    The weights are constant in each piece. With Euler's method and one step per bucket,
    this is a residual network (arXiv 2005.01906, section 2.3).

    Args:
        num_buckets: Integer K from 1 to 4096.
        domain: (t0, t1), the times that the buckets divide.

    Raises:
        ValueError: if `num_buckets` is not a positive integer, or `domain` is not an
            interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Bucket(4)(keras.ops.convert_to_tensor(0.6))
    >>> keras.ops.convert_to_numpy(z).tolist()
    [0.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, num_buckets: int, domain: Sequence[float] = (0.0, 1.0)):
        self.num_buckets = self.size = checks.integer(
            "num_buckets", num_buckets, most=MOST_FUNCTIONS
        )
        self.domain = check_domain(domain)
        self.breakpoints = _equal_edges(self.domain, self.size)[1:-1]

    def get_config(self) -> dict:
        return {"num_buckets": self.num_buckets, "domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class BSpline(Broadcasting):
    """Clamped B-splines: each z_k is a bump over `degree` + 1 pieces of the domain.

    The functions are nonnegative and sum to 1. Degree 0 with equal knots is `Bucket`.
    Degree 1 gives hat functions. A higher degree d has d - 1 continuous derivatives.

    Args:
        size: Integer above `degree`, the number of functions.
        degree: Integer from 0 to 20.
        knots: The `size - degree - 1` increasing times inside the domain that divide it
            into pieces. The domain's ends may be included. None makes equal pieces.
        domain: (t0, t1), the times that the pieces divide.

    Raises:
        ValueError: if an argument is not as described.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.BSpline(3, degree=1)(keras.ops.convert_to_tensor(0.25))
    >>> keras.ops.convert_to_numpy(z).tolist()
    [0.5, 0.5, 0.0]

    References:
        - [de Boor, 1978](https://doi.org/10.1007/978-1-4612-6333-3), chapter IX
    """

    def __init__(
        self,
        size: int,
        degree: int = 3,
        knots: Sequence[float] | None = None,
        domain: Sequence[float] = (0.0, 1.0),
    ):
        self.degree = checks.integer("degree", degree, 0, _MOST_DEGREE)
        self.size = checks.integer("size", size, self.degree + 1, MOST_FUNCTIONS)
        self.domain = check_domain(domain)
        pieces = self.size - self.degree
        edges = _equal_edges(self.domain, pieces)
        if knots is not None:
            edges = _given_edges(knots, pieces, self.domain)
        self.knots = edges[1:-1]
        self.piecewise_constant = self.degree == 0
        # From degree 2 on, the slope is continuous too.
        self.breakpoints = self.knots if self.degree < 2 else ()
        first, last = ((end,) * self.degree for end in self.domain)
        self._clamped = np.array((*first, *edges, *last))

    def __call__(self, t):
        t = self.as_times(t)
        # The Cox-de Boor recurrence, from degree 0 up. A degree has one function less
        # than the one before. The arrays keep their shape, which JAX compiles once, and
        # what is past the last function is cut off in the end.
        piece = piece_of(self.knots, t) + self.degree
        z = ops.one_hot(piece, self.size + self.degree, dtype=t.dtype)
        t = ops.expand_dims(t, -1)
        for d in range(1, self.degree + 1):
            rising = _over(self._clamped, d, t)
            following = ops.concatenate([z[..., 1:], z[..., :1]], axis=-1)
            z = rising[..., :-1] * z + (1 - rising[..., 1:]) * following
        return z[..., : self.size]

    def over(self, domain: Sequence[float]) -> "BSpline":
        (t0, t1), (first, last) = self.domain, check_domain(domain)
        places = (np.array(self.knots) - t0) / (t1 - t0)
        inside = tuple((first + (last - first) * places).tolist())
        # Ends are ends, and equal pieces stay equal, to the last digit.
        equal = self.knots == _equal_edges(self.domain, len(inside) + 1)[1:-1]
        return BSpline(self.size, self.degree, None if equal else inside, domain)

    def get_config(self) -> dict:
        return {
            "size": self.size,
            "degree": self.degree,
            "knots": self.knots,
            "domain": self.domain,
        }


def piece_of(edges, t):
    """The number of edges that are at most t. The edges increase."""
    if not edges:
        return ops.zeros_like(t, dtype="int32")
    # Count edges, since the division (t - t0) * K can round to the wrong side of one.
    edges = ops.convert_to_tensor(np.array(edges), dtype=t.dtype)
    passed = ops.expand_dims(t, -1) >= edges
    return ops.sum(ops.cast(passed, "int32"), axis=-1)


def _over(knots: np.ndarray, degree: int, t: Any) -> Any:
    """(t - k_i) / (k_(i + degree) - k_i) for each i, or 0 if the knots coincide or
    there are not as many."""
    scale, widths = np.zeros_like(knots), knots[degree:] - knots[:-degree]
    np.divide(1, widths, out=scale[:-degree], where=widths > 0)
    first, scale = (ops.convert_to_tensor(x, dtype=t.dtype) for x in (knots, scale))
    return (t - first) * scale


def _equal_edges(domain: tuple[float, float], pieces: int) -> tuple[float, ...]:
    """The edges of equal pieces of the domain."""
    t0, t1 = domain
    return (t0, *(t0 + (t1 - t0) * k / pieces for k in range(1, pieces)), t1)


def _given_edges(
    knots: Sequence[float], pieces: int, domain: tuple[float, float]
) -> tuple[float, ...]:
    """The edges of the pieces, from knots that may include the domain's ends."""
    expected = (
        f"{pieces - 1} increasing times inside the domain {domain}, one between each "
        f"two of the size - degree = {pieces} pieces, with the domain's ends or without"
    )
    found = checks.array("knots", knots, expected)
    if found.ndim != 1:
        raise checks.wrong("knots", knots, expected)
    inside = tuple(found.tolist())
    if len(inside) == pieces + 1 and (inside[0], inside[-1]) == domain:
        inside = inside[1:-1]
    edges = (domain[0], *inside, domain[1])
    if len(inside) != pieces - 1 or not np.all(np.diff(edges) > 0):
        raise checks.wrong("knots", knots, expected)
    return edges
