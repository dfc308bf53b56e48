"""Bases of pieces: constants, and what begins or ends somewhere in the domain."""

import keras
import numpy as np
from keras import ops

from keras_nanode import checks
from keras_nanode.bases.basis import Broadcasting, check_domain


@keras.saving.register_keras_serializable("keras_nanode")
class Constant(Broadcasting):
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
        self.domain = check_domain(domain)

    def __call__(self, t):
        return ops.expand_dims(ops.ones_like(t), -1)

    def get_config(self) -> dict:
        return {"domain": self.domain}


@keras.saving.register_keras_serializable("keras_nanode")
class Bucket(Broadcasting):
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
        self.domain = t0, t1 = check_domain(domain)
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
