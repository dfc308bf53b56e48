"""z(t): the functions of time that weights are combined from.

theta(t) = sum_k z_k(t) alpha_k, with learned coefficients alpha_k
(Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 2.3).
"""

import abc

import keras
import numpy as np
from keras import ops

from keras_nanode import checks


class Basis(abc.ABC):
    """A finite set of functions of time, z(t) = (z_1(t), ..., z_K(t)).

    Subclass it for a basis of your own: set `size`, write `__call__` and
    `get_config`, and register the class with
    `keras.saving.register_keras_serializable` so that models which use it can be saved.

    Attributes:
        size: K, the number of functions.
        domain: (t0, t1), the times for which the basis is meant.
        breakpoints: Times inside the domain at which z jumps, increasing; () if it is
            continuous. In a solver no step sees both sides of one: a step belongs to
            the piece that holds its midpoint.
        piecewise_constant: Whether z is constant between breakpoints, so that all
            stages of a step share their weights.
        unbounded: Whether z is defined outside the domain too. If not, an ODE whose
            `t_span` leaves the domain is refused.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Decay(bases.Basis):
    ...     size = 2
    ...
    ...     def __call__(self, t):
    ...         return keras.ops.stack([keras.ops.ones_like(t), keras.ops.exp(-t)])
    ...
    ...     def get_config(self):
    ...         return {}
    >>> Decay()(keras.ops.convert_to_tensor(0.0)).shape[0]
    2
    """

    size: int
    domain: tuple[float, float] = (0.0, 1.0)
    breakpoints: tuple[float, ...] = ()
    piecewise_constant: bool = False
    unbounded: bool = False

    @abc.abstractmethod
    def __call__(self, t):
        """z(t) with shape (K,), for a scalar tensor t."""

    @abc.abstractmethod
    def get_config(self) -> dict:
        """The arguments that make an equal basis."""

    @classmethod
    def from_config(cls, config: dict) -> "Basis":
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), str(self.get_config())))

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def values(self, t):
        """z at each of the times t, a tensor of shape (n,): shape (n, K)."""
        return ops.vectorized_map(self, t)

    # What a solver needs. A basis that is zero but for one function at a time
    # overrides these three and is spared the multiplications with zeros.

    def locate(self, t):
        """What `combine` needs to know of the times t, a tensor of shape (n,)."""
        return self.values(t)

    def combine(self, located, coefficients):
        """theta at n located times, (n, *w.shape), of coefficients (K, *w.shape)."""
        flat = ops.reshape(coefficients, (self.size, -1))
        # `ops.matmul` would turn float64 into float32 on JAX and PyTorch.
        theta = ops.cast(located, coefficients.dtype) @ flat
        return ops.reshape(theta, (located.shape[0], *coefficients.shape[1:]))

    def spread(self, located, cotangents):
        """The transpose of `combine`: cotangents (n, *w.shape) to (K, *w.shape)."""
        flat = ops.reshape(cotangents, (located.shape[0], -1))
        z = ops.cast(located, cotangents.dtype)
        return ops.reshape(ops.transpose(z) @ flat, (self.size, *cotangents.shape[1:]))


def _check_domain(domain) -> tuple[float, float]:
    pair = np.shape(domain) == (2,)
    if not pair or not np.isfinite(domain).all() or not domain[0] < domain[1]:
        raise ValueError(
            "`domain` must be two finite times (t0, t1) with t0 < t1, whichever way "
            f"the ODE runs. Received: domain={domain!r}"
        )
    return float(domain[0]), float(domain[1])


class _Broadcasting(Basis):
    """A basis whose `__call__` takes times of any shape."""

    def values(self, t):
        return self(t)


@keras.saving.register_keras_serializable("keras_nanode")
class Constant(_Broadcasting):
    """z(t) = 1: weights that do not depend on time, the autonomous neural ODE.

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

    def __init__(self, domain=(0.0, 1.0)):
        self.domain = _check_domain(domain)

    def __call__(self, t):
        return ops.expand_dims(ops.ones_like(t), -1)

    def get_config(self) -> dict:
        return {"domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Bucket(_Broadcasting):
    """z_k(t) = 1 in the k-th of K equal pieces of the domain, else 0.

    Weights that are constant in each piece. With Euler's method and a step for each
    bucket this is a residual network (arXiv 2005.01906, section 2.3).

    Args:
        num_buckets: Positive integer K.
        domain: (t0, t1), the times that the buckets divide.

    Raises:
        ValueError: if `num_buckets` is not a positive integer, or `domain` not an
            interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Bucket(4)(keras.ops.convert_to_tensor(0.6))
    >>> keras.ops.convert_to_numpy(z).tolist()
    [0.0, 0.0, 1.0, 0.0]
    """

    piecewise_constant = True

    def __init__(self, num_buckets: int, domain=(0.0, 1.0)):
        self.num_buckets = self.size = checks.count("num_buckets", num_buckets)
        self.domain = t0, t1 = _check_domain(domain)
        self.breakpoints = tuple(
            t0 + (t1 - t0) * k / num_buckets for k in range(1, num_buckets)
        )

    def __call__(self, t):
        return ops.one_hot(self._index(t), self.size, dtype=t.dtype)

    def _index(self, t):
        if not self.breakpoints:
            return ops.zeros_like(t, dtype="int32")
        # Counted rather than divided: (t - t0) * K rounds to the wrong side of edges.
        edges = ops.convert_to_tensor(np.array(self.breakpoints), dtype=t.dtype)
        passed = ops.expand_dims(t, -1) >= edges
        return ops.sum(ops.cast(passed, "int32"), axis=-1)

    def locate(self, t):
        return self._index(t)

    def combine(self, located, coefficients):
        return ops.take(coefficients, located, axis=0)

    def spread(self, located, cotangents):
        # Not `ops.segment_sum`, which sums float64 in float32 on PyTorch.
        z = ops.one_hot(located, self.size, dtype=cotangents.dtype)
        return super().spread(z, cotangents)

    def get_config(self) -> dict:
        return {"num_buckets": self.num_buckets, "domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Polynomial(_Broadcasting):
    """z(t) = (1, t, ..., t^degree) (arXiv 2005.01906, eq. 7, d = degree + 1).

    Args:
        degree: Integer of at least 0.
        domain: (t0, t1), the times for which the basis is meant.

    Raises:
        ValueError: if `degree` is not such an integer, or `domain` not an interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Polynomial(2)(keras.ops.convert_to_tensor(0.5))
    >>> keras.ops.convert_to_numpy(z).tolist()
    [1.0, 0.5, 0.25]
    """

    unbounded = True

    def __init__(self, degree: int, domain=(0.0, 1.0)):
        self.degree = checks.count("degree", degree, 0)
        self.size = self.degree + 1
        self.domain = _check_domain(domain)

    def __call__(self, t):
        # Multiplied up, since the gradient of t**0 at t = 0 is not defined everywhere.
        powers = [ops.ones_like(t)]
        for _ in range(self.degree):
            powers.append(powers[-1] * t)
        return ops.stack(powers, axis=-1)

    def get_config(self) -> dict:
        return {"degree": self.degree, "domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Trigonometric(_Broadcasting):
    """z(t) = (1, cos(w t), sin(w t), ..., cos(order w t), sin(order w t)).

    w = 2 pi / period; at the default period this is arXiv 2005.01906, eq. 8, with
    2 order + 1 functions.

    Args:
        order: Integer of at least 0, the number of harmonics.
        period: Positive number, the time after which theta(t) repeats.
        domain: (t0, t1), the times for which the basis is meant.

    Raises:
        ValueError: if `order` or `period` is not such a number, or `domain` not an
            interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Trigonometric(1)(keras.ops.convert_to_tensor(0.0))
    >>> keras.ops.convert_to_numpy(z).tolist()
    [1.0, 1.0, 0.0]
    """

    unbounded = True

    def __init__(self, order: int, period: float = 2 * np.pi, domain=(0.0, 1.0)):
        self.order = checks.count("order", order, 0)
        if not 0 < period < np.inf:
            raise ValueError(
                "`period` must be a positive, finite number. "
                f"Received: period={period!r}"
            )
        self.period = float(period)
        self.size = 2 * self.order + 1
        self.domain = _check_domain(domain)

    def __call__(self, t):
        harmonics = np.arange(1, self.order + 1) * (2 * np.pi / self.period)
        angles = ops.expand_dims(t, -1) * ops.convert_to_tensor(harmonics, t.dtype)
        waves = ops.stack([ops.cos(angles), ops.sin(angles)], axis=-1)
        one = ops.expand_dims(ops.ones_like(t), -1)
        waves = ops.reshape(waves, (*t.shape, self.size - 1))
        return ops.cast(ops.concatenate([one, waves], axis=-1), t.dtype)

    def get_config(self) -> dict:
        return {"order": self.order, "period": self.period, "domain": self.domain}


# The names of the paper's Table 1, with its sizes.
ALL: dict[str, Basis] = {
    "constant": Constant(),
    "bucket": Bucket(10),
    "poly": Polynomial(10),
    "trig": Trigonometric(10),
}


def get(basis) -> Basis:
    """The basis for a name, or the basis itself.

    Args:
        basis: A `Basis`, or one of the names `"constant"`, `"bucket"` (10 buckets),
            `"poly"` (degree 10) and `"trig"` (order 10).

    Raises:
        ValueError: if there is no such basis.
    """
    if isinstance(basis, Basis):
        return basis
    if isinstance(basis, dict):
        return keras.saving.deserialize_keras_object(basis)
    if not isinstance(basis, str) or basis not in ALL:
        raise ValueError(
            f"Unknown `basis`. Use one of {sorted(ALL)} or a "
            f"`keras_nanode.bases.Basis`. Received: basis={basis!r}"
        )
    return ALL[basis]
