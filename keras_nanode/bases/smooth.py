"""Bases of polynomials and of waves."""

import keras
import numpy as np
from keras import ops

from keras_nanode import checks
from keras_nanode.bases.basis import Broadcasting, check_domain


@keras.saving.register_keras_serializable("keras_nanode")
class Polynomial(Broadcasting):
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
        self.domain = check_domain(domain)

    def __call__(self, t):
        # Multiplied up, since the gradient of t**0 at t = 0 is not defined everywhere.
        powers = [ops.ones_like(t)]
        for _ in range(self.degree):
            powers.append(powers[-1] * t)
        return ops.stack(powers, axis=-1)

    def get_config(self) -> dict:
        return {"degree": self.degree, "domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Trigonometric(Broadcasting):
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
        self.domain = check_domain(domain)

    def __call__(self, t):
        harmonics = np.arange(1, self.order + 1) * (2 * np.pi / self.period)
        angles = ops.expand_dims(t, -1) * ops.convert_to_tensor(harmonics, t.dtype)
        waves = ops.stack([ops.cos(angles), ops.sin(angles)], axis=-1)
        one = ops.expand_dims(ops.ones_like(t), -1)
        waves = ops.reshape(waves, (*t.shape, self.size - 1))
        return ops.cast(ops.concatenate([one, waves], axis=-1), t.dtype)

    def get_config(self) -> dict:
        return {"order": self.order, "period": self.period, "domain": self.domain}
