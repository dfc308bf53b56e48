"""Bases of polynomials and of trigonometric functions."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks
from keras_nanode.bases.basis import (
    MOST_DEGREE,
    MOST_FUNCTIONS,
    Broadcasting,
    check_domain,
)


@keras.saving.register_keras_serializable("keras_nanode")
class Polynomial(Broadcasting):
    """z(t) = (1, t, ..., t^degree) (arXiv 2005.01906, eq. 7, d = degree + 1).

    Args:
        degree: Integer from 0 to 100.
        domain: (t0, t1), the times for which the basis is meant.

    Raises:
        ValueError: if `degree` is invalid, or `domain` is not an interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Polynomial(2)(keras.ops.convert_to_tensor(0.5))
    >>> keras.ops.convert_to_numpy(z).tolist()
    [1.0, 0.5, 0.25]
    """

    unbounded = True

    def __init__(self, degree: int, domain: Sequence[float] = (0.0, 1.0)):
        self.degree = checks.integer("degree", degree, 0, MOST_DEGREE)
        self.size = self.degree + 1
        self.domain = check_domain(domain)

    def __call__(self, t):
        t = self.as_times(t)
        # Multiply, since some backends have no gradient of t**0 at t = 0.
        powers = [ops.ones_like(t)]
        for _ in range(self.degree):
            powers.append(powers[-1] * t)
        return ops.stack(powers, axis=-1)

    def get_config(self) -> dict:
        return {"degree": self.degree, "domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Legendre(Broadcasting):
    """z_k(t) = sqrt(2 k + 1) P_k(2 s - 1), with s = (t - t0) / (t1 - t0).

    These are the Legendre polynomials of degree 0 to `degree`, orthonormal on the
    domain. They span the same space as `Polynomial` but are not nearly collinear.

    Args:
        degree: Integer from 0 to 100.
        domain: (t0, t1), the times on which they are orthonormal.

    Raises:
        ValueError: if `degree` is invalid, or `domain` is not an interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Legendre(2)(keras.ops.convert_to_tensor(1.0))
    >>> [round(float(x), 4) for x in z]
    [1.0, 1.7321, 2.2361]

    References:
        - [Digital Library of Mathematical Functions, 18.9](https://dlmf.nist.gov/18.9)
    """

    def __init__(self, degree: int, domain: Sequence[float] = (0.0, 1.0)):
        self.degree = checks.integer("degree", degree, 0, MOST_DEGREE)
        self.size = self.degree + 1
        self.domain = check_domain(domain)

    def __call__(self, t):
        t = self.as_times(t)
        x = 2 * self.fraction(t) - 1
        polynomials = [ops.ones_like(x), x]
        for k in range(1, self.degree):
            before, last = polynomials[-2:]
            polynomials.append(((2 * k + 1) * x * last - k * before) / (k + 1))
        return ops.stack(
            [(2 * k + 1) ** 0.5 * polynomials[k] for k in range(self.size)], axis=-1
        )

    def get_config(self) -> dict:
        return {"degree": self.degree, "domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Cosine(Broadcasting):
    """z(t) = (1, sqrt(2) cos(pi s), ..., sqrt(2) cos(pi (size - 1) s)), with
    s = (t - t0) / (t1 - t0).

    The functions are orthonormal on the domain and not periodic. If there are as many
    of them as equal steps, the weights at each step are free.

    Args:
        size: Integer from 1 to 4096, the number of functions.
        domain: (t0, t1), the times on which they are orthonormal.

    Raises:
        ValueError: if `size` is not a positive integer, or `domain` is not an interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Cosine(3)(keras.ops.convert_to_tensor(0.0))
    >>> [round(float(x), 4) for x in z]
    [1.0, 1.4142, 1.4142]

    References:
        - [Ahmed, Natarajan and Rao, 1974](https://doi.org/10.1109/T-C.1974.223784)
    """

    def __init__(self, size: int, domain: Sequence[float] = (0.0, 1.0)):
        self.size = checks.integer("size", size, most=MOST_FUNCTIONS)
        self.domain = check_domain(domain)

    def __call__(self, t):
        t = self.as_times(t)
        frequencies = ops.convert_to_tensor(np.pi * np.arange(self.size), t.dtype)
        waves = backend.cos(ops.expand_dims(self.fraction(t), -1) * frequencies)
        scale = np.where(np.arange(self.size) > 0, 2**0.5, 1.0)
        return waves * ops.convert_to_tensor(scale, t.dtype)

    def get_config(self) -> dict:
        return {"size": self.size, "domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Trigonometric(Broadcasting):
    """z(t) = (1, cos(w t), sin(w t), ..., cos(order w t), sin(order w t)).

    w = 2 pi / period, and there are 2 order + 1 functions. With the default period,
    this is arXiv 2005.01906, eq. 8.

    Args:
        order: Integer from 0 to 2047, the number of harmonics.
        period: Positive number, the time after which theta(t) repeats.
        domain: (t0, t1), the times for which the basis is meant.

    Raises:
        ValueError: if `order` or `period` is invalid, or `domain` is not an interval.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> z = bases.Trigonometric(1)(keras.ops.convert_to_tensor(0.0))
    >>> keras.ops.convert_to_numpy(z).tolist()
    [1.0, 1.0, 0.0]
    """

    unbounded = True

    def __init__(
        self,
        order: int,
        period: float = 2 * np.pi,
        domain: Sequence[float] = (0.0, 1.0),
    ):
        self.order = checks.integer("order", order, 0, MOST_FUNCTIONS // 2 - 1)
        self.period = checks.number(
            "period", period, "a positive, finite number", lambda p: p > 0
        )
        self.size = 2 * self.order + 1
        self.domain = check_domain(domain)

    def __call__(self, t):
        t = self.as_times(t)
        harmonics = np.arange(1, self.order + 1) * (2 * np.pi / self.period)
        angles = ops.expand_dims(t, -1) * ops.convert_to_tensor(harmonics, t.dtype)
        waves = ops.stack([backend.cos(angles), backend.sin(angles)], axis=-1)
        one = ops.expand_dims(ops.ones_like(t), -1)
        waves = ops.reshape(waves, (*t.shape, self.size - 1))
        return ops.cast(ops.concatenate([one, waves], axis=-1), t.dtype)

    def get_config(self) -> dict:
        return {"order": self.order, "period": self.period, "domain": self.domain}
