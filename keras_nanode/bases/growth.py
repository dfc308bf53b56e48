"""How large the functions of a basis get."""

import numpy as np
from keras import ops

from keras_nanode import backend
from keras_nanode.bases.basis import Basis, Broadcasting, check_promises

_TIMES = 65


def largest_sum(basis: Basis, t_span: tuple[float, float]) -> float:
    """The largest sum_k |z_k(t)| over t_span.

    An update that moves every coefficient by a rate moves w(t) by up to this times the
    rate.
    """
    with backend.eagerly():
        if not isinstance(basis, Broadcasting):
            check_promises(basis)
        times = ops.convert_to_tensor(np.linspace(*t_span, _TIMES), dtype="float32")
        return float(ops.max(ops.sum(ops.abs(basis.values(times)), axis=-1)))


def usual_sum(basis: Basis) -> float:
    """What `largest_sum` is at most for every basis of this library on its domain, if
    that is (0, 1): K^1.5, which orthonormal polynomials come near to."""
    return basis.size**1.5
